"""Where guests may go: the one place that turns the address a guest asked for into the one to connect to.

Purely a function of the settings and the address, so that a guest's name, its protocol or the hour cannot
change the answer; TCP, UDP and ICMP echo all ask here, for each connection or flow.

What is never allowed, whatever the settings say: addresses that the host's kernel would take for itself or
for a whole group. A connect to ``0.0.0.0``, to loopback or to ``::ffff:127.0.0.1`` reaches the host's own
services behind the operator's back, and link-local ``169.254.169.254`` hands out a cloud machine's
credentials. The host's loopback is reached by the host alias alone, and only if that is allowed.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

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
    """Nothing but the host alias can be reached."""
    host_access: bool = True
    """Whether the host alias works, and the host's other addresses too."""
    deny: tuple[Network, ...] = ()
    """Networks that guests may not reach, by the address that they ask for."""
    resolver: tuple[tuple[str, int], ...] = ()
    """The host's resolvers (address, port), best first."""


class Verdict(NamedTuple):
    """Where to connect to, or why not."""

    target: Address | None
    refused: str = ""
    """The counter that it goes to: ``no_host_access``, ``denied``, ``no_outbound`` or ``unroutable``."""


def judge(policy: OutboundPolicy, asked: Address) -> Verdict:
    """Say where a guest that asks for ``asked`` ends up."""
    if isinstance(asked, IPv6Address) and asked.ipv4_mapped is not None:
        return Verdict(None, "unroutable")
    if any(asked.version == network.version and asked in network for network in policy.deny):
        return Verdict(None, "denied")
    if asked in (policy.host4, policy.host6):
        return Verdict(_LOOPBACK[asked.version]) if policy.host_access else Verdict(None, "no_host_access")
    if policy.no_outbound:
        return Verdict(None, "no_outbound")
    if asked in _own_network(policy, asked) or not _ordinary(asked):
        return Verdict(None, "unroutable")
    return Verdict(asked)


def shown(policy: OutboundPolicy, source: Address) -> Address:
    """Return the address that a guest sees for ``source`` on the host: the inverse of ``judge``."""
    if source.is_loopback:
        return policy.host4 if source.version == 4 else policy.host6
    return source


def is_nearby(policy: OutboundPolicy, peer: Address) -> bool:
    """Whether what is exchanged with ``peer`` stays on this machine: a guest, or the host itself."""
    return peer.is_loopback or peer in _own_network(policy, peer)


def _own_network(policy: OutboundPolicy, asked: Address) -> Network:
    return policy.subnet if asked.version == 4 else policy.prefix


def _ordinary(asked: Address) -> bool:
    """Whether ``asked`` is one station somewhere else."""
    return not (
        asked.is_loopback
        or asked.is_unspecified
        or asked.is_multicast
        or asked.is_link_local
        or asked == IPv4Address("255.255.255.255")
        or (asked.version == 4 and asked in IPv4Network("0.0.0.0/8"))
    )
