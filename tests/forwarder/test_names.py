"""Value types of the control plane: names, addresses, limits, and whether two ports may talk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import _core
from forwarder.errors import LocalError
from forwarder.names import (
    MAX_MACS,
    MAX_NAME,
    TRANSPORT_KIND,
    Policy,
    PortRecord,
    format_mac,
    may_talk,
    parse_mac,
    valid_mac,
    valid_name,
)


def test_a_mac_is_read_in_either_spelling_and_written_in_one():
    mac = bytes.fromhex("525400abcdef")
    assert parse_mac("52:54:00:ab:cd:ef") == mac
    assert parse_mac("52-54-00-AB-CD-EF") == mac
    assert format_mac(mac) == "52:54:00:ab:cd:ef"


NO_MACS = [
    "",
    "52:54:00:ab:cd",
    "52:54:00:ab:cd:ef:01",
    "52:54-00:ab:cd:ef",
    "525400abcdef",
    "52:54:00:ab:cd:eg",
    "52:54:00:ab:cd:ef\n",
    "\N{ARABIC-INDIC DIGIT FIVE}2:54:00:ab:cd:ef",
]


@pytest.mark.parametrize("text", NO_MACS)
def test_a_wrong_mac_is_refused_by_name(text):
    with pytest.raises(LocalError, match="write it like"):
        parse_mac(text)


@pytest.mark.parametrize("text", ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "00:00:00:00:00:00"])
def test_an_address_that_no_station_has_cannot_be_pinned(text):
    with pytest.raises(LocalError, match="one station"):
        parse_mac(text)


def test_only_six_bytes_are_a_mac():
    assert valid_mac(b"\x02\0\0\0\0\x01")
    assert not valid_mac(b"\x02\0\0\0\x01")
    assert not valid_mac(b"")


@pytest.mark.parametrize("name", ["a", "qemu-1", "tap0", "web.example:2", "x" * MAX_NAME])
def test_names_that_a_port_may_have(name):
    assert valid_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "é", "a/b", "x" * (MAX_NAME + 1)])
def test_names_that_a_port_may_not_have(name):
    assert not valid_name(name)


def test_every_transport_gives_a_kind_that_the_core_knows():
    assert set(TRANSPORT_KIND.values()) == {"stream", "stream16", "seqpacket", "dgram", "tap", "vhost"}
    assert all(valid_name(f"{transport}-1023") for transport in TRANSPORT_KIND)


RECORDS = st.builds(
    lambda name, isolated, reaches: PortRecord(
        1, 1, 1, name, "qemu", Policy(isolated=isolated, reaches=reaches)
    ),
    st.sampled_from("abc"),
    st.booleans(),
    st.lists(st.sampled_from("abcd"), max_size=3).map(tuple),
)


@given(RECORDS, RECORDS)
def test_two_ports_may_talk_if_each_allows_the_other_whichever_of_them_asks(one, other):
    assert may_talk(one, other) == may_talk(other, one)
    allowed = [
        not here.policy.isolated or there.name in here.policy.reaches
        for here, there in ((one, other), (other, one))
    ]
    assert may_talk(one, other) == all(allowed)


def test_the_highest_limit_of_addresses_is_the_size_of_a_table():
    table = _core.Fdb()
    for number in range(4 * MAX_MACS):
        table.learn(b"\x02" + number.to_bytes(5, "big"), 1)
    assert 0.9 * MAX_MACS < table.count(1) <= MAX_MACS
