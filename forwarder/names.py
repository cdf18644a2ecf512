"""The value types of the control plane (port, policy, record), and the constants that processes share.

Everything here is immutable: a record describes one moment, and only the registry makes new ones. A
port's number is small and dense, so that tables can be indexed by it. Its *epoch* identifies its worker and
grows with every new one; a ring or a message with another epoch belongs to a past worker. *born* is the epoch
of the port's first worker, so that two records with one number and one ``born`` are the same attachment of
the same virtual machine.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from forwarder.errors import LocalError

PROTOCOL_VERSION = 14
"""The version of the messages, of their fields and of their order: it is in front of each (``wire``), and a
receiver refuses another one. ``_core.LAYOUT`` is the version of what lies in shared memory; a worker says its
own with ``Ready`` and ``Claim``."""

MAX_PORTS = 1024
"""Port numbers run from 1 to MAX_PORTS - 1; the compiled core sizes its tables by it, and a snapshot of all
of them fits into one message."""

RING_BYTES = 1 << 20
"""Data bytes of a unicast ring: 3 ms at 3 Gbit/s, or 15 of the largest frames."""

LARGE_RING_BYTES = 4 << 20
"""Data bytes of a ring towards a TAP, or a guest's queue: room for the window that the kernel behind it gives
a connection by default (net.ipv4.tcp_rmem: 3 MiB of data), so that losses do not slow a single connection.
From a TAP to a socket, a larger ring only strains caches (7.9 instead of 8.3 Gbit/s at an MTU of 65,520)."""

FLOOD_BYTES = 512 << 10
"""Data bytes of a port's flood ring; floods are small and rare beside unicast."""

MAX_PINNED = 16
"""Addresses pinned to one port: the interfaces of one virtual machine, and a bound on a record's size."""

MAX_REACHES = 16
"""Ports that an isolated port names: its gateway and the few servers it needs. More would be a network of its
own, and 16 longest names are most of the longest record."""

MAX_FRAMES_PER_S = 1_000_000_000
"""Highest limit in frames: thirty times the rate of a socket; a larger value is a mistaken unit."""

MIN_BYTES_PER_S = 100_000
"""Lowest limit in bytes: the largest frame fits into a second. With less, a VM would be read so seldom that
its end would go unnoticed for minutes."""

MAX_BYTES_PER_S = 1_000_000_000_000
"""Highest limit in bytes; see MAX_FRAMES_PER_S."""

MAX_MACS = 10_240
"""Highest limit of addresses behind one port: the entries of a worker's whole MAC table."""

MIN_MTU = 68
"""Lowest MTU of a VM: the smallest that IPv4 may be sent in (RFC 791)."""

MAX_MTU = 65_521
"""Highest MTU: Linux's for an Ethernet device, 65,535 less its header."""

OFFLOAD_MTU = 1500
"""Default MTU of a VM with offloads: its frames have to be cut to some length."""

MAX_NAME = 63
"""Characters of a port's name: fits a DNS label, an interface name and one column of a table."""

OFFLOADS = ("none", "tso")
"""Values of ``Policy.offload``."""

RECEIVES = ("mtu", "large")
"""Values of ``Policy.receive``."""

TRANSPORT_KIND = {
    "qemu": "stream",
    "bess": "seqpacket",
    "vfkit": "dgram",
    "connect": "stream16",
    "tap": "tap",
    "gateway": "tap",
    "vhost": "vhost",
}
"""Every transport, and the kind of descriptor that it gives the core."""

SAY_THEMSELVES = ("tap", "vhost")
"""Kinds of descriptor behind which a kernel announces its offloads itself, by a header."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:@+-]{{0,{MAX_NAME - 1}}}", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}", re.ASCII | re.IGNORECASE)


class Identity(NamedTuple):
    """The identity of one process: a process id alone is reused."""

    pid: int
    start: int
    """Field 22 of ``/proc/<pid>/stat``: clock ticks from boot to the start of the process."""


class Cell(NamedTuple):
    """The parts of a worker's cell that are in force, reported before the worker had a VM."""

    parts: tuple[str, ...]
    """Names out of ``_core.CELL_PARTS``."""
    landlock_abi: int
    """What the kernel's Landlock can do; 0: there is none."""


GATEWAY_MAC = b"\x5a\x94\xef\xe4\x0c\xdd"
"""The gateway's MAC address in every switch, as gvproxy's."""


class Policy(NamedTuple):
    """The settings of one port; every field has a default."""

    pinned: tuple[bytes, ...] = ()
    """The port's own addresses (6 bytes each). If any is given, frames from other sources are dropped."""
    flood_unknown: bool = True
    """Whether frames to an unknown address are delivered to this port."""
    broadcast_per_s: int = 2_000
    """Broadcast frames a second that the port may send; more are dropped. 0, here and below: no limit.

    Enough for a gateway that looks for a thousand neighbours twice a second. A loop behind a VM makes a
    hundred times that, and every broadcast costs all the others.
    """
    multicast_per_s: int = 20_000
    """Multicast frames a second, as above. Enough for a video stream of 240 Mbit/s."""
    unknown_per_s: int = 20_000
    """Frames a second to unknown addresses, as above. Only the first frames of a conversation are such: an
    address is known as soon as its owner has sent."""
    bytes_per_s: int = 0
    """Bytes of frames a second; a faster port is read later, and loses nothing."""
    max_macs: int = 1024
    """Addresses that the port may send from; frames from one more are dropped. Enough for a host of
    containers, and a tenth of each worker's table."""
    isolated: bool = False
    """Whether it may exchange frames only with the ports in ``reach``."""
    reaches: tuple[str, ...] = ()
    """Names of ports, which need not exist; only for an isolated port."""
    offload: str = "none"
    """``tso``: the VM leaves checksums and the cutting of TCP to the switch, with no header that says it."""
    mtu: int = 0
    """The VM's MTU, ``MIN_MTU`` to ``MAX_MTU``: it gets no longer frame, and its unfinished segments are cut
    to it. 0: any length, but ``OFFLOAD_MTU`` if the VM leaves frames to be cut."""
    receive: str = "mtu"
    """``large``: the VM accepts frames of up to 64 KiB with finished checksums; its MTU only limits
    segments."""
    guard: bool | None = None
    """Whether to drop messages that only the gateway or another VM may send (ARP, neighbour discovery, router
    advertisements, DHCP answers). None, before there is a port: true if there is a gateway."""


class PortId(NamedTuple):
    """One attachment of a VM: another VM may get the number later, with another ``born``."""

    port: int
    born: int


class Incarnation(NamedTuple):
    """One worker of a port: each worker of a port has its own epoch."""

    port: int
    epoch: int


class PortRecord(NamedTuple):
    """A port as every worker knows it. The registry holds the record; other parts keep the number and ask."""

    port: int
    epoch: int
    born: int
    name: str
    """"" for a port that is reserved: its VM is still to come, and its transport and settings with it."""
    transport: str
    policy: Policy

    @property
    def id(self) -> PortId:
        """The identity of the attachment."""
        return PortId(self.port, self.born)

    @property
    def is_gateway(self) -> bool:
        """Whether it is the gateway's port."""
        return self.transport == "gateway"

    @property
    def reserved(self) -> bool:
        """Whether its VM is still to come."""
        return not self.name

    @property
    def incarnation(self) -> Incarnation:
        """The identity of the worker; it changes with each restart."""
        return Incarnation(self.port, self.epoch)


def port_called(said: str, records: Iterable[PortRecord]) -> PortRecord | None:
    """Return the port that an operator means: that of the number, or else of the name; None: there is none.

    A port may be named ``2``, and its number be another one.
    """
    known = list(records)
    by_name = (record for record in known if record.name == said)
    return next((record for record in known if str(record.port) == said), next(by_name, None))


def mtu_of(policy: Policy) -> int:
    """Return the MTU in force; 0: none."""
    return policy.mtu or (OFFLOAD_MTU if policy.offload == "tso" else 0)


def may_talk(one: PortRecord, other: PortRecord) -> bool:
    """Whether frames may pass between two ports, in either direction: both have to allow the other.

    A port that is not isolated allows every other port, an isolated one the ports in ``reach``.
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
    """Return the six bytes of ``52:54:00:12:34:56``, written with colons or dashes.

    Raises LocalError for other text and for an address that no single station can have.
    """
    if _MAC.fullmatch(text) is None:
        raise LocalError(f"{text!r} is not a MAC address; write it like 52:54:00:12:34:56")
    mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if not valid_mac(mac):
        raise LocalError(f"{text} is a group address or zero; only the address of one station can be pinned")
    return mac
