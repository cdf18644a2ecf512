"""Control messages and their bytes: the only file that knows msgpack.

A message travels as one msgpack array: layout version, tag, then the fields in order. Nested tuples
are arrays too, so encoding needs no code per message. Decoding trusts nothing: the size is checked
before anything is unpacked, and then each field by the table ``MESSAGES``, which is the whole
protocol on one screen. ``decode`` raises nothing but PeerError, whatever the bytes; so a receiver's
loop needs one handler and never stops for a bad message.

To add a message or a field: change the NamedTuple and its row, and raise ``_LAYOUT``. There are no
optional fields: one switch is one installation, and a worker of another version is refused by name.
"""

from typing import NamedTuple, cast

import msgpack  # type: ignore[import-untyped]

from forwarder.checks import (
    Check,
    boolean,
    fields,
    integer,
    many,
    mapping,
    octets,
    plain,
    show,
    string,
)
from forwarder.errors import LocalError, PeerError
from forwarder.names import (
    MAX_PORTS,
    Identity,
    PortRecord,
)
from forwarder.record_checks import EPOCH, MAX_COUNT, PORT, RECORD, unique_records
from forwarder.vhost_session import VhostSession, check_session

MESSAGE_BYTES = 2 << 20
"""Longest message but a reply: a snapshot of MAX_PORTS - 1 longest records (1.4 MB), and room to grow. With
settings as they come, 1023 ports are 100 kB."""

REPLY_BYTES = 16 << 20
"""Longest reply to an operator: statistics of every port with its sources (1023 ports, 1 kB and some
hundred talking pairs of 30 bytes each)."""

MAX_TEXT = 200
"""Characters of a reason: one log line."""

MAX_OWNERS = 2500
"""Addresses in one ``Owners``: what a channel's message has room for, and two for each port."""

ADDRESS_BYTES = 16

MAX_FLOODS = 200
"""Ports in one ``Floods``: Linux passes at most 253 descriptors with a message."""

_LAYOUT = 6


class Beat(NamedTuple):
    """Supervisor to all: I am here, and this is the last update I published."""

    epoch: int
    sequence: int
    interval_ms: int
    """When the next beat is due; three missing ones are silence."""
    pulse_ms: int
    """How often a worker is to show, by its block, that its loop turns."""


class Update(NamedTuple):
    """Supervisor to all: one change of membership.

    A newcomer's comes over the channels first, with its flood ring.
    """

    epoch: int
    sequence: int
    change: str
    """``join``, ``change`` or ``leave``."""
    record: PortRecord


class Hello(NamedTuple):
    """Worker to supervisor: I have taken the port and forward from now on."""

    port: int
    epoch: int
    identity: Identity
    version: int


class Heartbeat(NamedTuple):
    """Worker to supervisor, from the forwarding loop itself, so that a stuck loop is a silent worker."""

    port: int
    epoch: int
    supervisor_epoch: int
    sequence: int
    """The membership it works with; zero and zero before the first snapshot."""
    turns: int
    queued: int
    """Bytes waiting for the VM."""
    stalled: bool
    unfinished: bool
    """The VM leaves checksums undone, and its port is not set for it."""
    stale_ms: int
    """How long, in all, it has worked with a membership that it knew might be old."""


class Goodbye(NamedTuple):
    """Worker to supervisor: I end, because the VM's link did or because I was told to drain."""

    port: int
    epoch: int
    reason: str


class SnapshotRequest(NamedTuple):
    """Worker to supervisor: send the whole table."""

    port: int
    epoch: int


class Snapshot(NamedTuple):
    """Supervisor to one worker: the whole table as it is after update ``sequence``."""

    epoch: int
    sequence: int
    records: tuple[PortRecord, ...]


class HelloAgain(NamedTuple):
    """Supervisor to one worker: I do not know you under that epoch, introduce yourself."""

    epoch: int
    """The supervisor's."""


class Drain(NamedTuple):
    """Supervisor to one worker: end cleanly."""

    port: int
    epoch: int


class Ready(NamedTuple):
    """Worker to supervisor, first on its channel: a spare that waits for a port."""

    identity: Identity
    version: int


class Claim(NamedTuple):
    """Worker to supervisor, first on its channel, with its descriptors: I have this port, take me over."""

    identity: Identity
    version: int
    record: PortRecord


class Assign(NamedTuple):
    """Supervisor to a spare worker, with descriptors: this port is yours."""

    record: PortRecord
    supervisor_epoch: int
    interval_ms: int
    pulse_ms: int
    """As in the last beat."""
    subscribed: bool
    """Whether the worker's subscription is in force, so that it need not wait for a message that proves
    it."""


class KeepSession(NamedTuple):
    """Worker to supervisor, with descriptors: keep this of my session. Before Assign: go on with it."""

    number: int
    """Of what is kept, for a worker that has to know whether it is the last there was."""
    session: VhostSession


class WantFloods(NamedTuple):
    """Worker to supervisor: I lack the flood rings of these (port, epoch)."""

    ports: tuple[tuple[int, int], ...]


class Floods(NamedTuple):
    """Supervisor to worker: the flood rings of these (port, epoch), one descriptor each, in order."""

    ports: tuple[tuple[int, int], ...]


class Owners(NamedTuple):
    """Supervisor to worker: which port has which address, all that are known; guards go by it."""

    owners: tuple[tuple[bytes, int], ...]
    """(16 bytes, of IPv4 ``::ffff:a.b.c.d``; port)."""


class Guarded(NamedTuple):
    """Worker to supervisor: a guard has refused something of my VM for the first time."""

    kind: str
    """A word of ``guard.h``."""
    source: bytes
    """Ethernet source, 6 bytes."""
    address: bytes
    """That was claimed, as in ``Owners``; zero: none."""


class WantRing(NamedTuple):
    """Worker to supervisor: I want a ring towards that port."""

    port: int
    epoch: int


class RingTx(NamedTuple):
    """Supervisor to the producer, with ring, tail and doorbell: the ring towards that port."""

    port: int
    epoch: int


class RingRx(NamedTuple):
    """Supervisor to the consumer, with ring and tail: frames from that port arrive in it."""

    port: int
    epoch: int


class Command(NamedTuple):
    """Operator to supervisor: do this."""

    name: str
    arguments: dict[str, object]


class Reply(NamedTuple):
    """Supervisor to operator: done, with a result; or not done, with one line that says why."""

    ok: bool
    result: object


class Handover(NamedTuple):
    """Between the processes of the gateway and to the supervisor: these descriptors are yours now."""

    name: str
    """What they are for."""
    arguments: dict[str, object]
    descriptors: int
    """How many come with it."""


Message = (
    Beat
    | Update
    | Hello
    | Heartbeat
    | Goodbye
    | SnapshotRequest
    | Snapshot
    | HelloAgain
    | Drain
    | Ready
    | Claim
    | Assign
    | KeepSession
    | WantFloods
    | Floods
    | Owners
    | Guarded
    | WantRing
    | RingTx
    | RingRx
    | Command
    | Reply
    | Handover
)

_COUNT = integer(0, MAX_COUNT)
_MILLISECONDS = integer(1, 3_600_000)
_VERSION = integer(0, 0xFFFF)
_REASON = string("one short line", lambda text: len(text) <= MAX_TEXT and text.isprintable())
_COMMAND = string("a command", lambda text: text.isidentifier() and len(text) <= 32)
_CHANGE = string("a change", ("join", "change", "leave").__contains__)
_IDENTITY = fields(Identity, (("pid", integer(1, (1 << 31) - 1)), ("start", _COUNT)))

_LINK = (("port", PORT), ("epoch", EPOCH))
_PAIR = fields(lambda port, epoch: (port, epoch), _LINK)
_OWNER = fields(lambda address, port: (address, port), (("address", octets(ADDRESS_BYTES)), ("port", PORT)))

MESSAGES: dict[type[Message], tuple[tuple[str, Check], ...]] = {
    Beat: (
        ("epoch", EPOCH),
        ("sequence", _COUNT),
        ("interval_ms", _MILLISECONDS),
        ("pulse_ms", _MILLISECONDS),
    ),
    Update: (("epoch", EPOCH), ("sequence", integer(1, MAX_COUNT)), ("change", _CHANGE), ("record", RECORD)),
    Hello: (*_LINK, ("identity", _IDENTITY), ("version", _VERSION)),
    Heartbeat: (
        *_LINK,
        ("supervisor_epoch", _COUNT),
        ("sequence", _COUNT),
        ("turns", _COUNT),
        ("queued", _COUNT),
        ("stalled", boolean),
        ("unfinished", boolean),
        ("stale_ms", _COUNT),
    ),
    Goodbye: (*_LINK, ("reason", _REASON)),
    SnapshotRequest: _LINK,
    Snapshot: (("epoch", EPOCH), ("sequence", _COUNT), ("records", unique_records)),
    HelloAgain: (("epoch", EPOCH),),
    Drain: _LINK,
    Ready: (("identity", _IDENTITY), ("version", _VERSION)),
    Claim: (("identity", _IDENTITY), ("version", _VERSION), ("record", RECORD)),
    Assign: (
        ("record", RECORD),
        ("supervisor_epoch", EPOCH),
        ("interval_ms", _MILLISECONDS),
        ("pulse_ms", _MILLISECONDS),
        ("subscribed", boolean),
    ),
    KeepSession: (("number", integer(0, (1 << 32) - 1)), ("session", check_session)),
    WantFloods: (("ports", many(_PAIR, MAX_PORTS - 1)),),
    Floods: (("ports", many(_PAIR, MAX_FLOODS)),),
    Owners: (("owners", many(_OWNER, MAX_OWNERS)),),
    Guarded: (("kind", _COMMAND), ("source", octets(6)), ("address", octets(ADDRESS_BYTES))),
    WantRing: _LINK,
    RingTx: _LINK,
    RingRx: _LINK,
    Command: (("name", _COMMAND), ("arguments", mapping)),
    Reply: (("ok", boolean), ("result", plain)),
    Handover: (("name", _COMMAND), ("arguments", mapping), ("descriptors", integer(1, MAX_FLOODS))),
}
"""Every message, and the check of each of its fields in order."""

_DECODERS = {kind.__name__: fields(kind, checks) for kind, checks in MESSAGES.items()}


def encode(message: Message) -> bytes:
    """Return the bytes of ``message``. Raises LocalError if they are too many, or it is not plain data."""
    kind = type(message)
    try:
        data = cast(bytes, msgpack.packb((_LAYOUT, kind.__name__, *message)))
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalError(f"cannot encode a {kind.__name__}: {error}") from None
    limit = REPLY_BYTES if kind is Reply else MESSAGE_BYTES
    if len(data) > limit:
        raise LocalError(f"a {kind.__name__} of {len(data)} bytes is over the {limit} allowed; ask for less")
    return data


def decode(data: bytes, limit: int = MESSAGE_BYTES) -> Message:
    """Return the message that ``data`` is. Raises PeerError, and nothing else, if it is not one.

    ``limit``: the longest to look at, in bytes; who waits for a Reply gives REPLY_BYTES.
    """
    if len(data) > limit:
        raise PeerError(f"a message of {len(data)} bytes is longer than {limit}")
    try:
        # unpackb bounds every string, list and map by the length of the data.
        parts = msgpack.unpackb(data)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise PeerError(f"not msgpack: {type(error).__name__}") from None
    if type(parts) is not list or len(parts) < 2:
        raise PeerError(f"{show(parts)} is not a message")
    layout, tag, *values = parts
    if layout != _LAYOUT or type(layout) is not int:
        raise PeerError(f"message layout {show(layout)}, not {_LAYOUT}: the sender is another version")
    check = _DECODERS.get(tag) if type(tag) is str else None
    if check is None:
        raise PeerError(f"{show(tag)} is not a message")
    try:
        return cast(Message, check(values))
    except PeerError as error:
        raise PeerError(f"{tag}: {error}") from None
