"""What can be said of the gateway, and what cannot."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from forwarder.errors import LocalError
from gateway import overlap
from gateway.settings import read

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
"""A default route, and 192.168.0.0/16."""


def test_the_defaults_are_those_of_gvproxy() -> None:
    settings = read({})
    policy = settings.policy
    assert str(policy.subnet) == "192.168.127.0/24"
    assert (str(policy.gateway4), str(policy.host4)) == ("192.168.127.1", "192.168.127.254")
    assert [(lease.mac, str(lease.address)) for lease in settings.leases] == [
        ("5a:94:ef:e4:0c:ee", "192.168.127.2")
    ]
    assert settings.mtu == 1500


def test_the_ipv6_prefix_is_unique_local_and_stays_with_the_subnet() -> None:
    one, other = read({}).policy, read({"subnet": "10.77.0.0/16"}).policy
    assert one.prefix == read({}).policy.prefix
    assert one.prefix != other.prefix
    assert one.prefix.prefixlen == 64
    assert str(one.prefix).startswith("fd")
    assert one.host6 in one.prefix


def test_the_address_that_gvproxy_gives_its_vm_can_be_leased_to_another() -> None:
    settings = read({"static-lease": ["52:54:00:00:00:01=192.168.127.2,web"]})
    assert [lease.name for lease in settings.leases] == ["web"]


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("subnet", "nonsense", "subnet: 'nonsense' is no IPv4 network"),
        ("subnet", "10.0.0.1/24", "has host bits set; did you mean 10.0.0.0/24?"),
        ("subnet", "10.0.0.0/30", "has to be a /8 to /28"),
        ("subnet", "127.0.0.0/24", "is no private network"),
        ("subnet", "0.0.0.0/24", "is no private network"),
        ("subnet", "240.1.0.0/16", "is no private network"),
        ("mtu", 100_000, "mtu: 100000 is not a number from 1280 to 65520"),
        ("static-lease", ["52:54:00:00:00:01"], "is no static lease"),
        ("static-lease", ["52:54:00:00:00:01=192.168.127.1"], "is kept for the gateway"),
        ("static-lease", ["52:54:00:00:00:01=192.168.127.9,a b"], "is no name"),
        ("static-lease", ["1=192.168.127.9"], "is not a MAC address"),
        (
            "static-lease",
            ["52:54:00:00:00:01=192.168.127.8,web", "52:54:00:00:00:02=192.168.127.9,WEB"],
            "the name web is there twice",
        ),
        (
            "static-lease",
            ["52:54:00:00:00:01=192.168.127.9", "52:54:00:00:00:01=192.168.127.8"],
            "is there twice",
        ),
        ("dns-record", ["a,b=10.0.0.1"], "is no name"),
        ("dns-record", ["a=b"], "is no IP address"),
        ("dns-record", ["a"], "'a' is no record; write it like db.lab=10.0.0.9"),
        ("dns-record", ["a=fe80::1%x\nserver=10.0.0.1"], "has a zone"),
        ("ssh-port", 0, "ssh-port: 0 is not a number from 1 to 65535"),
        ("ssh-port", "22", "ssh-port: '22' is not a number"),
        ("dns-zone", ["{}"], "dns-zone: '' is no name"),
        ("search-domain", ["x\ny"], "is no name"),
    ],
)
def test_a_mistake_is_reported_in_one_line(key: str, value: object, line: str) -> None:
    with pytest.raises(LocalError, match=line) as caught:
        read({key: value})
    assert "\n" not in str(caught.value).replace("\\n", "")


def test_the_ssh_port_is_a_forward_to_the_device_of_the_subnet() -> None:
    settings = read({"ssh-port": 2222, "subnet": "10.77.0.0/24", "forward": ["unix:/x:10.77.0.3:80"]})
    assert settings.forwards == ("tcp:127.0.0.1:2222:10.77.0.2:22", "unix:/x:10.77.0.3:80")
    assert read({}).forwards == ()


def test_zones_of_an_earlier_gateway_are_kept_and_gvproxys_are_the_default() -> None:
    assert [zone.plain()["Name"] for zone in read({}).zones] == ["containers.internal.", "docker.internal."]
    assert [record.name for record in read({"host-access": False}).zones[0].records] == ["gateway"] * 2
    kept = [str(zone) for zone in read({}).zones[:1]]
    assert [str(zone) for zone in read({"dns-zone": kept, "subnet": "10.77.0.0/24"}).zones] == kept


def test_a_subnet_that_the_host_has_is_refused_and_a_default_route_is_none() -> None:
    overlap.check(IPv4Network("10.77.0.0/24"), ROUTES)
    with pytest.raises(
        LocalError, match=r"192\.168\.127\.0/24 overlaps 192\.168\.0\.0/16 of the host's eth0"
    ):
        overlap.check(IPv4Network("192.168.127.0/24"), ROUTES)


def test_the_halves_of_a_default_route_are_no_network_of_the_host() -> None:
    halves = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n" + "".join(
        f"tun0 {first} 00000000 0003 0 0 0 00000080 0 0 0\n" for first in ("00000000", "00000080")
    )
    overlap.check(IPv4Network("192.168.127.0/24"), halves)
    overlap.check(IPv4Network("10.0.0.0/8"), halves)


def test_a_resolver_may_have_a_port() -> None:
    said = ["10.0.0.1", "10.0.0.1:5353", "fd00::1", "[fd00::1]:5353"]
    resolver = read({"resolver": said}).resolvers
    assert resolver == (("10.0.0.1", 53), ("10.0.0.1", 5353), ("fd00::1", 53), ("fd00::1", 5353))
    for wrong in ("localhost", "10.0.0.1:0", "10.0.0.1:x", "10.0.0.1:012345678"):
        with pytest.raises(LocalError, match="resolver: "):
            read({"resolver": [wrong]})
