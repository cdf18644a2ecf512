"""Ask the namespace's kernel for the neighbours of the LAN, and for the number of packets that it dropped.

Both are asked over netlink sockets (netlink(7)) that are opened before the process enters its cell, where it
can neither open a socket of that kind nor start ``nft``. A library would do both, so the few bytes of each
question are written here; the answers are attributes of 4-byte alignment, a length and a type before each.

    neighbours   RTM_GETNEIGH, a dump (rtnetlink(7)): each answer is a struct ndmsg and attributes
    flooded      NFT_MSG_GETOBJ (linux/netfilter/nf_tables.h): the counter's attributes, numbers big-endian.
                 Two tables have one (``limits``, ``nft``)
"""

import socket
import struct
from collections.abc import Iterator

from forwarder.errors import LocalError
from gateway.inside.interfaces import LAN
from gateway.inside.limits import COUNTER, TABLE

ANSWER_BYTES = 1 << 16
"""More than the kernel puts into one message."""

IPV4_BYTES = 4

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")  # length, type

_NETFILTER = 12
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_GET_NEIGHBOURS, _NEW_NEIGHBOUR = 30, 28
_ADDRESS, _MAC = 1, 2
_GET_OBJECT, _NEW_OBJECT = 10 << 8 | 19, 10 << 8 | 18
_INET, _NETDEV = 1, 5
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4
_IS_COUNTER = b"\0\0\0\1"
_PACKETS = 2
_TYPE_BITS = 0x3FFF


class Kernel:
    """The two sockets."""

    def __init__(self) -> None:
        """Open them. Raises LocalError."""
        try:
            self._index = socket.if_nametoindex(LAN)
            self._route = _open(socket.NETLINK_ROUTE)
            self._filter = _open(_NETFILTER)
        except OSError as error:
            raise LocalError(f"cannot ask the gateway's namespace: {error.strerror}") from None

    def neighbours(self) -> list[list[str]]:
        """Return the stations of the LAN: IP address, and digits of the MAC address. Raises LocalError."""
        found = []
        for kind, body in _ask(self._route, _GET_NEIGHBOURS, _DUMP, _NEIGHBOUR.pack(0, 0, 0, 0, 0)):
            if kind == _NEW_NEIGHBOUR and _NEIGHBOUR.unpack_from(body)[1] == self._index:
                said = dict(_attributes(body[_NEIGHBOUR.size :]))
                address, mac = said.get(_ADDRESS), said.get(_MAC)
                if address and mac:
                    family = socket.AF_INET if len(address) == IPV4_BYTES else socket.AF_INET6
                    found.append([socket.inet_ntop(family, address), mac.hex()])
        return found

    def flooded(self) -> int:
        """Return how many packets have been dropped as floods, on arrival or later. Raises LocalError."""
        return sum(self._counted(family) for family in (_NETDEV, _INET))

    def _counted(self, family: int) -> int:
        question = struct.pack(">BBH", family, 0, 0) + b"".join(
            _attribute(kind, value)
            for kind, value in (
                (_OBJECT_TABLE, f"{TABLE}\0".encode()),
                (_OBJECT_NAME, f"{COUNTER}\0".encode()),
                (_OBJECT_TYPE, _IS_COUNTER),
            )
        )
        for kind, body in _ask(self._filter, _GET_OBJECT, 0, question):
            if kind == _NEW_OBJECT:
                counter = dict(_attributes(dict(_attributes(body[4:]))[_OBJECT_DATA]))
                return int.from_bytes(counter[_PACKETS], "big")
        raise LocalError("the kernel does not say how many packets it has dropped")


def _open(protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    sock.bind((0, 0))
    return sock


def _ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the body of each message of the answer. Raises LocalError."""
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 0, 0) + body)
    done = False
    while not done:
        data = sock.recv(ANSWER_BYTES)
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            message, data = data[_HEADER.size : length], data[_align(length) :]
            done = kind == _DONE or not flags & _DUMP
            if kind == _ERROR:
                raise LocalError(f"the namespace's kernel refused a question: error {-_number(message)}")
            yield kind, message


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _TYPE_BITS, data[_ATTRIBUTE.size : length]
        data = data[max(_align(length), _ATTRIBUTE.size) :]


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _align(length: int) -> int:
    return max(length + 3 & ~3, 4)


def _number(message: bytes) -> int:
    return int.from_bytes(message[:4], "little", signed=True)
