"""The codec: each message arrives as it was sent, and no bytes can do more than raise PeerError."""

import contextlib
from typing import get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import wire
from forwarder.channel import CHANNEL_BYTES
from forwarder.checks import DEPTH
from forwarder.errors import LocalError, PeerError
from forwarder.membership import Snapshot
from forwarder.messages import MAX_PART, OWNER
from forwarder.names import (
    MAX_BYTES_PER_S,
    MAX_FRAMES_PER_S,
    MAX_MACS,
    MAX_NAME,
    MAX_PINNED,
    MAX_PORTS,
    MAX_REACHES,
    MIN_BYTES_PER_S,
    Policy,
    PortRecord,
)
from tests.helpers.wire_examples import CELL, EXAMPLES, POLICY, RECORD

U63 = (1 << 63) - 1
LAYOUT = msgpack.unpackb(wire.encode(wire.Goodbye("x")))[0]


def altered(message: wire.Message, field: str, value: object) -> bytes:
    fields = [value if name == field else item for name, item in zip(message._fields, message, strict=True)]
    return msgpack.packb((LAYOUT, type(message).__name__, *fields))


def test_only_the_table_has_ports_without_a_name():
    reserved = RECORD._replace(name="")
    for message in (
        UPDATE._replace(changes=(wire.Change("join", reserved),)),
        wire.SnapshotPart(5, 2, False, (reserved,)),
    ):
        assert wire.decode(wire.encode(message)) == message
    for message in (each for each in EXAMPLES if isinstance(each, (wire.Assign, wire.Claim))):
        with pytest.raises(PeerError, match="name"):
            wire.decode(wire.encode(message._replace(record=reserved)))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message):
    arrived = wire.decode(wire.encode(message))
    assert arrived == message
    assert type(arrived) is type(message)


def test_every_message_has_its_checks_and_an_example():
    kinds = set(get_args(wire.Message))
    assert kinds == set(wire.MESSAGES) == {type(message) for message in EXAMPLES}
    for kind, checks in wire.MESSAGES.items():
        assert kind._fields == tuple(name for name, _ in checks)


def test_records_arrive_as_records():
    snapshot = wire.decode(wire.encode(EXAMPLES[7]))
    assert isinstance(snapshot, wire.SnapshotPart)
    assert isinstance(snapshot.records[0], PortRecord)
    assert isinstance(snapshot.records[0].policy, Policy)


def test_the_largest_records_fit_into_their_messages():
    policy = Policy(
        tuple(b"\xfe\xff\xff\xff\xff" + bytes([n]) for n in range(MAX_PINNED)),
        False,
        *[MAX_FRAMES_PER_S] * 3,
        MAX_BYTES_PER_S,
        MAX_MACS,
        True,
        tuple(f"{n:x<{MAX_NAME}}" for n in range(MAX_REACHES)),
    )
    records = [
        PortRecord(port, U63, U63, f"{port:x<{MAX_NAME}}", "vfkit", policy) for port in range(1, MAX_PORTS)
    ]
    changes = tuple(wire.Change("change", record) for record in records[:MAX_PART])
    parts = list(Snapshot(U63, U63, tuple(records)).parts())
    assert max(len(wire.encode(part)) for part in parts) < CHANNEL_BYTES
    update = wire.Update(U63, U63, changes, ((MAX_PORTS - 1, U63),) * MAX_PART)
    assert len(wire.encode(update)) < wire.PUBLISHED_BYTES


UPDATE = wire.Update(5, 1, (wire.Change("join", RECORD),), ())
BAD_FIELDS = [
    (wire.Beat(5, 0, 1000, 1000), "epoch", 0),
    (wire.Beat(5, 0, 1000, 1000), "epoch", True),
    (wire.Beat(5, 0, 1000, 1000), "epoch", 1 << 63),
    (wire.Beat(5, 0, 1000, 1000), "sequence", -1),
    (wire.Beat(5, 0, 1000, 1000), "interval_ms", 0),
    (wire.Beat(5, 0, 1000, 1000), "interval_ms", 1.5),
    (UPDATE, "sequence", 0),
    (UPDATE, "changes", (("explode", RECORD),)),
    (UPDATE, "changes", ((("join",), RECORD),)),
    (UPDATE, "changes", (("join", RECORD._replace(port=0)),)),
    (UPDATE, "changes", (("join", RECORD._replace(port=MAX_PORTS)),)),
    (UPDATE, "changes", (("join", RECORD._replace(name="a b")),)),
    (UPDATE, "changes", (("join", RECORD._replace(transport="carrier pigeon")),)),
    (UPDATE, "changes", (("join", RECORD._replace(policy=Policy((b"\x01\0\0\0\0\x01",)))),)),
    (
        UPDATE,
        "changes",
        (("join", RECORD._replace(policy=Policy((b"\x02\0\0\0\0\x01",) * 17))),),
    ),
    (UPDATE, "changes", (("join", RECORD._replace(policy=POLICY[:-1])),)),
    *[
        (UPDATE, "changes", (("join", RECORD._replace(policy=POLICY._replace(**wrong))),))
        for wrong in (
            {"broadcast_per_s": -1},
            {"multicast_per_s": MAX_FRAMES_PER_S + 1},
            {"unknown_per_s": 1.5},
            {"bytes_per_s": MIN_BYTES_PER_S - 1},
            {"max_macs": True},
            {"isolated": 1},
            {"reaches": ("a b",)},
            {"reaches": ("a",) * (MAX_REACHES + 1)},
        )
    ],
    (UPDATE, "changes", (("join", RECORD[:-1]),)),
    (wire.Ready(1, CELL), "cell", (("a wall",), 7)),
    (wire.Ready(1, CELL), "cell", None),
    (wire.Heartbeat(0, 0, 12, True, False, 0, -1), "stalled", 1),
    (wire.Heartbeat(0, 0, 12, True, False, 0, -1), "refused_call", -2),
    (wire.Goodbye(""), "reason", "two\nlines"),
    (wire.Goodbye(""), "reason", "x" * 201),
    (wire.SnapshotPart(5, 2, False, (RECORD,)), "records", [RECORD, RECORD]),
    (wire.SnapshotPart(5, 2, False, (RECORD,)), "records", [RECORD._replace(port=1)] * MAX_PORTS),
    (wire.Floods(()), "ports", [[1, 1]] * 201),
    (wire.WantFloods(()), "ports", [[1]]),
    (wire.Owners(b""), "owners", bytes(19)),
    (wire.Owners(b""), "owners", OWNER.pack(bytes(16), 0)),
    (wire.Owners(b""), "owners", OWNER.pack(bytes(16), 1) * 2501),
    (wire.Guarded("a", bytes(6), bytes(16)), "source", bytes(5)),
    (wire.Command("stats", {}), "name", "rm -rf"),
    (wire.Command("stats", {}), "arguments", []),
    (wire.Command("stats", {}), "arguments", {"when": msgpack.Timestamp(0)}),
    (wire.Reply(True, None), "result", msgpack.ExtType(5, b"x")),
]


@pytest.mark.parametrize(("message", "field", "value"), BAD_FIELDS)
def test_a_bad_field_is_refused_by_name(message, field, value):
    with pytest.raises(PeerError, match=rf"^{type(message).__name__}: {field}: ") as caught:
        wire.decode(altered(message, field, value))
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xdd\xff\xff\xff\xff",  # a list of 4,294,967,295 that is not there
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,
        msgpack.packb({1: 2}),
        msgpack.packb([]),
        msgpack.packb([LAYOUT]),
        msgpack.packb([LAYOUT + 1, "Beat", 5, 0, 1000, 1000]),
        msgpack.packb([True, "Beat", 5, 0, 1000, 1000]),
        msgpack.packb([LAYOUT, "Bleat", 5, 0, 1000]),
        msgpack.packb([LAYOUT, ["Beat"], 5, 0, 1000]),
        msgpack.packb([LAYOUT, "Beat", 5, 0, 1000]),
        msgpack.packb([LAYOUT, "Beat", 5, 0, 1000, 1000, 1]),
        msgpack.packb([LAYOUT, "Beat", 5, 0, 1000, 1000]) + b"\0",
    ],
)
def test_a_malformed_message_is_refused(data):
    with pytest.raises(PeerError):
        wire.decode(data)


def test_an_oversized_message_is_not_even_looked_at():
    data = wire.encode(wire.Reply(True, "x" * wire.MESSAGE_BYTES))
    with pytest.raises(PeerError, match="longer than"):
        wire.decode(data)
    assert wire.decode(data, wire.REPLY_BYTES) == wire.Reply(True, "x" * wire.MESSAGE_BYTES)


def test_plain_data_has_a_floor():
    value: object = 1
    for _ in range(DEPTH):
        value = [value]
    assert wire.decode(wire.encode(wire.Reply(True, value))) == wire.Reply(True, value)
    with pytest.raises(PeerError, match="nested"):
        wire.decode(wire.encode(wire.Reply(True, [value])))


@pytest.mark.parametrize(
    "message",
    [
        wire.Reply(True, object()),
        wire.Reply(True, 1 << 64),
        wire.Reply(True, "x" * wire.REPLY_BYTES),
        wire.Command("stats", {"x": "x" * wire.MESSAGE_BYTES}),
    ],
    ids=["no data", "large integer", "long reply", "long command"],
)
def test_a_message_that_cannot_be_sent_is_a_local_error(message):
    with pytest.raises(LocalError):
        wire.encode(message)


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_peer_error(data):
    with contextlib.suppress(PeerError):
        wire.decode(data)


@given(st.sampled_from(EXAMPLES).map(wire.encode), st.data())
def test_a_damaged_message_raises_nothing_but_peer_error(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    try:
        message = wire.decode(bytes(damaged))
    except PeerError:
        return
    again = wire.encode(message)
    assert wire.encode(wire.decode(again)) == again


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=12,
)


@given(st.sampled_from(sorted(kind.__name__ for kind in wire.MESSAGES)), st.lists(ANYTHING, max_size=8))
def test_any_fields_raise_nothing_but_peer_error(tag, fields):
    with contextlib.suppress(PeerError):
        wire.decode(msgpack.packb([LAYOUT, tag, *fields]))
