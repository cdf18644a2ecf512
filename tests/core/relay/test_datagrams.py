"""Datagrams of the relay in batches: what has a way is carried as it was decided, all else is left."""

import contextlib
import itertools
import os
import random
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder._core import SHED_FORGED, SHED_SYN, Datagrams
from gateway.ip.packets import adds_up

MAC, OTHER_MAC = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
GUEST, ASKED, LOOPBACK = bytes((10, 7, 0, 2)), bytes((192, 0, 2, 1)), bytes((127, 0, 0, 1))
GUEST6, ASKED6 = bytes.fromhex("fd00") + bytes(13) + b"\x02", bytes.fromhex("20010db8") + bytes(12)
LOOPBACK6 = bytes(15) + b"\x01"
NEEDS_SUM, SEGMENTS = 1, 5
BATCH = 32


class World:
    """The core between a socket that stands for guests, one for the TUN device, and real ones."""

    def __init__(self, stack):
        self.core = Datagrams(
            bytes((10, 7, 0, 0)), bytes((255, 255, 255, 0)), bytes.fromhex("fd00") + bytes(6)
        )
        self.guests, self._frames = self._pair(stack)
        self._tun, self._packets = self._pair(stack)
        self.core.speak_by(self._tun.fileno(), 1500)
        self._stack = stack

    def _pair(self, stack):
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for each in pair:
            stack.enter_context(each)
            each.setblocking(False)
        return pair

    def socket(self, family=socket.AF_INET):
        """Return one that the core knows, bound to loopback."""
        sock = self._stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        sock.setblocking(False)
        self.core.open(sock.fileno())
        return sock

    def carry(self, *frames):
        """Have frames read; return how many were carried and those that are left."""
        carried, left = 0, []
        for some in itertools.zip_longest(*[iter(frames)] * 8):
            for frame in filter(None, some):
                self.guests.send(frame)
            _, count, rest = self.core.read_frames(self._frames.fileno())
            carried, left = carried + count, left + rest
        return carried, left

    def packets(self):
        return list(received(self._packets))


@pytest.fixture
def world():
    with contextlib.ExitStack() as stack:
        yield World(stack)


def received(sock):
    """Yield what a socket has."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sock.recv(70_000)


def ip(source, destination, number, body, *, hops=64, keep=True):
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28, len(body), number, hops) + source + destination + body
    place = 0x4000 if keep else 0
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 7, place, hops, number, 0) + source + destination
    return head[:10] + checksum(head) + head[12:] + body


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF or 0xFFFF)


def frame(payload, port, *, mac=MAC, source=GUEST, to=ASKED, own=4000, cut=0, wrong=False, **way):
    """Return a datagram of a guest as a packet socket shows it."""
    udp = struct.pack(">HHHH", own, port, 8 + len(payload), 0) + payload
    pseudo = source + to + struct.pack(">II", len(udp), 17)
    total = checksum(pseudo + udp + bytes(len(udp) & 1))
    if wrong:
        total = bytes((total[0] ^ 1, total[1]))
    vnet = struct.pack("=BBHHHH", NEEDS_SUM if cut else 0, SEGMENTS if cut else 0, 0, cut, 0, 0)
    kind = b"\x08\x00" if len(source) == 4 else b"\x86\xdd"
    ethernet = bytes(6) + mac + kind
    return vnet + ethernet + ip(source, to, 17, udp[:6] + total + udp[8:], **way)


def known(world, sock, *, to=LOOPBACK, **what):
    """Enter the way of a guest's flow."""
    what = {"source": GUEST, "asked": ASKED, "own": 4000, "hops": 64, "keep": True, **what}
    world.core.from_guest(
        MAC, what["source"], what["asked"], what["own"], what["hops"], what["keep"], sock.fileno(), to
    )


@pytest.mark.parametrize(
    ("family", "source", "asked", "loopback"),
    [(socket.AF_INET, GUEST, ASKED, LOOPBACK), (socket.AF_INET6, GUEST6, ASKED6, LOOPBACK6)],
)
def test_datagrams_with_a_way_are_sent_in_order_by_its_socket(world, family, source, asked, loopback):
    flow, target = world.socket(family), world.socket(family)
    port = target.getsockname()[1]
    known(world, flow, source=source, asked=asked, to=loopback)
    sent = [
        bytes([number]) * size for number, size in enumerate([100, 100, 100, 40, 40, 700, 1, 0, 100, 1400])
    ]
    carried, left = world.carry(*(frame(each, port, source=source, to=asked) for each in sent))
    assert (carried, left) == (len(sent), [])
    data, peer = target.recvfrom(2000)
    assert [data, *received(target)] == sent
    assert peer[1] == flow.getsockname()[1]
    assert world.core.used(flow.fileno()) > 0


@pytest.mark.parametrize(
    "other",
    [{"mac": OTHER_MAC}, {"own": 4001}, {"hops": 63}, {"keep": False}, {"to": LOOPBACK}, {"source": ASKED}],
)
def test_a_frame_that_differs_in_any_field_is_left_unchanged(world, other):
    flow, target = world.socket(), world.socket()
    known(world, flow)
    foreign = frame(b"other", target.getsockname()[1], **other)
    assert world.carry(foreign) == (0, [foreign])
    assert not list(received(target))


def test_a_wrong_checksum_a_fragment_and_options_are_left(world):
    flow, target = world.socket(), world.socket()
    port = target.getsockname()[1]
    known(world, flow)
    whole = frame(b"whole", port)
    at = 10 + 14
    pieces = bytearray(whole)
    pieces[at + 6 : at + 8] = b"\x20\x00"
    pieces[at + 10 : at + 12] = bytes(2)
    pieces[at + 10 : at + 12] = checksum(bytes(pieces[at : at + 20]))
    broken = [frame(b"wrong", port, wrong=True), bytes(pieces), whole[:-1], whole[:20], whole[:40], b""]
    carried, left = world.carry(*broken[:-1])
    assert (carried, left) == (0, broken[:-1])
    assert not list(received(target))


def test_a_frame_of_many_is_cut(world):
    flow, target = world.socket(), world.socket()
    known(world, flow)
    carried, left = world.carry(frame(bytes(250), target.getsockname()[1], cut=100))
    assert (carried, left) == (1, [])
    assert [len(each) for each in received(target)] == [100, 100, 50]


def test_a_socket_that_is_forgotten_carries_nothing_and_neither_does_its_successor(world):
    flow, target = world.socket(), world.socket()
    port = target.getsockname()[1]
    known(world, flow)
    assert world.carry(frame(b"one", port))[0] == 1
    world.core.forget(flow.fileno())
    assert world.carry(frame(b"two", port))[0] == 0
    world.core.open(flow.fileno())
    assert world.carry(frame(b"three", port))[0] == 0
    assert list(received(target)) == [b"one"]


def test_ways_to_and_from_sockets_that_are_not_open_are_ignored(world):
    target = world.socket()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        known(world, stranger)
    assert world.carry(frame(b"one", target.getsockname()[1]))[0] == 0
    world.core.to_guest(999, LOOPBACK, ASKED, GUEST, 4000)
    world.core.forget(999)
    assert world.core.used(999) == 0


def test_more_flows_than_there_are_places_never_take_anothers_way(world):
    ours, others = world.socket(), world.socket()
    target = world.socket()
    port = target.getsockname()[1]
    owners = {own: (ours, others)[own % 2] for own in range(1, 9001)}
    for own, sock in owners.items():
        known(world, sock, own=own)
    asked = random.Random(1).sample(sorted(owners), 400)
    seen = 0
    for own in asked:
        carried, _ = world.carry(frame(b"%d" % own, port, own=own))
        for _ in range(carried):
            data, peer = target.recvfrom(100)
            assert peer[1] == owners[int(data)].getsockname()[1]
            seen += 1
    assert 100 < seen < 400


def answers(world, flow, payloads):
    """Have a peer of a flow send, and return the packets that come out for the guest."""
    peer = world.socket()
    for payload in payloads:
        peer.sendto(payload, flow.getsockname())
    world.core.to_guest(flow.fileno(), LOOPBACK, ASKED, GUEST, 4000)
    count, carried, left = world.core.read(flow.fileno(), False)
    assert (count, carried, left) == (len(payloads), len(payloads), [])
    return peer, world.packets()


def test_answers_of_one_size_become_one_packet_to_be_cut(world):
    payloads = [bytes([number]) * 500 for number in range(6)] + [b"last"]
    peer, packets = answers(world, world.socket(), payloads)
    assert len(packets) == 1
    flags, kind, _, segment, start, offset = struct.unpack_from("=BBHHHH", packets[0])
    assert (flags, kind, segment, start, offset) == (NEEDS_SUM, SEGMENTS, 500, 20, 6)
    packet = packets[0][10:]
    assert adds_up(packet[:20])
    assert packet[12:20] == ASKED + GUEST
    assert struct.unpack_from(">HHH", packet, 20) == (peer.getsockname()[1], 4000, 8 + 3004)
    assert packet[28:] == b"".join(payloads)


def test_answers_that_no_packet_holds_go_one_by_one(world):
    payloads = [bytes(2000), bytes(2000), b"x", b"", b"yy"]
    _, packets = answers(world, world.socket(), payloads)
    assert [packet[38:] for packet in packets] == payloads
    assert all(packet[1] == 0 for packet in packets)


def test_a_long_answer_by_ipv6_is_left_to_be_cut(world):
    flow, peer = world.socket(socket.AF_INET6), world.socket(socket.AF_INET6)
    world.core.to_guest(flow.fileno(), LOOPBACK6, ASKED6, GUEST6, 4000)
    for size in (1452, 1453):
        peer.sendto(bytes(size), flow.getsockname()[:2])
    count, carried, left = world.core.read(flow.fileno(), False)
    assert (count, carried, [len(each[0]) for each in left]) == (2, 1, [1453])
    assert left[0][1:4] == (LOOPBACK6, peer.getsockname()[1], 0)
    assert len(world.packets()) == 1


def test_clients_are_told_apart_by_their_ports(world):
    near, one, two = (world.socket() for _ in range(3))
    clients = [world.socket(), world.socket()]
    for client, out in zip(clients, (one, two), strict=True):
        out.connect(near.getsockname())
        client.sendto(b"first", near.getsockname())
    _, carried, left = world.core.read(near.fileno(), True)
    assert carried == 0
    assert [(data, peer, port) for data, peer, port, *_ in left] == [
        (b"first", LOOPBACK, client.getsockname()[1]) for client in clients
    ]
    far = world.socket()
    for client, out in zip(clients, (one, two), strict=True):
        out.connect(far.getsockname())
        port = client.getsockname()[1]
        world.core.to_socket(near.fileno(), LOOPBACK, port, b"", out.fileno(), b"", 0, b"")
        for _ in range(3):
            client.sendto(b"%d" % port, near.getsockname())
    _, carried, left = world.core.read(near.fileno(), True)
    assert (carried, left) == (6, [])
    for _ in range(6):
        data, peer = far.recvfrom(100)
        assert (
            peer[1]
            == dict(
                zip(
                    (c.getsockname()[1] for c in clients),
                    (one.getsockname()[1], two.getsockname()[1]),
                    strict=True,
                )
            )[int(data)]
        )


def test_shed_frames_are_only_counted(world):
    flow, target = world.socket(), world.socket()
    known(world, flow)
    tcp = [
        bytes(10)
        + bytes(6)
        + mac
        + b"\x08\x00"
        + ip(GUEST, ASKED, 6, struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 80, 2, 0, 0, 0))
        for mac in (MAC, OTHER_MAC)
    ]
    forged = frame(b"x", 9, source=bytes((203, 0, 113, 1)))
    syns = world.carry(*tcp)[1]
    assert [mac for mac, *_ in syns] == [MAC, OTHER_MAC]
    assert world.carry(forged) == (0, [forged])
    world.core.shed(MAC, SHED_SYN, 60.0)
    assert world.carry(*tcp, forged) == (0, [syns[1], forged])
    world.core.shed(MAC, SHED_FORGED, 60.0)
    good = frame(b"good", target.getsockname()[1])
    assert world.carry(*tcp, forged, good) == (1, [syns[1]])
    assert world.core.take_counts() == (0, 2, 1)
    assert world.core.take_counts() == (0, 0, 0)
    world.core.shed(MAC, SHED_SYN, 0.0)
    assert world.carry(tcp[0]) == (0, [syns[0]])


def test_what_a_socket_refuses_is_left_for_its_reason(world):
    """A datagram larger than the MTU of its way: the caller sends the guest the reason."""
    flow, target = world.socket(), world.socket()
    known(world, flow)
    flow.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 0)
    known(world, flow, to=bytes((255, 255, 255, 255)))
    refused = frame(b"to everybody", target.getsockname()[1])
    assert world.carry(refused) == (1, [refused])


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_frame_is_carried_or_left_unchanged(noise, payload):
    with contextlib.ExitStack() as stack:
        world = World(stack)
        flow, target = world.socket(), world.socket()
        known(world, flow)
        good = frame(payload, target.getsockname()[1])
        mixed = bytes(a ^ b for a, b in zip(good, noise.ljust(len(good), b"\0"), strict=False))
        frames = [noise or b"\0", mixed, good]
        carried, left = world.carry(*frames)
        assert carried + len(left) == len(frames)
        assert all(each in frames for each in left)


def test_nothing_there_is_blocking_and_a_closed_descriptor_an_error(world):
    with pytest.raises(BlockingIOError):
        world.core.read(world.socket().fileno(), False)
    number = os.dup(0)
    os.close(number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        world.core.read(number, False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        world.core.open(-1)


def tcp_frame(flags, *, source=GUEST, to=ASKED, body=b"", number=6, padding=b"", **way):
    """Return a segment from port 4000 to port 80 as a packet socket shows it."""
    tcp = struct.pack(">HHIIBBHHH", 4000, 80, 1, 0, 0x50, flags, 64240, 0, 0) + body
    vnet = struct.pack("=BBHHHH", NEEDS_SUM, 0, 0, 0, 14 + 20, 16)
    ethernet = bytes(6) + MAC + (b"\x08\x00" if len(source) == 4 else b"\x86\xdd")
    return vnet + ethernet + ip(source, to, number, tcp, **way) + padding


@pytest.mark.parametrize(
    ("source", "to"), [(GUEST, ASKED), (socket.inet_pton(socket.AF_INET6, "fd00::2"), bytes(15) + b"\1")]
)
def test_the_first_segment_of_a_connection_is_left_already_read(world, source, to):
    whole = tcp_frame(0x02, source=source, to=to, body=b"options", hops=9)
    carried, left = world.carry(whole + bytes(6), tcp_frame(0x12, source=source, to=to))
    assert carried == 0
    key = source + struct.pack(">H", 4000) + to + struct.pack(">H", 80)
    vnet = struct.pack("=BBHHHH", NEEDS_SUM, 0, 0, 0, 20, 16)
    assert left[0] == (MAC, key, 9, vnet + whole[10 + 14 :])
    assert isinstance(left[1], bytes)


def test_a_first_segment_that_is_cut_or_a_fragment_is_left_as_it_is(world):
    short = ip(GUEST, ASKED, 6, bytes(19))
    vnet, ethernet = bytes(10), bytes(6) + MAC + b"\x08\x00"
    whole = tcp_frame(0x02)
    piece = bytearray(whole[24:])
    piece[6:8] = struct.pack(">H", 0x2000)
    piece[10:12] = b"\0\0"
    piece[10:12] = checksum(bytes(piece[:20]))
    frames = [vnet + ethernet + short, vnet + ethernet + bytes(piece), whole[:-1]]
    assert world.carry(*frames) == (0, frames)
