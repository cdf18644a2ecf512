"""DHCP messages: reading, malformed messages, and the contents of answers."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.leases import dhcp
from tests.helpers.gateway.dhcp_client import DISCOVER, REQUEST, read, request

MAC = b"\x52\x54\0\0\0\x01"
SERVER = IPv4Address("192.168.127.1")
MOST = 1472


def parsed(data: bytes) -> dhcp.Message:
    message = dhcp.parse(data)
    assert message is not None
    return message


def test_a_request_is_read() -> None:
    options = {50: bytes((192, 168, 127, 9)), 12: b"web\0", 57: (1400).to_bytes(2, "big")}
    message = parsed(request(REQUEST, MAC, options, own="10.0.0.1", broadcast=False, xid=99))
    assert (message.kind, message.xid, message.mac) == (dhcp.REQUEST, 99, MAC)
    assert (message.own, message.wants_broadcast, message.relayed) == (IPv4Address("10.0.0.1"), False, False)
    assert message.address(dhcp.WANTED) == IPv4Address("192.168.127.9")
    assert (message.name, message.room) == ("web", 1372)
    assert parsed(request(DISCOVER, MAC, relay="10.0.0.1")).relayed


@pytest.mark.parametrize(
    ("full", "name"),
    [(b"\0\0\0web.example", "web.example"), (b"\x04\0\0\x03web\x07example\0", "web"), (b"\0", ""), (b"", "")],
)
def test_a_full_name_is_read_in_both_forms(full: bytes, name: str) -> None:
    assert parsed(request(DISCOVER, MAC, {81: full})).name == name


def test_options_go_on_in_the_fields_for_names() -> None:
    data = bytearray(request(DISCOVER, MAC, {52: b"\3"}))
    data[108:115] = b"\x0c\x03web\xff\0"
    data[44:50] = b"\x32\x04\x0a\0\0\1"
    data[50] = 255
    message = parsed(bytes(data))
    assert message.name == "web"
    assert message.address(dhcp.WANTED) == IPv4Address("10.0.0.1")


def test_an_option_that_is_there_twice_is_one() -> None:
    data = request(DISCOVER, MAC)[:243] + b"\x0c\x02we\x0c\x01b\xff"
    assert parsed(data).name == "web"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        request(DISCOVER, MAC)[:240],
        request(DISCOVER, MAC)[:236] + b"\0\0\0\0" + request(DISCOVER, MAC)[240:],
        b"\2" + request(DISCOVER, MAC)[1:],
        request(DISCOVER, MAC)[:1] + b"\6\x08" + request(DISCOVER, MAC)[3:],
        request(0, MAC),
        request(9, MAC),
        request(DISCOVER, MAC)[:243] + b"\x0c\xff",
        request(DISCOVER, MAC)[:243] + b"\x0c",
        request(DISCOVER, MAC, {52: b"\1"})[:108]
        + b"\x0c\xff" * 64
        + request(DISCOVER, MAC, {52: b"\1"})[236:],
    ],
    ids=range(10),
)
def test_a_malformed_message_is_ignored(data: bytes) -> None:
    assert dhcp.parse(data) is None


@given(st.binary(max_size=80), st.binary(max_size=200))
def test_any_options_are_read_or_are_no_message(head: bytes, options: bytes) -> None:
    data = bytearray(request(DISCOVER, MAC)[:240])
    data[44 : 44 + len(head)] = head
    message = dhcp.parse(bytes(data) + options)
    if message is not None:
        assert message.name is not None
        assert len(dhcp.reply(message, dhcp.OFFER, SERVER, SERVER, (), most=MOST)) <= max(300, MOST)
    dhcp.parse(head + options)


def test_an_answer_has_the_requested_options_as_far_as_they_fit() -> None:
    message = parsed(request(DISCOVER, MAC, xid=5))
    data = dhcp.reply(
        message,
        dhcp.OFFER,
        SERVER,
        IPv4Address("10.0.0.9"),
        ((119, b"x" * 300), (3, b"abcd")),
        most=MOST,
    )
    assert len(data) >= 300
    assert data[4:8] == (5).to_bytes(4, "big")
    answer = read(data)
    assert (answer.kind, answer.address) == (dhcp.OFFER, "10.0.0.9")
    assert (answer.options[54], answer.options[3]) == (SERVER.packed, b"abcd")
    assert answer.options.get(119) is None
    large = parsed(request(DISCOVER, MAC, {57: b"\x05\xdc"}))
    data = dhcp.reply(large, dhcp.OFFER, SERVER, SERVER, ((119, b"x" * 300),), most=MOST)
    assert read(data).options[119] == b"x" * 300


def test_an_answer_fits_the_lan_whatever_the_client_accepts() -> None:
    message = parsed(request(DISCOVER, MAC, {57: b"\xff\xff"}))
    data = dhcp.reply(message, dhcp.OFFER, SERVER, SERVER, ((119, b"x" * MOST), (3, b"abcd")), most=MOST)
    assert len(data) <= MOST
    assert read(data).options[3] == b"abcd"


def test_a_client_finds_its_identifier_in_the_answer() -> None:
    for identifier in (b"\1" + MAC, b"\xff" * 255):
        message = parsed(request(DISCOVER, MAC, {61: identifier}))
        data = dhcp.reply(message, dhcp.OFFER, SERVER, SERVER, ((3, b"abcd"),), most=MOST)
        assert read(data).options[61] == identifier
        assert read(data).options[3] == b"abcd"


def test_a_search_list_is_a_list_of_names() -> None:
    assert dhcp.search_list(["a.bc", "d"]) == b"\1a\2bc\0\1d\0"
