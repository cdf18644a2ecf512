"""Encode and decode control messages; only this file uses msgpack.

A message travels as one msgpack array: protocol version, tag, then the fields in order. Nested tuples
are arrays too, so encoding needs no code per message. Decoding trusts nothing: it checks the size before it
unpacks, and then each field by the table ``MESSAGES``, which shows the whole protocol on one screen.
``decode`` raises only PeerError, whatever the bytes, so a receiver's loop needs one handler and never stops
for a bad message.

To add a message or a field: change the NamedTuple and its row, and raise ``PROTOCOL_VERSION``. There are no
optional fields: one switch is one installation, and a worker of another version is refused by name.
"""

from typing import cast

import msgpack  # type: ignore[import-untyped]

from forwarder._core import CELL_PARTS
from forwarder.checks import (
    Check,
    boolean,
    fields,
    integer,
    many,
    mapping,
    octets,
    octets_up_to,
    plain,
    show,
    string,
)
from forwarder.errors import LocalError, OtherVersionError, PeerError
from forwarder.messages import (
    ADDRESS_BYTES,
    MAX_FLOODS,
    MAX_OWNERS,
    MAX_PART,
    MAX_PROGRAM,
    MAX_TEXT,
    OWNER,
    Assign,
    Beat,
    Capture,
    CaptureOver,
    CaptureRing,
    Change,
    Claim,
    Command,
    Drain,
    FloodMoved,
    FloodRx,
    Floods,
    FloodTx,
    Fork,
    Forked,
    Goodbye,
    Guarded,
    Handover,
    Heartbeat,
    Hello,
    KeepSession,
    Message,
    Note,
    Owners,
    Ready,
    Reply,
    RingIdle,
    RingOpen,
    RingOver,
    RingRx,
    RingSealed,
    RingTx,
    SnapshotPart,
    SnapshotRequest,
    Update,
    WantCapture,
    WantFloods,
    WantRing,
)
from forwarder.names import MAX_PORTS, PROTOCOL_VERSION, Cell
from forwarder.record_checks import EPOCH, MAX_COUNT, MEMBER, PORT, RECORD, unique_records
from forwarder.vhost_session import check_session

MESSAGE_BYTES = 2 << 20
"""The longest message other than a reply: a command with all options of a gateway, and room to grow."""

PUBLISHED_BYTES = 64 << 10
"""The longest published message: an update with MAX_PART of the longest records (1.5 kB)."""

REPLY_BYTES = 16 << 20
"""Longest reply to an operator: statistics of every port with its sources (1023 ports, 1 kB and some
hundred talking pairs of 30 bytes each)."""

_COUNT = integer(0, MAX_COUNT)
_MILLISECONDS = integer(1, 3_600_000)
_LAYOUT = integer(0, 0xFFFF)
_PID = integer(0, (1 << 31) - 1)
_REASON = string("one short line", lambda text: len(text) <= MAX_TEXT and text.isprintable())
_COMMAND = string("a command", lambda text: text.isidentifier() and len(text) <= 32)
_CHANGE = fields(
    Change,
    (("change", string("a change", ("join", "change", "leave").__contains__)), ("record", MEMBER)),
)


def _owners(value: object) -> object:
    """Check the rows of ``Owners``: whole ones, no more than a guard takes, each with a port."""
    rows = octets_up_to(MAX_OWNERS * OWNER.size)(value)
    assert isinstance(rows, bytes)
    if len(rows) % OWNER.size or not all(0 < port < MAX_PORTS for _, port in OWNER.iter_unpack(rows)):
        raise PeerError(f"{show(rows)} are not addresses and ports")
    return rows


_CELL = fields(
    Cell,
    (
        ("parts", many(string("a part of a cell", CELL_PARTS.__contains__), len(CELL_PARTS))),
        ("landlock_abi", integer(0, 1000)),
    ),
)

_LINK = (("port", PORT), ("epoch", EPOCH))
_PAIR = fields(lambda port, epoch: (port, epoch), _LINK)

_NAME = string("a port's name", lambda text: 0 < len(text) <= MAX_TEXT and text.isprintable())
_PROGRAM = octets_up_to(MAX_PROGRAM)
_SNAP = integer(1, 1 << 20)
_CAPTURE = integer(1, 2**32 - 1)

MESSAGES: dict[type[Message], tuple[tuple[str, Check], ...]] = {
    Beat: (
        ("epoch", EPOCH),
        ("sequence", _COUNT),
        ("interval_ms", _MILLISECONDS),
        ("pulse_ms", _MILLISECONDS),
    ),
    Update: (
        ("epoch", EPOCH),
        ("sequence", integer(1, MAX_COUNT)),
        ("changes", many(_CHANGE, MAX_PART)),
        ("floods", many(_PAIR, MAX_PART)),
    ),
    Hello: (),
    Heartbeat: (
        ("supervisor_epoch", _COUNT),
        ("sequence", _COUNT),
        ("queued", _COUNT),
        ("stalled", boolean),
        ("unfinished", boolean),
        ("refused_calls", _COUNT),
        ("refused_call", integer(-1, (1 << 31) - 1)),
    ),
    Note: (("text", _REASON),),
    Goodbye: (("reason", _REASON),),
    SnapshotRequest: (),
    SnapshotPart: (
        ("epoch", EPOCH),
        ("sequence", _COUNT),
        ("more", boolean),
        ("records", unique_records),
    ),
    Drain: (),
    Fork: (),
    Forked: (("pid", _PID), ("why", _REASON)),
    Ready: (("layout", _LAYOUT), ("cell", _CELL)),
    Claim: (("layout", _LAYOUT), ("cell", _CELL), ("record", RECORD)),
    Assign: (
        ("record", RECORD),
        ("older", EPOCH),
        ("supervisor_epoch", EPOCH),
        ("interval_ms", _MILLISECONDS),
        ("pulse_ms", _MILLISECONDS),
        ("subscribed", boolean),
    ),
    KeepSession: (("number", integer(0, (1 << 32) - 1)), ("session", check_session)),
    WantFloods: (("ports", many(_PAIR, MAX_PORTS - 1)),),
    Floods: (("ports", many(_PAIR, MAX_FLOODS)),),
    FloodTx: (),
    FloodMoved: (),
    FloodRx: _LINK,
    Owners: (("owners", _owners),),
    Guarded: (("kind", _COMMAND), ("source", octets(6)), ("address", octets(ADDRESS_BYTES))),
    WantRing: _LINK,
    RingTx: _LINK,
    RingSealed: _LINK,
    RingRx: _LINK,
    RingOpen: _LINK,
    RingIdle: _LINK,
    RingOver: _LINK,
    WantCapture: (("ports", many(_NAME, MAX_PORTS - 1)), ("program", _PROGRAM), ("snap", _SNAP)),
    CaptureRing: (*_LINK, ("name", _NAME), ("transport", _NAME)),
    Capture: (("number", _CAPTURE), ("program", _PROGRAM), ("snap", _SNAP)),
    CaptureOver: (("number", _CAPTURE),),
    Command: (("name", _COMMAND), ("arguments", mapping)),
    Reply: (("ok", boolean), ("result", plain)),
    Handover: (("name", _COMMAND), ("arguments", mapping), ("descriptors", integer(1, MAX_FLOODS))),
}
"""Every message, and the check of each of its fields in order."""

_DECODERS = {kind.__name__: fields(kind, checks) for kind, checks in MESSAGES.items()}


def encode(message: Message) -> bytes:
    """Return the bytes of ``message``. Raises LocalError if it is too long or not plain data."""
    kind = type(message)
    try:
        data = cast(bytes, msgpack.packb((PROTOCOL_VERSION, kind.__name__, *message)))
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalError(f"cannot encode a {kind.__name__}: {error}") from None
    limit = REPLY_BYTES if kind is Reply else MESSAGE_BYTES
    if len(data) > limit:
        raise LocalError(f"a {kind.__name__} of {len(data)} bytes is over the {limit} allowed; ask for less")
    return data


def decode(data: bytes, limit: int = MESSAGE_BYTES) -> Message:
    """Return the message in ``data``. Raises only PeerError, if it is not a message.

    ``limit`` is the longest accepted message in bytes; a receiver of a Reply passes REPLY_BYTES.
    """
    if len(data) > limit:
        raise PeerError(f"a message of {len(data)} bytes is longer than {limit}")
    try:
        # unpackb bounds every string, list and map by the length of the data.
        parts = msgpack.unpackb(data, use_list=False)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise PeerError(f"not msgpack: {type(error).__name__}") from None
    if type(parts) is not tuple or len(parts) < 2:
        raise PeerError(f"{show(parts)} is not a message")
    version, tag = parts[:2]
    if version != PROTOCOL_VERSION or type(version) is not int:
        text = f"protocol {show(version)}, not {PROTOCOL_VERSION}: the sender is another version"
        raise OtherVersionError(text) if type(version) is int else PeerError(text)
    check = _DECODERS.get(tag) if type(tag) is str else None
    if check is None:
        raise PeerError(f"{show(tag)} is not a message")
    try:
        return cast(Message, check(parts[2:]))
    except PeerError as error:
        raise PeerError(f"{tag}: {error}") from None
