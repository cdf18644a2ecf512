"""Where guests may go: aliases, the deny list, switches, and addresses that are never allowed."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.policy import Verdict, is_guest, judge, shown, told
from tests.helpers.gateway.policies import LAN

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def test_an_ordinary_address_is_reached_as_it_is():
    assert judge(LAN, ip_address("203.0.113.7")) == Verdict(ip_address("203.0.113.7"))
    assert judge(LAN, ip_address("2001:db8::7")) == Verdict(ip_address("2001:db8::7"))


def test_the_host_alias_is_the_hosts_loopback_and_can_be_switched_off():
    assert judge(LAN, LAN.host4).target == ip_address("127.0.0.1")
    assert judge(LAN, LAN.host6).target == ip_address("::1")
    closed = LAN._replace(host_access=False)
    assert judge(closed, LAN.host4) == Verdict(None, "no_host_access")
    assert judge(closed, LAN.host6) == Verdict(None, "no_host_access")


def test_without_outbound_only_the_host_alias_is_left():
    closed = LAN._replace(no_outbound=True)
    assert judge(closed, ip_address("203.0.113.7")) == Verdict(None, "no_outbound")
    assert judge(closed, LAN.host4).target == ip_address("127.0.0.1")


def test_the_deny_list_goes_by_the_address_that_is_asked_for():
    closed = LAN._replace(deny=(IPv4Network("10.0.0.0/8"), IPv6Network("2001:db8::/32")))
    assert judge(closed, ip_address("10.1.2.3")) == Verdict(None, "denied")
    assert judge(closed, ip_address("2001:db8::1")) == Verdict(None, "denied")
    assert judge(closed, ip_address("11.1.2.3")).target == ip_address("11.1.2.3")
    assert judge(LAN._replace(deny=(LAN.subnet,)), LAN.host4) == Verdict(None, "denied")


@pytest.mark.parametrize(
    "asked",
    [
        *(
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "255.255.255.255",
            "224.0.0.251",
            "169.254.1.1",
        ),
        *("::", "::1", "ff02::1", "fe80::1", "::ffff:127.0.0.1", "::ffff:203.0.113.7"),
        *("192.168.127.1", "192.168.127.77", "fd12:3456:789a::77"),
    ],
)
def test_addresses_that_mean_the_host_itself_are_never_reached(asked):
    assert judge(LAN, ip_address(asked)) == Verdict(None, "unroutable")


@pytest.mark.parametrize(
    "asked",
    [
        *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::253", "fd20:ce::254", "fd00:42::42"),
    ],
)
def test_metadata_addresses_of_clouds_are_refused_unless_they_are_allowed(asked):
    address = ip_address(asked)
    assert judge(LAN, address) == Verdict(None, "metadata")
    allowed = LAN._replace(allow=(ip_network(asked),))
    assert judge(allowed, address) == Verdict(address)
    assert judge(allowed._replace(deny=allowed.allow), address) == Verdict(None, "denied")
    assert judge(allowed, ip_address("127.0.0.1")).target is None
    assert judge(LAN, address + 5).refused in ("", "unroutable", "metadata")


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        *[(f"{prefix}7f00:1", "unroutable") for prefix in ("64:ff9b::", "64:ff9b:1::", "::", "::ffff:0:")],
        *[(f"{prefix}a9fe:a9fe", "unroutable") for prefix in ("64:ff9b::", "64:ff9b:1::", "::")],
        *[("2002:7f00:1::", "unroutable"), ("2002:a9fe:a9fe::1", "unroutable")],
        *[("64:ff9b::c0a8:7f4d", "unroutable"), ("64:ff9b::c0a8:7ffe", "unroutable")],  # the LAN, the alias
        *[("64:ff9b::cb00:7107", ""), ("2002:cb00:7107::1", "")],  # 203.0.113.7
    ],
)
def test_an_address_that_embeds_another_is_judged_as_the_embedded_one(asked, refused):
    assert judge(LAN, ip_address(asked)).refused == refused


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        *[("192.168.127.2", True), ("192.168.127.253", True), ("fd12:3456:789a::2", True)],
        *[("203.0.113.7", False), ("10.0.0.2", False), ("127.0.0.1", False), ("2001:db8::2", False)],
        *[("192.168.127.1", False), ("192.168.127.254", False), ("192.168.127.0", False)],
        *[("192.168.127.255", False), ("0.0.0.0", False), ("::", False), ("fe80::1", False)],
        *[("fd12:3456:789a::1", False), ("fd12:3456:789a::fe", False), ("fd12:3456:789a::", False)],
    ],
)
def test_a_guest_has_an_address_of_the_lan_and_not_the_gateways(source, expected):
    assert is_guest(LAN, ip_address(source)) == expected


@given(addresses, st.booleans(), st.booleans())
def test_loopback_is_reached_by_the_alias_alone(asked, host_access, no_outbound):
    policy = LAN._replace(host_access=host_access, no_outbound=no_outbound)
    target, refused = judge(policy, asked)
    assert (target is None) == bool(refused)
    if target is not None and target != asked:
        assert asked in (LAN.host4, LAN.host6)
        assert target.is_loopback
    elif target is not None:
        assert not target.is_loopback


@given(addresses)
def test_an_answers_source_leads_back_to_its_origin(asked):
    target, _ = judge(LAN, asked)
    if target is not None:
        assert shown(LAN, target) == asked


def test_an_operator_gets_the_lan_and_the_refusals():
    policy = LAN._replace(deny=(ip_network("203.0.113.0/24"),), host_access=False)
    asked = [
        "203.0.113.9",
        "host",
        "192.168.127.254",
        "192.168.127.2",
        "8.8.8.8",
        "web",
        "169.254.169.254",
        7,
    ]
    answer = told(policy, asked)
    assert answer["refused"] == {
        "203.0.113.9": "denied",
        "host": "no_host_access",
        "192.168.127.254": "no_host_access",
        "169.254.169.254": "metadata",
    }
    assert (answer["subnet"], answer["host"]) == ("192.168.127.0/24", "192.168.127.254")
    assert told(policy, "8.8.8.8")["refused"] == {}
