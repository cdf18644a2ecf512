"""Policies of gateways for tests."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gateway.relay.policy import OutboundPolicy

LAN = OutboundPolicy(
    subnet=IPv4Network("192.168.127.0/24"),
    prefix=IPv6Network("fd12:3456:789a::/64"),
    gateway4=IPv4Address("192.168.127.1"),
    host4=IPv4Address("192.168.127.254"),
    host6=IPv6Address("fd12:3456:789a::fe"),
)
"""That of gvproxy's addresses."""

LOOPBACK = OutboundPolicy(
    subnet=IPv4Network("127.1.0.0/16"),
    prefix=IPv6Network("fd00::/64"),
    gateway4=IPv4Address("127.1.0.1"),
    host4=IPv4Address("127.1.0.254"),
    host6=IPv6Address("fd00::fe"),
)
"""Guests are addresses of this machine's loopback."""
