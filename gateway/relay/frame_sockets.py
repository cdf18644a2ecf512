"""The packet sockets that receive guests' traffic to the outside: made in the namespace, read by the relay.

The switch knows a guest by the Ethernet source of its frames (``gateway.ports``), which IP sockets do not
show. So guests' traffic is not routed to the relay, but read where it comes in, by packet sockets on the
LAN's interface (packet(7)). A filter in the kernel (``program``) accepts only the packets that the relay
handles:

- packets of the LAN to the outside or to the host alias, of which TCP only the SYNs;
- fragments of packets to the gateway itself, which would fill the kernel's queue of all guests;
- packets whose source is not of the LAN, to count them.

The packet filter (``inside.nft``) drops the same packets in the kernel's own stack. There are ``SOCKETS`` of
them. A guest's address decides which one gets its frames (a fan-out by a second program): a guest that floods
fills the queue of one socket only.
"""

import contextlib
import os
import socket
import struct

from gateway.bpf import (
    AND,
    COPY_TO_X,
    ENDS,
    EQUAL,
    HEADER_LENGTH,
    JUMP,
    LINK,
    LOAD_BYTE,
    LOAD_BYTE_X,
    LOAD_HALF,
    LOAD_WORD,
    PACKET_TYPE,
    RETURN_A,
    SET,
    SHIFT_RIGHT,
    TO_US,
    VLAN_TAG,
    XOR_X,
    Step,
    attach,
)
from gateway.ip.packets import ICMP6_NUMBER
from gateway.relay.policy import OutboundPolicy

SOCKETS = 8

QUEUE_BYTES = 1 << 20
"""Bytes of frames that may wait in one socket; the kernel doubles this for its own needs. It holds 9 ms of
100,000 datagrams a second. Without root it is net.core.rmem_max: 2 ms with the default of Linux."""

_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_VNET_HDR, _PACKET_FANOUT, _PACKET_FANOUT_DATA, _PACKET_IGNORE_OUTGOING = (
    6,
    15,
    18,
    22,
    23,
)
_FANOUT_CBPF = 6
_ETH_P_ALL, _IP4, _IP6 = 0x0003, 0x0800, 0x86DD

_ETHERNET = 14
_SYN_ACK, _SYN = 0x12, 0x02
_TCP = 6
_FRAGMENT_HEADER = 44
_SOLICITATION = 135
_PART = 0x3FFF
"""Bits of an IPv4 packet that is a fragment."""


def open_all(interface: str, policy: OutboundPolicy) -> list[socket.socket]:
    """Return the sockets, made in the caller's network namespace. Raises OSError."""
    made: list[socket.socket] = []
    seen = program(policy)
    group = os.getpid() & 0xFFFF
    try:
        for _ in range(SOCKETS):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.append(sock)
            sock.setblocking(False)
            _enlarge(sock)
            attach(sock, seen)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            sock.bind((interface, _ETH_P_ALL))
            sock.setsockopt(_SOL_PACKET, _PACKET_FANOUT, struct.pack("=HH", group, _FANOUT_CBPF))
        attach(made[0], _BY_SOURCE, _SOL_PACKET, _PACKET_FANOUT_DATA)
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


def _enlarge(sock: socket.socket) -> None:
    """Set the size of a socket's queue, as far as the kernel allows."""
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, QUEUE_BYTES)
            return


def program(policy: OutboundPolicy) -> list[Step]:
    """Return the filter for the frames that the relay handles."""
    net, mask = int(policy.subnet.network_address), int(policy.subnet.netmask)
    prefix = struct.unpack(">2I", policy.prefix.network_address.packed[:8])
    alias = struct.unpack(">4I", policy.host6.packed)
    own = struct.unpack(">4I", policy.prefix[1].packed)
    return [
        (LOAD_WORD, VLAN_TAG, "", ""),  # of a priority alone, VLAN 0, makes no difference (IEEE 802.1Q)
        (AND, 0x0FFF, "", ""),
        (EQUAL, 0, "", "drop"),
        (LOAD_WORD, PACKET_TYPE, "", ""),
        (EQUAL, TO_US, "", "drop"),
        (LOAD_HALF, 12, "", ""),
        (EQUAL, _IP4, "four", ""),
        (EQUAL, _IP6, "six", "drop"),
        "four",
        (LOAD_WORD, 26, "", ""),
        (EQUAL, 0, "drop", ""),  # has no address yet
        (AND, mask, "", ""),
        (EQUAL, net, "", "take"),
        (LOAD_WORD, 30, "", ""),
        (EQUAL, int(policy.host4), "out4", ""),
        (EQUAL, int(policy.gateway4), "own4", ""),
        (AND, mask, "", ""),
        (EQUAL, net, "drop", ""),
        "out4",
        (LOAD_BYTE, 23, "", ""),
        (EQUAL, _TCP, "", "take"),
        (HEADER_LENGTH, _ETHERNET, "", ""),
        (LOAD_BYTE_X, _ETHERNET + 13, "", ""),
        (JUMP, 0, "flags", ""),
        "own4",
        (LOAD_HALF, 20, "", ""),
        (SET, _PART, "take", "drop"),
        "six",
        (LOAD_HALF, 22, "", ""),
        (EQUAL, 0, "drop", ""),  # has no address yet
        (AND, 0xFFC0, "", ""),
        (EQUAL, 0xFE80, "drop", ""),  # means neighbours only
        (LOAD_WORD, 22, "", ""),
        (EQUAL, prefix[0], "", "take"),
        (LOAD_WORD, 26, "", ""),
        (EQUAL, prefix[1], "", "take"),
        (LOAD_HALF, 38, "", ""),
        (AND, 0xFFC0, "", ""),
        (EQUAL, 0xFE80, "drop", ""),
        (LOAD_WORD, 38, "", ""),
        (EQUAL, prefix[0], "", "out6"),
        (LOAD_WORD, 42, "", ""),
        (EQUAL, prefix[1], "", "out6"),
        (LOAD_WORD, 46, "", ""),
        (EQUAL, alias[2], "", "drop"),  # and so has the gateway's own
        (LOAD_WORD, 50, "", ""),
        (EQUAL, alias[3], "out6", ""),
        (EQUAL, own[3], "", "drop"),
        (LOAD_BYTE, 20, "", ""),
        (EQUAL, _FRAGMENT_HEADER, "take", "drop"),
        "out6",
        (LOAD_BYTE, 20, "", ""),
        (EQUAL, _TCP, "segment6", ""),
        (EQUAL, ICMP6_NUMBER, "", "take"),
        (LOAD_BYTE, _ETHERNET + 40, "", ""),
        (EQUAL, _SOLICITATION, "drop", "take"),  # is for the kernel, which answers for the host alias
        "segment6",
        (LOAD_BYTE, _ETHERNET + 40 + 13, "", ""),
        "flags",
        (AND, _SYN_ACK, "", ""),
        (EQUAL, _SYN, "take", "drop"),
        *ENDS,
    ]


_BY_SOURCE: list[Step] = [
    # The last four bytes of the Ethernet source, mixed; the kernel takes the remainder by the number of
    # sockets.
    (LOAD_WORD, LINK + 8, "", ""),
    (COPY_TO_X, 0, "", ""),
    (SHIFT_RIGHT, 8, "", ""),
    (XOR_X, 0, "", ""),
    (COPY_TO_X, 0, "", ""),
    (SHIFT_RIGHT, 16, "", ""),
    (XOR_X, 0, "", ""),
    (RETURN_A, 0, "", ""),
]


def lost_since(sock: socket.socket) -> int:
    """Return how many frames a socket has lost since the last call."""
    try:
        _, lost = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    except OSError:  # the socket is closed
        return 0
    return int(lost)
