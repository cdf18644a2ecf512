"""IP packets of the TUN device: what is read, what is written, and garbage."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.packets import VNET_HEADER, Datagram, Echo, build, echo_reply, echo_request, parse

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


def ones_sum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data + bytes(len(data) % 2))[: (len(data) + 1) // 2])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def finished(buffers):
    """The packet as it leaves the kernel: with the checksum that the header in front asks for."""
    data = bytearray(b"".join(buffers))
    flags, gso, _, _, start, offset = VNET_HEADER.unpack_from(data)
    assert (flags, gso) == (1, 0)
    packet = data[VNET_HEADER.size :]
    body = bytes(packet[start:])
    checksum = ~ones_sum(body + bytes(len(body) % 2)) & 0xFFFF
    struct.pack_into(">H", packet, start + offset, checksum)
    return bytes(packet)


def pseudo(packet, number, length):
    return packet.source + packet.destination + struct.pack(">II", length, number)


@given(DATAGRAMS, st.integers(0, 1 << 20))
def test_a_datagram_is_read_as_it_was_written_with_right_checksums(datagram, ident):
    packet = finished(build(datagram, ident))
    assert parse(bytes(VNET_HEADER.size) + packet) == datagram
    start = 20 if len(datagram.source) == 4 else 40
    if start == 20:
        assert ones_sum(packet[:20]) == 0xFFFF
    body = packet[start:]
    assert ones_sum(pseudo(datagram, 17, len(body)) + body + bytes(len(body) % 2)) == 0xFFFF


@given(ECHOES, st.integers(0, 1 << 20))
def test_an_echo_reply_has_right_checksums_and_is_no_request(echo, ident):
    packet = finished(build(echo, ident))
    assert parse(bytes(VNET_HEADER.size) + packet) is None
    version = 4 if len(echo.source) == 4 else 6
    body = packet[20 if version == 4 else 40 :]
    covered = body if version == 4 else pseudo(echo, 58, len(body)) + body
    assert ones_sum(covered + bytes(len(covered) % 2)) == 0xFFFF
    assert echo_reply(version, body) == (echo.sequence, echo.payload)
    request = packet[: 20 if version == 4 else 40] + echo_request(version, echo.sequence, echo.payload)
    assert parse(bytes(VNET_HEADER.size) + request) == echo._replace(ident=0)


@given(st.binary(max_size=120))
def test_garbage_is_not_carried_and_harms_nobody(data):
    packet = parse(data)
    assert packet is None or isinstance(packet, Datagram | Echo)


@given(DATAGRAMS, st.data())
def test_a_damaged_packet_is_read_or_not_but_never_beyond_its_end(datagram, data):
    packet = bytearray(finished(build(datagram, 1)))
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(packet[: data.draw(st.integers(0, len(packet)))])
    found = parse(bytes(VNET_HEADER.size) + cut)
    assert found is None or len(found.payload) <= len(cut)


@given(DATAGRAMS.filter(lambda datagram: len(datagram.source) == 4), st.integers(1, 0x1FFF), st.booleans())
def test_fragments_are_not_carried(datagram, offset, more):
    packet = bytearray(finished(build(datagram, 1)))
    struct.pack_into(">H", packet, 6, offset | (0x2000 if more else 0))
    assert parse(bytes(VNET_HEADER.size) + bytes(packet)) is None
