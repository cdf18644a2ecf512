"""Every message of the control plane, with its sender and receiver.

Values only; ``wire`` has their bytes and the check of each field. Both ends of a channel know the other
process and its port, so a worker's message does not name its sender.
"""

import struct
from typing import NamedTuple

from forwarder.names import Cell, PortRecord
from forwarder.vhost_session import VhostSession

MAX_TEXT = 200
"""Characters of a reason: one log line."""

MAX_FLOODS = 200
"""Ports in one ``Floods``: Linux passes at most 253 descriptors with a message."""

MAX_OWNERS = 2500
"""Addresses in one ``Owners``: two for each port; a channel's message has room for them."""

ADDRESS_BYTES = 16
OWNER = struct.Struct(f">{ADDRESS_BYTES}sI")
"""An address and the number of its port."""

MAX_PROGRAM = 4096 * 8
"""Bytes of a filter: the kernel's BPF_MAXINSNS, of 8 bytes each."""

MAX_PART = 40
"""Records in one part of a snapshot, and changes in one ``Update``: as many of the longest (1.5 kB) as a
message on a channel holds."""


class Beat(NamedTuple):
    """Supervisor to all: I am here, and this is the last update I published."""

    epoch: int
    sequence: int
    interval_ms: int
    """When the next beat is due; three missing ones are silence."""
    pulse_ms: int
    """How often a worker publishes to its stats page, to show that its loop turns."""


class Change(NamedTuple):
    """One change of membership, in an ``Update``."""

    change: str
    """``join``, ``change`` or ``leave``."""
    record: PortRecord


class Update(NamedTuple):
    """Supervisor to all: changes of membership, in their order.

    Those with newcomers come over the channels, with the newcomers' flood rings; all others are published.
    """

    epoch: int
    sequence: int
    """The number of the first change."""
    changes: tuple[Change, ...]
    floods: tuple[tuple[int, int], ...]
    """The (port, epoch) of the flood rings that come with it, one descriptor each, in order."""

    @property
    def last(self) -> int:
        """The number of the last change."""
        return self.sequence + len(self.changes) - 1


class Hello(NamedTuple):
    """Worker to supervisor: I have taken the port and forward from now on."""


class Heartbeat(NamedTuple):
    """Worker to supervisor, from the forwarding loop itself, so that a stuck loop is a silent worker."""

    supervisor_epoch: int
    sequence: int
    """The membership that the worker uses; zero and zero before the first snapshot."""
    queued: int
    """Bytes waiting for the VM."""
    stalled: bool
    unfinished: bool
    """The VM leaves checksums undone, and its port is not set for it."""
    refused_calls: int
    """System calls that its cell has refused."""
    refused_call: int
    """The number of the last one; -1: none."""


class Note(NamedTuple):
    """Worker to supervisor: a line for the log."""

    text: str


class Goodbye(NamedTuple):
    """Worker to supervisor: I end, because the VM's link did or because I was told to drain."""

    reason: str


class SnapshotRequest(NamedTuple):
    """Worker to supervisor: send the whole table."""


class SnapshotPart(NamedTuple):
    """Supervisor to one worker: some records of the table after update ``sequence``, in order."""

    epoch: int
    sequence: int
    more: bool
    """Whether another part follows."""
    records: tuple[PortRecord, ...]


class Drain(NamedTuple):
    """Supervisor to one worker: end cleanly."""


class Fork(NamedTuple):
    """Supervisor to its template, with one end of a channel: make a worker with it."""


class Forked(NamedTuple):
    """Template to supervisor, one for each ``Fork``, in order: the new worker, or a reason."""

    pid: int
    """0 if no worker was made."""
    why: str


class Ready(NamedTuple):
    """Worker to supervisor, first on its channel: a spare that waits for a port, in its cell.

    With it come descriptors of its ``smaps_rollup`` and ``fd`` in /proc, which no other process can open.
    """

    layout: int
    cell: Cell


class Claim(NamedTuple):
    """Worker to a new supervisor, first on its channel, with its descriptors: take me over with this port."""

    layout: int
    cell: Cell
    record: PortRecord


class Assign(NamedTuple):
    """Supervisor to a spare worker, with descriptors: this port is yours."""

    record: PortRecord
    older: int
    """The last epoch of the ports that were there before."""
    supervisor_epoch: int
    interval_ms: int
    pulse_ms: int
    """As in the last beat."""
    subscribed: bool
    """Whether the worker's subscription is known to be in force; otherwise it waits for a published
    message."""


class KeepSession(NamedTuple):
    """Worker to supervisor, with descriptors: store my session.

    Supervisor to worker, before Assign: go on with it.
    """

    number: int
    """The number of this state, by which a worker knows whether it is the last one."""
    session: VhostSession


class WantFloods(NamedTuple):
    """Worker to supervisor: I lack the flood rings of these (port, epoch)."""

    ports: tuple[tuple[int, int], ...]


class Floods(NamedTuple):
    """Supervisor to worker: the flood rings of these (port, epoch), one descriptor each, in order."""

    ports: tuple[tuple[int, int], ...]


class FloodTx(NamedTuple):
    """Supervisor to worker, with a flood ring: write your VM's floods there from now on."""


class FloodMoved(NamedTuple):
    """Worker to supervisor: I do, and only I can write to it."""


class FloodRx(NamedTuple):
    """Supervisor to worker, with a flood ring: that port writes its floods there from now on."""

    port: int
    epoch: int


class Owners(NamedTuple):
    """Supervisor to worker: the owners of all known addresses, for its guard."""

    owners: bytes
    """``OWNER`` rows of address and port; an IPv4 address is ``::ffff:a.b.c.d``. One value, since each worker
    of a crowd gets all of them each second while leases are given."""


class Guarded(NamedTuple):
    """Worker to supervisor: a guard has refused something of my VM for the first time."""

    kind: str
    """A word of ``guard.h``."""
    source: bytes
    """Ethernet source, 6 bytes."""
    address: bytes
    """The claimed address, as in ``Owners``; zero: none."""


class WantRing(NamedTuple):
    """Worker to supervisor: I want a ring towards that port."""

    port: int
    epoch: int


class RingTx(NamedTuple):
    """Supervisor to the producer, with ring, tail and doorbell: the ring towards that port, to be sealed."""

    port: int
    epoch: int


class RingSealed(NamedTuple):
    """Producer to supervisor: from now on only I can write to that ring."""

    port: int
    epoch: int


class RingRx(NamedTuple):
    """Supervisor to the consumer, with ring and tail: frames from that port arrive in it."""

    port: int
    epoch: int


class RingOpen(NamedTuple):
    """Supervisor to the producer: the consumer has its half of the ring towards that port."""

    port: int
    epoch: int


class RingIdle(NamedTuple):
    """Producer to supervisor: I have given up the ring towards that port; it was empty for long."""

    port: int
    epoch: int


class RingOver(NamedTuple):
    """Supervisor to the consumer: that port has given up its ring; unmap it, too."""

    port: int
    epoch: int


class WantCapture(NamedTuple):
    """Viewer to supervisor, on a channel of its own: copy the frames of these ports until I hang up."""

    ports: tuple[str, ...]
    """Names or numbers; empty: all ports, also later ones."""
    program: bytes
    """Classic BPF that chooses frames; empty: all."""
    snap: int
    """Most bytes to keep of a frame."""


class CaptureRing(NamedTuple):
    """Supervisor to viewer, with a capture ring: the worker of that port copies its frames to it."""

    port: int
    epoch: int
    name: str
    transport: str


class Capture(NamedTuple):
    """Supervisor to worker, with a capture ring: copy your port's frames to it."""

    number: int
    """Of the capture; a port may have several at one time."""
    program: bytes
    snap: int


class CaptureOver(NamedTuple):
    """Supervisor to worker: copy no more for that capture."""

    number: int


class Command(NamedTuple):
    """Operator to supervisor: do this."""

    name: str
    arguments: dict[str, object]


class Reply(NamedTuple):
    """Supervisor to operator: done, with a result; or not done, with one line of reason."""

    ok: bool
    result: object


class Handover(NamedTuple):
    """Between the processes of the gateway and to the supervisor: these descriptors are yours now."""

    name: str
    """The purpose of the descriptors."""
    arguments: dict[str, object]
    descriptors: int
    """The number of descriptors."""


Message = (
    Beat
    | Update
    | Hello
    | Heartbeat
    | Note
    | Goodbye
    | SnapshotRequest
    | SnapshotPart
    | Drain
    | Fork
    | Forked
    | Ready
    | Claim
    | Assign
    | KeepSession
    | WantFloods
    | Floods
    | FloodTx
    | FloodMoved
    | FloodRx
    | Owners
    | Guarded
    | WantRing
    | RingTx
    | RingSealed
    | RingRx
    | RingOpen
    | RingIdle
    | RingOver
    | WantCapture
    | CaptureRing
    | Capture
    | CaptureOver
    | Command
    | Reply
    | Handover
)
