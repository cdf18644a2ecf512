"""Check a received record of a port: it may hold only values that the settings allow."""

from typing import cast

from forwarder.checks import boolean, bound, fields, integer, mac, many, optional, remembered, string
from forwarder.errors import PeerError
from forwarder.names import (
    MAX_BYTES_PER_S,
    MAX_FRAMES_PER_S,
    MAX_MACS,
    MAX_MTU,
    MAX_PINNED,
    MAX_PORTS,
    MAX_REACHES,
    MIN_BYTES_PER_S,
    MIN_MTU,
    OFFLOADS,
    RECEIVES,
    TRANSPORT_KIND,
    Policy,
    PortRecord,
    valid_name,
)

MAX_COUNT = (1 << 63) - 1
MOST_POLICIES = 64
"""Different policies to remember: most ports have the policy of their listener."""
PORT = integer(1, MAX_PORTS - 1)
EPOCH = integer(1, MAX_COUNT)

_NAME = string("a port name", valid_name)
_MEMBER_NAME = string("a port name, or none", lambda name: not name or valid_name(name))
_TRANSPORT = string("a transport", TRANSPORT_KIND.__contains__)
_FRAMES = bound(1, MAX_FRAMES_PER_S)
_POLICY = remembered(
    fields(
        Policy,
        (
            ("pinned", many(mac, MAX_PINNED)),
            ("flood_unknown", boolean),
            ("broadcast_per_s", _FRAMES),
            ("multicast_per_s", _FRAMES),
            ("unknown_per_s", _FRAMES),
            ("bytes_per_s", bound(MIN_BYTES_PER_S, MAX_BYTES_PER_S)),
            ("max_macs", bound(1, MAX_MACS)),
            ("isolated", boolean),
            ("reaches", many(_NAME, MAX_REACHES)),
            ("offload", string("an offload", OFFLOADS.__contains__)),
            ("mtu", bound(MIN_MTU, MAX_MTU)),
            ("receive", string("a way to receive", RECEIVES.__contains__)),
            ("guard", optional(boolean)),
        ),
    ),
    MOST_POLICIES,
)
_REST = (("transport", _TRANSPORT), ("policy", _POLICY))
_START = (("port", PORT), ("epoch", EPOCH), ("born", EPOCH))
RECORD = fields(PortRecord, (*_START, ("name", _NAME), *_REST))
MEMBER = fields(PortRecord, (*_START, ("name", _MEMBER_NAME), *_REST))
"""A record of the table: its port may be reserved."""


def unique_records(value: object) -> object:
    """Check a list of records of different ports."""
    records = cast(tuple[PortRecord, ...], many(MEMBER, MAX_PORTS - 1)(value))
    if len({record.port for record in records}) < len(records):
        raise PeerError("one port is there twice")
    return records
