"""The table of forwards: reading, writing, and refusals with their words."""

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.errors import LocalError
from gateway.relay import forwards
from gateway.relay.forwards import Forward, Forwards, canonical
from tests.helpers.gateway.policies import LAN

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda address: not address.scope_id))
PORTS = st.integers(1, 65535)


@pytest.fixture
def table():
    return Forwards(LAN)


def web(guest="192.168.127.2", port=8080):
    return Forward.parse(f"tcp:127.0.0.1:{port}:{guest}:80")


@given(st.sampled_from(["tcp", "udp"]), ADDRESSES, PORTS, ADDRESSES, PORTS)
def test_a_written_forward_is_read_again(kind, host, port, guest, guest_port):
    forward = Forward(kind, guest, guest_port, host, port)
    assert Forward.parse(str(forward)) == forward


@given(ADDRESSES, PORTS, st.text("abc:-./", max_size=60))
def test_a_path_with_colons_is_read_again(guest, guest_port, rest):
    forward = Forward("unix", guest, guest_port, path="/" + rest)
    assert Forward.parse(str(forward)) == forward


@given(st.text(max_size=80))
def test_any_text_is_a_forward_or_an_error_of_ours(text):
    with contextlib.suppress(LocalError):
        assert Forward.parse(text).kind in ("tcp", "udp", "unix")


def test_brackets_hold_ipv6_and_no_host_means_loopback():
    forward = Forward.parse("udp:[::1]:53:[fd12:3456:789a::2]:5353")
    assert (forward.host, forward.guest) == (ip_address("::1"), ip_address("fd12:3456:789a::2"))
    assert Forward.parse("tcp::80:192.168.127.2:80").host == ip_address("127.0.0.1")


def test_a_place_is_written_in_one_way_and_other_text_stays():
    assert canonical("tcp::080") == "tcp:127.0.0.1:80"
    assert canonical("udp:[0:0::1]:53") == "udp:[::1]:53"
    for text in ("unix:/run/a:b.sock", "tcp:localhost:80", "", "tcp:127.0.0.1:80:192.168.127.2:80"):
        assert canonical(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp:127.0.0.1:80", "is not of the form tcp:HOST:PORT:GUEST:PORT"),
        ("sctp:127.0.0.1:80:192.168.127.2:80", "is not of the form"),
        ("tcp:localhost:80:192.168.127.2:80", "'localhost' is not an IP address; names are not looked up"),
        ("tcp:127.0.0.1:65536:192.168.127.2:80", "'65536' is not a port from 0 to 65535"),
        ("tcp:127.0.0.1:80:192.168.127.2:0", "'0' is not a port from 1 to 65535"),
        ("tcp:127.0.0.1:٣:192.168.127.2:80", "is not a port"),
        ("tcp:[fe80::1%eth0]:80:192.168.127.2:80", "an address with a zone"),
        ("unix:relative:192.168.127.2:80", "absolute path"),
        ("unix:/" + "x" * 107 + ":192.168.127.2:80", "at most 107 bytes"),
    ],
)
def test_errors_quote_the_text_and_name_the_mistake(text, said):
    with pytest.raises(LocalError, match="forward ") as caught:
        Forward.parse(text)
    assert said in str(caught.value)


def test_entries_are_listed_in_order_and_removed(table):
    one, two = web(), web(port=8081)
    table.add(one)
    table.add(two)
    assert list(table) == [one, two]
    table.remove(one)
    assert list(table) == [two]


def test_a_place_leads_to_one_guest(table):
    table.add(web())
    with pytest.raises(LocalError, match=r"leads to 192\.168\.127\.2:80 already; remove it first"):
        table.add(web("192.168.127.3"))
    table.add(Forward.parse("udp:127.0.0.1:8080:192.168.127.2:80"))


def test_a_guest_has_to_be_in_the_lan(table):
    with pytest.raises(LocalError, match=r"10\.0\.0\.1 is outside of the gateway's 192\.168\.127\.0/24; "):
        table.add(web("10.0.0.1"))
    with pytest.raises(LocalError, match="outside of the gateway's fd12"):
        table.add(web("[2001:db8::1]"))
    for own in ("192.168.127.1", "192.168.127.254", "192.168.127.0", "192.168.127.255"):
        with pytest.raises(LocalError, match="the gateway's own address or a group's"):
            table.add(web(own))
    for own in (LAN.prefix[0], LAN.prefix[1], LAN.host6):
        with pytest.raises(LocalError, match="the gateway's own address or a group's"):
            table.add(web(f"[{own}]"))
    assert not list(table)


def test_only_existing_forwards_can_be_removed(table):
    with pytest.raises(LocalError, match=r"no forward at tcp:127\.0\.0\.1:8080"):
        table.remove(web())
    table.add(web())
    with pytest.raises(LocalError, match=r"leads to 192\.168\.127\.2:80, not to 192\.168\.127\.3:80"):
        table.remove(web("192.168.127.3"))
    assert list(table) == [web()]


def test_the_table_is_bounded(table, monkeypatch):
    monkeypatch.setattr(forwards, "MAX_FORWARDS", 2)
    table.add(web(port=1))
    table.add(web(port=2))
    with pytest.raises(LocalError, match="2 forwards already; remove one"):
        table.add(web(port=3))
