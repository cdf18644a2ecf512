"""IP packets of guests: reading, writing, fragments, errors, and garbage."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ip.answers import VNET_HEADER, answer, echo_reply, echo_request, fits, quoted, refusal, reset
from gateway.ip.fragments import MOST_BYTES, WAIT_S, Reassembly
from gateway.ip.packets import DamagedError, Datagram, Echo, Fragment, Packet, Refusal, Syn, parse, read

MTU = 1280
PORTS = st.integers(0, 65535)
PAIRS = st.sampled_from([4, 16]).flatmap(
    lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2)
)
DATAGRAMS = st.builds(
    lambda pair, ports, payload: Datagram(*pair, *ports, payload),
    PAIRS,
    st.tuples(PORTS, PORTS),
    st.binary(max_size=300),
)
ECHOES = st.builds(
    lambda pair, numbers, payload: Echo(*pair, *numbers, payload),
    PAIRS,
    st.tuples(PORTS, PORTS),
    st.binary(max_size=300),
)


SYNS = st.builds(
    lambda pair, ports, sequence: Syn(*pair, *ports, sequence),
    PAIRS,
    st.tuples(PORTS, PORTS),
    st.integers(0, 2**32 - 1),
)


def ones_sum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def finished(buffers):
    """The packet as it leaves the kernel: with the checksum that the header in front asks for."""
    data = bytearray(b"".join(buffers))
    flags, gso, _, _, start, offset = VNET_HEADER.unpack_from(data)
    assert (flags, gso) in ((1, 0), (0, 0))
    packet = data[VNET_HEADER.size :]
    if flags:
        struct.pack_into(">H", packet, start + offset, ~ones_sum(bytes(packet[start:])) & 0xFFFF)
    return bytes(packet)


def whole(packet, ident=1, mtu=65535):
    (written,) = answer(packet, ident, mtu)
    return finished(written)


def look(data, *, summed=True):
    packet = parse(memoryview(data))
    return None if packet is None else read(packet, summed=summed)


@given(DATAGRAMS, st.integers(0, 1 << 20))
def test_a_datagram_is_read_as_it_was_written_with_right_checksums(datagram, ident):
    assert fits(datagram)
    packet = whole(datagram, ident)
    assert look(packet) == datagram
    start = 20 if len(datagram.source) == 4 else 40
    if start == 20:
        assert ones_sum(packet[:20]) == 0xFFFF
    body = packet[start:]
    pseudo = datagram.source + datagram.destination + struct.pack(">II", len(body), 17)
    assert ones_sum(pseudo + body) == 0xFFFF


@given(ECHOES, st.integers(0, 1 << 20))
def test_an_echo_reply_has_right_checksums_and_is_no_request(echo, ident):
    packet = whole(echo, ident)
    version = 4 if len(echo.source) == 4 else 6
    start = 20 if version == 4 else 40
    assert look(packet) is None
    body = packet[start:]
    pseudo = b"" if version == 4 else echo.source + echo.destination + struct.pack(">II", len(body), 58)
    assert ones_sum(pseudo + body) == 0xFFFF
    assert echo_reply(version, body) == (echo.sequence, echo.payload)
    request = packet[:start] + echo_request(version, echo.sequence, echo.payload)
    assert look(request, summed=False) == echo._replace(ident=0)


@given(DATAGRAMS, st.data())
def test_a_wrong_bit_is_noticed(datagram, data):
    packet = bytearray(whole(datagram))
    # Not the checksum itself, which may say that there is none, and not IPv6's header, which is not summed.
    first = 20 if len(datagram.source) == 4 else 40
    places = [*range(first, first + 6), *range(first + 8, len(packet))]
    packet[data.draw(st.sampled_from(places))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(DamagedError):
        assert look(bytes(packet)) is None, "a damaged datagram was believed"


@given(DATAGRAMS.filter(lambda datagram: len(datagram.source) == 16), st.integers(1, 65_000))
def test_a_long_ipv6_packet_is_cut_and_can_be_put_together_again(datagram, size):
    datagram = datagram._replace(payload=(datagram.payload * size + bytes(size))[:size])
    packets = [finished(each) for each in answer(datagram, 7, MTU)]
    assert all(len(each) <= MTU for each in packets)
    assert (len(packets) > 1) == (size + 48 > MTU)
    assert rejoined(packets) == datagram


def rejoined(packets, reassembly=None):
    reassembly = reassembly or Reassembly()
    for each in packets:
        packet = parse(memoryview(each))
        found = packet if packet.fragment is None else reassembly.add(packet, "mac", "port", 0.0)
        if found is not None:
            return read(found, summed=True)
    return None


BODY = bytes(range(256)) * 20


def piece(offset, size, *, more=True, ident=1, source=b"\x0a\0\0\2"):
    fragment = Fragment(ident, offset, more)
    return Packet(source, b"\x01\2\3\4", 17, 64, False, BODY[offset : offset + size], fragment)


@given(st.permutations(range(10)), st.integers(0, 9))
def test_pieces_come_in_any_order_and_more_than_once(order, again):
    reassembly = Reassembly()
    found = []
    for number in [*order, again]:
        each = piece(number * 512, 512, more=number < 9)
        found.append(reassembly.add(each, "mac", "port", 0.0))
    assert [each.body for each in found if each] == [BODY]
    assert reassembly._shares.taken == sum(partial.cost for partial in reassembly._partials.values())


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300), st.booleans()), max_size=30))
def test_any_fragments_make_only_their_own_datagram_and_leave_nothing(pieces):
    reassembly = Reassembly()
    for offset, size, more in pieces:
        found = reassembly.add(piece(offset * 8, size, more=more), "mac", "port", 0.0)
        assert found is None or found.body == BODY[: len(found.body)]
    reassembly.expire(WAIT_S)
    assert (len(reassembly), reassembly._shares.taken, reassembly._owners) == (0, 0, {})


def test_pieces_that_overlap_end_the_whole_datagram():
    reassembly = Reassembly()
    assert reassembly.add(piece(0, 800), "mac", "port", 0.0) is None
    assert reassembly.add(piece(792, 800), "mac", "port", 0.0) is None
    assert (len(reassembly), reassembly.dropped) == (0, 2)


@pytest.mark.parametrize(("size", "fits"), [(65_515, True), (65_516, False)])
def test_pieces_never_make_a_packet_that_is_longer_than_ipv4_allows(size, fits):
    reassembly, found = Reassembly(), None
    for offset in range(0, size, 1480):
        body, more = bytes(min(1480, size - offset)), offset + 1480 < size
        each = piece(offset, 0, more=more)._replace(body=body)
        found = reassembly.add(each, "mac", "port", 0.0) or found
    assert (found is not None) == fits
    assert (len(reassembly), reassembly._shares.taken) == (0, 0)


def test_pieces_of_two_guests_with_one_address_are_two_datagrams():
    reassembly = Reassembly()
    assert reassembly.add(piece(0, 800), "one", "port 1", 0.0) is None
    assert reassembly.add(piece(800, 8, more=False), "other", "port 2", 0.0) is None
    assert reassembly.add(piece(800, 8, more=False), "one", "port 1", 0.0).body == BODY[:808]


def test_first_pieces_of_one_guest_fill_its_share_only():
    reassembly = Reassembly()
    reassembly.add(piece(0, 1480), "quiet", "port 1", 0.0)
    for ident in range(2 * MOST_BYTES // 1480):
        reassembly.add(piece(0, 1480, ident=ident), "greedy", "port 2", 0.0)
    assert reassembly._shares.taken <= MOST_BYTES
    assert reassembly.add(piece(0, 1480), "new", "port 3", 0.0) is None
    assert reassembly.add(piece(1480, 8, more=False), "quiet", "port 1", 0.0).body == BODY[:1488]
    assert reassembly.add(piece(1480, 8, more=False), "new", "port 3", 0.0).body == BODY[:1488]


@given(SYNS)
def test_a_reset_answers_the_syn_and_nothing_else(syn):
    packet = finished(reset(syn))
    found = parse(memoryview(packet))
    assert (found.source, found.destination, found.number) == (syn.destination, syn.source, 6)
    port, source_port, sequence, ack, _, flags = struct.unpack_from(">HHIIBB", found.body)
    assert (port, source_port, sequence) == (syn.port, syn.source_port, 0)
    assert (ack, flags) == ((syn.sequence + 1) % 2**32, 0x14)
    pseudo = found.source + found.destination + struct.pack(">II", len(found.body), 6)
    assert ones_sum(pseudo + bytes(found.body)) == 0xFFFF
    assert read(found, summed=True) is None


@given(DATAGRAMS)
def test_an_error_quotes_the_guests_packet(datagram):
    version = 4 if len(datagram.source) == 4 else 6
    kind = (3, 3) if version == 4 else (1, 4)
    packet = finished(refusal(datagram.destination, datagram.source, kind, 0, quoted(datagram)))
    assert len(packet) <= (576 if version == 4 else 1280)
    found = look(packet)
    assert isinstance(found, Refusal)
    assert found.quoted == datagram._replace(payload=b"")


def test_ipv6_options_in_front_are_stepped_over():
    datagram = Datagram(bytes(15) + b"\1", bytes(15) + b"\2", 7, 8, b"data")
    packet = whole(datagram)
    options = bytes((17, 0)) + bytes(6)
    head = packet[:4] + struct.pack(">H", len(packet) - 40 + len(options)) + b"\0" + packet[7:40]
    assert look(head + options + packet[40:]) == datagram


@given(st.binary(max_size=120))
def test_garbage_is_not_carried_and_harms_no_guest(data):
    with contextlib.suppress(DamagedError):
        look(data)


@given(DATAGRAMS, st.data())
def test_a_damaged_packet_is_read_or_not_but_never_beyond_its_end(datagram, data):
    packet = bytearray(whole(datagram))
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(packet[: data.draw(st.integers(0, len(packet)))])
    with contextlib.suppress(DamagedError):
        found = look(cut, summed=False)
        assert not isinstance(found, Datagram | Echo) or len(found.payload) <= len(cut)
