"""The words of the control plane as value types, and the constants that processes must agree on.

Everything here is immutable: a record describes one moment, and only the registry makes new ones. A
port's number is small and dense, so that tables can be indexed by it. Its *epoch* is the incarnation
of its worker: it grows with every worker the port gets, and whatever carries another epoch (a ring, a
message) belongs to a past life. *born* is the epoch of the port's first worker, so that two records
with one number and one ``born`` are the same attachment of the same virtual machine.
"""

import re
from typing import NamedTuple

from forwarder.errors import LocalError

PROTOCOL_VERSION = 5
"""What two processes must agree on to work together: messages, their order, shared-memory layouts."""

MAX_PORTS = 1024
"""Port numbers run from 1 to MAX_PORTS - 1; the compiled core sizes its tables by it, and a snapshot of all
of them fits into one message."""

RING_BYTES = 1 << 20
"""Data bytes of a unicast ring: 3 ms at 3 Gbit/s, or 15 of the largest frames."""

LARGE_RING_BYTES = 4 << 20
"""Of one towards a TAP, or a guest's queue: room for the window that the kernel behind it gives a connection
by itself (net.ipv4.tcp_rmem: 3 MiB of data), so that a single one is not slowed by losses. From a TAP to a
socket it would only be more memory to fall out of caches (8.3 and 7.9 Gbit/s at an MTU of 65,520)."""

FLOOD_BYTES = 512 << 10
"""Data bytes of a port's flood ring; floods are small and rare beside unicast."""

MAX_PINNED = 16
"""Addresses pinned to one port: the interfaces of one virtual machine, and a bound on a record's size."""

MAX_REACHES = 16
"""Ports that an isolated port names: its gateway and the few servers it needs. More would be a network of its
own, and 16 longest names are most of the longest record."""

MAX_FRAMES_PER_S = 1_000_000_000
"""Highest limit in frames: thirty times what a socket carries; whoever writes more has mistaken the unit."""

MIN_BYTES_PER_S = 100_000
"""Lowest limit in bytes but none: the largest frame fits into a second. Below, a VM would be read so seldom
that its own end went unnoticed for minutes."""

MAX_BYTES_PER_S = 1_000_000_000_000
"""Highest limit in bytes; see MAX_FRAMES_PER_S."""

MAX_MACS = 10_240
"""Highest limit of addresses behind one port: the entries of a worker's whole MAC table."""

MIN_MTU = 68
"""Lowest MTU of a VM: the smallest that IPv4 may be sent in (RFC 791)."""

MAX_MTU = 65_521
"""Highest: what Linux gives an Ethernet device, 65,535 less its header."""

OFFLOAD_MTU = 1500
"""Of a VM with offloads if nothing else is said: its frames have to be cut to something."""

MAX_NAME = 63
"""Characters of a port's name: fits a DNS label, an interface name and one column of a table."""

OFFLOADS = ("none", "tso")
"""What a VM may leave to the switch; see Policy."""

RECEIVES = ("mtu", "large")
"""What a VM may take; see Policy."""

TRANSPORT_KIND = {
    "qemu": "stream",
    "bess": "seqpacket",
    "vfkit": "dgram",
    "connect": "stream16",
    "tap": "tap",
    "vhost": "vhost",
}
"""Every transport, and the kind of descriptor that it gives the core."""

SAY_THEMSELVES = ("tap", "vhost")
"""Kinds of descriptor behind which a kernel says itself, by a header, what it takes and leaves undone."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:@+-]{{0,{MAX_NAME - 1}}}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}", re.ASCII | re.IGNORECASE)


class Identity(NamedTuple):
    """One process for good: a process id alone is used again by another process."""

    pid: int
    start: int
    """Field 22 of ``/proc/<pid>/stat``: clock ticks from boot to the start of the process."""


class Cell(NamedTuple):
    """What of a worker's cell is in force, by the worker's word from before a VM was near it."""

    parts: tuple[str, ...]
    """Names out of ``_core.CELL_PARTS``."""
    landlock_abi: int
    """What the kernel's Landlock can do; 0: there is none."""


GATEWAY_MAC = b"\x5a\x94\xef\xe4\x0c\xdd"
"""Of the gateway of every switch, as gvproxy's."""


class Policy(NamedTuple):
    """What an operator may set for one port; every field has a default."""

    pinned: tuple[bytes, ...] = ()
    """The port's own addresses (6 bytes each). If any is given, frames from other sources are dropped."""
    flood_unknown: bool = True
    """Whether frames to an unknown address are delivered to this port."""
    broadcast_per_s: int = 2_000
    """Broadcast frames a second that the port may send; more are dropped. 0 here and below: no limit.

    Enough for a gateway that looks for a thousand neighbours twice a second. A loop behind a VM makes a
    hundred times that, and every broadcast costs all the others.
    """
    multicast_per_s: int = 20_000
    """Multicast frames a second, as above. Enough for a video stream of 240 Mbit/s."""
    unknown_per_s: int = 20_000
    """Frames a second to addresses that nobody is known to have, as above: what precedes an answer, since an
    address is known as soon as its owner has spoken."""
    bytes_per_s: int = 0
    """Bytes of frames a second; a port that sends faster is read later, and loses nothing."""
    max_macs: int = 1024
    """Addresses that the port may send from; frames from one more are dropped. Enough for a host of
    containers, and a tenth of each worker's table."""
    isolated: bool = False
    """Whether it may exchange frames only with the ports that it reaches."""
    reaches: tuple[str, ...] = ()
    """Names of ports; they need not be there. Means something for an isolated port only."""
    offload: str = "none"
    """``tso``: the VM leaves checksums and the cutting of TCP to the switch, with no header that says it."""
    mtu: int = 0
    """Of the VM, ``MIN_MTU`` to ``MAX_MTU``: no longer frame goes to it, and what it leaves to be cut is cut
    to that. 0: any, but ``OFFLOAD_MTU`` if the VM leaves frames to be cut."""
    receive: str = "mtu"
    """``large``: the VM takes frames of up to 64 KiB with finished sums; its MTU says only what to cut to."""
    guard: bool | None = None
    """Whether its VM may not say what only the gateway or another VM may (ARP, neighbour discovery, router
    advertisements, DHCP answers). None, before there is a port: where there is a gateway, it may not."""


class PortId(NamedTuple):
    """One VM's stay at a port: another VM may get the number later, and then it is born at another epoch."""

    port: int
    born: int


class Incarnation(NamedTuple):
    """One worker's turn at a port: each worker of a port has an epoch of its own."""

    port: int
    epoch: int


class PortRecord(NamedTuple):
    """A port as membership tells it to every worker. The registry holds it; others keep a number and ask."""

    port: int
    epoch: int
    born: int
    name: str
    transport: str
    policy: Policy

    @property
    def id(self) -> PortId:
        """What stays the same for as long as the VM stays."""
        return PortId(self.port, self.born)

    @property
    def incarnation(self) -> Incarnation:
        """What is another one after each restart of the worker."""
        return Incarnation(self.port, self.epoch)


def mtu_of(policy: Policy) -> int:
    """Return the MTU in force; 0: none."""
    return policy.mtu or (OFFLOAD_MTU if policy.offload == "tso" else 0)


def may_talk(one: PortRecord, other: PortRecord) -> bool:
    """Whether frames may pass between two ports, in either direction: both have to allow the other.

    A port that is not isolated allows everybody, an isolated one the ports that it names.
    """
    return _allows(one, other) and _allows(other, one)


def _allows(one: PortRecord, other: PortRecord) -> bool:
    return not one.policy.isolated or other.name in one.policy.reaches


def valid_name(name: str) -> bool:
    """Whether ``name`` can name a port: letters, digits and ``._:@+-`` (not first), MAX_NAME at most."""
    return _NAME.fullmatch(name) is not None


def valid_mac(mac: bytes) -> bool:
    """Whether ``mac`` is six bytes that can be the address of one station: not a group, not all zero."""
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


def format_mac(mac: bytes) -> str:
    """Six bytes as ``52:54:00:12:34:56``."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes:
    """Six bytes from ``52:54:00:12:34:56`` or with dashes.

    Raises LocalError for other text and for an address that no single station can have.
    """
    if _MAC.fullmatch(text) is None:
        raise LocalError(f"{text!r} is not a MAC address; write it like 52:54:00:12:34:56")
    mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if not valid_mac(mac):
        raise LocalError(f"{text} is a group address or zero; only the address of one station can be pinned")
    return mac
