"""The messages of vhost-user as a table, and the features that are offered.

The source is QEMU's docs/interop/vhost-user.rst. A message is a header of three numbers (request, flags,
bytes of payload), a payload, and descriptors. Numbers are little-endian, as are all machines that this runs
on. A row gives the form of a message. A message of another form is a mistake of the front-end and ends the
session.
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
"""Bit in the payload of kick, call and err: no descriptor comes with it."""
RING_MASK = 0xFF

RING_ENDS = (12, 13, 14)
"""Kick, call and err."""

TABLE_REGIONS = 8
"""Regions in SET_MEM_TABLE: the number of descriptors that a front-end may send with a message."""


class Request(NamedTuple):
    """The form of a message."""

    number: int
    name: str
    least: int = 0
    most: int = 0
    """Bytes of payload."""
    descriptors: int = 0
    """Most descriptors; the handler checks the number against the payload."""
    answered: bool = False
    """Whether it always has an answer, whatever its flags."""


def _row(number: int, name: str, payload: struct.Struct | None, descriptors: int = 0) -> Request:
    size = payload.size if payload is not None else 0
    return Request(number, name, size, size, descriptors)


def _question(number: int, name: str, payload: struct.Struct | None = None) -> Request:
    size = payload.size if payload is not None else 0
    # Some front-ends send their whole structure with a request without payload.
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
"""Every known message, by its number."""

MOST_PAYLOAD = 4096
"""The longest payload. An unknown message is skipped; no known front-end sends one half as long."""

MOST_DESCRIPTORS = 32
"""Descriptors accepted with a message; they are closed if the message may not have them."""

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
"""The offered features. None is required: a legacy driver works without VERSION_1, since its rings are the
same, and a driver without mergeable buffers gets frames that fit into one buffer.

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
"""The offered protocol features. MQ: the front-end asks for the number of pairs, which is one. REPLY_ACK: it
hears that a region cannot be mapped. BACKEND_REQ: User-Mode Linux has no interface without it, though nothing
is ever sent over it. Memory slots: memory can be plugged. Other features would need code that no front-end
needs."""

PAIRS = 1
SLOTS = MOST_REGIONS


class Message(NamedTuple):
    """A received message of the right form."""

    request: Request
    needs_reply: bool
    payload: bytes
    descriptors: tuple[int, ...]


def payload_bytes(header: bytes) -> int:
    """Return the length of the payload behind a header. Raises PeerError if the header makes no sense."""
    number, flags, size = HEADER.unpack(header)
    if flags & VERSION_MASK != VERSION or flags & REPLY:
        raise PeerError(f"flags {flags:#x} are not those of a vhost-user request")
    if size > MOST_PAYLOAD:
        raise PeerError(f"the VM's request {number} makes no sense: a payload of {size} bytes")
    return int(size)


def takes_descriptors(header: bytes, payload: bytes) -> bool:
    """Whether a message may have descriptors; otherwise they are closed."""
    request = REQUESTS.get(HEADER.unpack(header)[0])
    if request is None or not request.descriptors:
        return False
    if request.number in RING_ENDS and len(payload) == U64.size:
        return not U64.unpack(payload)[0] & NO_DESCRIPTOR
    return True


def parse(header: bytes, payload: bytes, descriptors: tuple[int, ...]) -> Message | int:
    """Return the message, or the number of an unknown request. Raises PeerError."""
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
    """Return the error that ends a session: the front-end's mistake, with the name of the message."""
    return PeerError(f"the VM's {request.name} makes no sense: {why}")
