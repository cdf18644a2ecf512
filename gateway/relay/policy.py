"""The policy: turn the address that a guest asks for into the address to connect to, or a refusal.

A pure function of settings and address: neither the guest, nor the protocol, nor the time changes the answer.
TCP, UDP and ICMP echo all ask it, for each connection or flow.

Some addresses are never allowed, whatever the settings: those that the host's kernel would take for itself or
for a whole group. A connect to ``0.0.0.0``, to loopback or to ``::ffff:127.0.0.1`` reaches the host's own
services behind the operator's back, and link-local ``169.254.169.254`` hands out a cloud machine's
credentials. Only the host alias leads to the host's loopback, and only if that is allowed. An IPv6
address that stands for an IPv4 one (NAT64, 6to4 and the like) is judged as that one.

Guests reach the addresses at which clouds hand out credentials (``METADATA``) only if the operator allows
them.
"""

from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

METADATA: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "169.254.169.254/32",  # most clouds
            "169.254.170.2/32",  # AWS, for containers
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure
            "192.0.0.192/32",  # Oracle
            "fd00:ec2::/64",  # AWS
            "fd20:ce::254/128",  # Google
            "fd00:42::42/128",  # Scaleway
        ),
    )
)
"""Addresses at which clouds hand out the credentials of a machine."""

_EMBEDDING = tuple(map(IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))
"""Networks whose last 32 bits are an IPv4 address (RFC 4291 2.5.5.1, 2765, 6052, 8215)."""

_LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


class OutboundPolicy(NamedTuple):
    """The settings of one gateway."""

    subnet: IPv4Network
    prefix: IPv6Network
    gateway4: IPv4Address
    host4: IPv4Address
    """The address of the LAN that stands for the host's loopback."""
    host6: IPv6Address
    no_outbound: bool = False
    """Only the host alias can be reached."""
    host_access: bool = True
    """Whether the host alias works, and the host's other addresses too."""
    deny: tuple[Network, ...] = ()
    """Networks that guests may not reach, by the address that they ask for."""
    allow: tuple[Network, ...] = ()
    """Networks whose METADATA addresses guests may reach."""


class Verdict(NamedTuple):
    """The address to connect to, or the reason of a refusal."""

    target: Address | None
    refused: str = ""
    """The counter of the refusal: ``no_host_access``, ``denied``, ``metadata``, ``no_outbound`` or
    ``unroutable``."""


def judge(policy: OutboundPolicy, asked: Address) -> Verdict:
    """Decide where a guest's request for ``asked`` leads."""
    refused = _refusal(policy, asked)
    if refused:
        return Verdict(None, refused)
    return Verdict(_LOOPBACK[asked.version] if asked in (policy.host4, policy.host6) else asked)


def _refusal(policy: OutboundPolicy, asked: Address) -> str:
    """Return the first reason to refuse, or nothing."""
    is_alias = asked in (policy.host4, policy.host6)
    is_allowed = _is_in(METADATA, asked) and _is_in(policy.allow, asked)
    inner = _embedded(asked)
    reasons = (
        ("unroutable", isinstance(asked, IPv6Address) and asked.ipv4_mapped is not None),
        ("denied", _is_in(policy.deny, asked)),
        ("no_host_access", is_alias and not policy.host_access),
        ("no_outbound", not is_alias and policy.no_outbound),
        ("metadata", _is_in(METADATA, asked) and not is_allowed),
        ("unroutable", not (is_alias or is_allowed or _is_elsewhere(policy, asked))),
        ("unroutable", inner is not None and judge(policy, inner).target != inner),
    )
    return next((reason for reason, holds in reasons if holds), "")


def told(policy: OutboundPolicy, asked: object) -> dict[str, object]:
    """Return the LAN, for an operator, and the reason for each refused address of ``asked``.

    Text that is not an address is left out, and so are addresses of the LAN, to which the policy does not
    apply.
    """
    refused = {}
    for text in map(str, asked if isinstance(asked, list) else []):
        with suppress(ValueError):
            address = policy.host4 if text == "host" else ip_address(text)
            is_alias = address in (policy.host4, policy.host6)
            is_judged = is_alias or address not in _own_network(policy, address)
            if is_judged and (reason := judge(policy, address).refused):
                refused[text] = reason
    return {
        "subnet": str(policy.subnet),
        "prefix": str(policy.prefix),
        "gateway": str(policy.gateway4),
        "host": str(policy.host4),
        "host6": str(policy.host6),
        "refused": refused,
    }


def shown(policy: OutboundPolicy, source: Address) -> Address:
    """Return the address that a guest sees for ``source`` on the host: the inverse of ``judge``."""
    if source.is_loopback:
        return policy.host4 if source.version == 4 else policy.host6
    return source


def is_guest(policy: OutboundPolicy, source: Address) -> bool:
    """Whether a guest may have ``source``: it is of the LAN, and neither the gateway's nor a group's."""
    own = (policy.gateway4, policy.host4, policy.prefix[1], policy.host6)
    ends = (policy.subnet[0], policy.subnet[-1], policy.prefix[0])
    return source in _own_network(policy, source) and source not in own and source not in ends


def is_nearby(policy: OutboundPolicy, peer: Address) -> bool:
    """Whether traffic with ``peer`` stays on this machine: a guest, or the host itself."""
    return peer.is_loopback or peer in _own_network(policy, peer)


def _is_in(networks: tuple[Network, ...], asked: Address) -> bool:
    return any(asked.version == network.version and asked in network for network in networks)


def _embedded(asked: Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, if it stands for one."""
    if asked.version == 4:
        return None
    if asked.sixtofour is not None:
        return asked.sixtofour
    return IPv4Address(int(asked) & 0xFFFFFFFF) if _is_in(_EMBEDDING, asked) else None


def _own_network(policy: OutboundPolicy, asked: Address) -> Network:
    return policy.subnet if asked.version == 4 else policy.prefix


def _is_elsewhere(policy: OutboundPolicy, asked: Address) -> bool:
    """Whether ``asked`` is one station outside of the LAN."""
    return not (
        asked in _own_network(policy, asked)
        or asked.is_loopback
        or asked.is_unspecified
        or asked.is_multicast
        or asked.is_link_local
        or asked == IPv4Address("255.255.255.255")
        or (asked.version == 4 and asked in IPv4Network("0.0.0.0/8"))
    )
