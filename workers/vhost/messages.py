"""The messages of vhost-user as a table, and the features that are offered.

The source is QEMU's docs/interop/vhost-user.rst. A message is a header of three numbers (request, flags,
bytes of payload), a payload, and descriptors. Numbers are little-endian, as are all machines that this runs
on. A row says what a message must look like; whatever does not is a mistake of the front-end, with which
nothing can be done but to end the session.
"""

import struct
from typing import NamedTuple

from forwarder.errors import PeerError
from forwarder.vhost_session import MOST_REGIONS

HEADER = struct.Struct("<III")
U64 = struct.Struct("<Q")
RING_STATE = struct.Struct("<II")
"""Ring, number."""
RING_PLACE = struct.Struct("<IIQQQQ")
"""Ring, flags, addresses of descriptors, used ring, available ring, and of the log."""
TABLE = struct.Struct("<II")
"""Regions, padding; then the regions."""
REGION = struct.Struct("<QQQQ")
"""Guest's address, bytes, front-end's address, offset in the file."""
ONE_REGION = struct.Struct("<QQQQQ")
"""Padding, then a region."""

VERSION = 1
VERSION_MASK = 3
REPLY = 1 << 2
NEED_REPLY = 1 << 3

NO_DESCRIPTOR = 1 << 8
"""Of kick, call and err: none comes with it."""
RING_MASK = 0xFF

RING_ENDS = (12, 13, 14)
"""Kick, call and err."""

TABLE_REGIONS = 8
"""That fit into SET_MEM_TABLE, by the descriptors that a front-end may send with a message."""


class Request(NamedTuple):
    """What a message must look like."""

    number: int
    name: str
    least: int = 0
    most: int = 0
    """Bytes of payload."""
    descriptors: int = 0
    """At the most; the handler knows how many go with what the payload says."""
    answered: bool = False
    """Whether it has an answer of its own, whatever its flags say."""


def _row(number: int, name: str, payload: struct.Struct | None, descriptors: int = 0) -> Request:
    size = payload.size if payload is not None else 0
    return Request(number, name, size, size, descriptors)


def _question(number: int, name: str, payload: struct.Struct | None = None) -> Request:
    size = payload.size if payload is not None else 0
    # Some front-ends send their whole structure with a question that has no payload.
    return Request(number, name, size, max(size, ONE_REGION.size), answered=True)


REQUESTS = {
    each.number: each
    for each in (
        _question(1, "GET_FEATURES"),
        _row(2, "SET_FEATURES", U64),
        _row(3, "SET_OWNER", None),
        _row(4, "RESET_OWNER", None),
        Request(
            5,
            "SET_MEM_TABLE",
            TABLE.size,
            TABLE.size + TABLE_REGIONS * REGION.size,
            TABLE_REGIONS,
        ),
        _row(8, "SET_VRING_NUM", RING_STATE),
        _row(9, "SET_VRING_ADDR", RING_PLACE),
        _row(10, "SET_VRING_BASE", RING_STATE),
        _question(11, "GET_VRING_BASE", RING_STATE),
        _row(12, "SET_VRING_KICK", U64, 1),
        _row(13, "SET_VRING_CALL", U64, 1),
        _row(14, "SET_VRING_ERR", U64, 1),
        _question(15, "GET_PROTOCOL_FEATURES"),
        _row(16, "SET_PROTOCOL_FEATURES", U64),
        _question(17, "GET_QUEUE_NUM"),
        _row(18, "SET_VRING_ENABLE", RING_STATE),
        _row(21, "SET_BACKEND_REQ_FD", None, 1),
        _question(36, "GET_MAX_MEM_SLOTS"),
        _row(37, "ADD_MEM_REG", ONE_REGION, 1),
        _row(38, "REM_MEM_REG", ONE_REGION),
    )
}
"""Every message that is understood, by its number."""

MOST_PAYLOAD = 4096
"""Longest payload that is read at all: a message that is not understood is skipped, and none that a front-end
sends of its own accord is half as long."""

MOST_DESCRIPTORS = 32
"""That are taken with a message, to be closed if it may not have them."""

VIRTIO_NET_CSUM = 0
VIRTIO_NET_GUEST_CSUM = 1
VIRTIO_NET_GUEST_TSO4 = 7
VIRTIO_NET_GUEST_TSO6 = 8
VIRTIO_NET_GUEST_ECN = 9
VIRTIO_NET_HOST_TSO4 = 11
VIRTIO_NET_HOST_TSO6 = 12
VIRTIO_NET_HOST_ECN = 13
VIRTIO_NET_MRG_RXBUF = 15
VIRTIO_RING_INDIRECT_DESC = 28
VIRTIO_RING_EVENT_IDX = 29
VHOST_USER_PROTOCOL_FEATURES = 30
VIRTIO_VERSION_1 = 32
VIRTIO_NET_GUEST_USO4 = 54
VIRTIO_NET_GUEST_USO6 = 55
VIRTIO_NET_HOST_USO = 56

FEATURES = sum(
    1 << bit
    for bit in (
        VIRTIO_NET_CSUM,
        VIRTIO_NET_GUEST_CSUM,
        VIRTIO_NET_GUEST_TSO4,
        VIRTIO_NET_GUEST_TSO6,
        VIRTIO_NET_GUEST_ECN,
        VIRTIO_NET_HOST_TSO4,
        VIRTIO_NET_HOST_TSO6,
        VIRTIO_NET_HOST_ECN,
        VIRTIO_NET_MRG_RXBUF,
        VIRTIO_RING_INDIRECT_DESC,
        VIRTIO_RING_EVENT_IDX,
        VHOST_USER_PROTOCOL_FEATURES,
        VIRTIO_VERSION_1,
        VIRTIO_NET_GUEST_USO4,
        VIRTIO_NET_GUEST_USO6,
        VIRTIO_NET_HOST_USO,
    )
)
"""What is offered. None is demanded: a legacy driver goes without VERSION_1, since its rings look the same,
and one without mergeable buffers gets what fits into one.

Not offered: STATUS, MAC, MTU, CTRL_VQ, MQ, GUEST_ANNOUNCE, which are the front-end's to offer (with STATUS,
a front-end that cannot ask for the configuration reads "link down" and never sends: User-Mode Linux). UFO,
which is obsolete and needs fragments of IP. Packed rings, IN_ORDER, IOMMU_PLATFORM, RING_RESET and
NOTIFY_DATA: all drivers do without. LOG_ALL: there is no dirty log, and without it a front-end refuses to
migrate, in words. """

PROTOCOL_MQ = 0
PROTOCOL_REPLY_ACK = 3
PROTOCOL_BACKEND_REQ = 5
PROTOCOL_CONFIGURE_MEM_SLOTS = 15

PROTOCOL_FEATURES = sum(
    1 << bit for bit in (PROTOCOL_MQ, PROTOCOL_REPLY_ACK, PROTOCOL_BACKEND_REQ, PROTOCOL_CONFIGURE_MEM_SLOTS)
)
"""MQ, so that the number of pairs is asked for: one. REPLY_ACK, so that a region that cannot be mapped is
said so. BACKEND_REQ although nothing is ever sent over it: User-Mode Linux has no interface without. Memory
slots, so that memory can be plugged. Not offered: what would have to be answered for, and nobody needs."""

PAIRS = 1
SLOTS = MOST_REGIONS


class Message(NamedTuple):
    """A message as it came, its form checked."""

    request: Request
    needs_reply: bool
    payload: bytes
    descriptors: tuple[int, ...]


def payload_bytes(header: bytes) -> int:
    """Return how long the payload behind this header is. Raises PeerError: no front-end sends that."""
    number, flags, size = HEADER.unpack(header)
    if flags & VERSION_MASK != VERSION or flags & REPLY:
        raise PeerError(f"flags {flags:#x} are none of a vhost-user request")
    if size > MOST_PAYLOAD:
        raise PeerError(f"the VM's request {number} makes no sense: a payload of {size} bytes")
    return int(size)


def takes_descriptors(header: bytes, payload: bytes) -> bool:
    """Whether descriptors belong to this message; what comes with another is nobody's."""
    request = REQUESTS.get(HEADER.unpack(header)[0])
    if request is None or not request.descriptors:
        return False
    if request.number in RING_ENDS and len(payload) == U64.size:
        return not U64.unpack(payload)[0] & NO_DESCRIPTOR
    return True


def parse(header: bytes, payload: bytes, descriptors: tuple[int, ...]) -> Message | int:
    """Return the message, or the number of a request that is not understood. Raises PeerError."""
    number, flags, _ = HEADER.unpack(header)
    request = REQUESTS.get(number)
    if request is None:
        return int(number)
    if not request.least <= len(payload) <= request.most:
        raise senseless(request, f"a payload of {len(payload)} bytes")
    if len(descriptors) > request.descriptors:
        raise senseless(request, f"{len(descriptors)} descriptors")
    return Message(request, bool(flags & NEED_REPLY), payload, descriptors)


def answer(number: int, payload: bytes) -> bytes:
    """Return the bytes of a reply."""
    return HEADER.pack(number, VERSION | REPLY, len(payload)) + payload


def senseless(request: Request, why: str) -> PeerError:
    """Return the error that ends a session: the front-end's mistake, with the message that it made it in."""
    return PeerError(f"the VM's {request.name} makes no sense: {why}")
