"""The kernel's filters for the gateway's packet sockets on the LAN, as BPF programs (``gateway.bpf``).

There is one for each socket: ``leases`` accepts DHCP, ``ipv4`` and ``ipv6`` accept DNS questions and the
first segment of a TCP connection to port 53, ``ipv6`` also router solicitations and a guest's probes for a
duplicate of its IPv6 address. So questions for names fill no queue that questions for leases need.
"""

from gateway.bpf import (
    ENDS,
    EQUAL,
    HEADER_LENGTH,
    JUMP,
    LOAD_BYTE,
    LOAD_BYTE_X,
    LOAD_HALF,
    LOAD_HALF_X,
    LOAD_WORD,
    PACKET_TYPE,
    SET,
    TO_OTHERS,
    Step,
)
from gateway.lan.frames import ICMPV6, NEIGHBOUR, SOLICITATION, TCP, UDP

DNS_PORT, DHCP_PORT = 53, 67
_SYN = 0x02
_FRAGMENT = 0x3FFF

_OF_THIS_LAN: list[Step] = [(LOAD_WORD, PACKET_TYPE, "", ""), (EQUAL, TO_OTHERS, "drop", "")]
"""First steps of a program. A frame of another VLAN looks like one of this LAN to a socket of one EtherType:
the kernel has taken the tag off, and says only that the frame is for others."""


def _whole_to(port: int) -> list[Step]:
    """Return the steps that drop fragments of IPv4, and what is not for this port of TCP or UDP."""
    return [
        (LOAD_HALF, 20, "", ""),
        (SET, _FRAGMENT, "drop", ""),
        (HEADER_LENGTH, 14, "", ""),
        (LOAD_HALF_X, 16, "", ""),
        (EQUAL, port, "", "drop"),
    ]


def leases() -> list[Step]:
    """Return the filter that accepts DHCP."""
    return [
        *_OF_THIS_LAN,
        *_whole_to(DHCP_PORT),
        (LOAD_BYTE, 23, "", ""),
        (EQUAL, UDP, "take", "drop"),
        *ENDS,
    ]


def ipv4(gateway: bytes) -> list[Step]:
    """Return the filter that accepts UDP and first segments of TCP to port 53 of ``gateway``."""
    return [
        *_OF_THIS_LAN,
        *_whole_to(DNS_PORT),
        (LOAD_WORD, 30, "", ""),
        (EQUAL, int.from_bytes(gateway, "big"), "", "drop"),
        (LOAD_BYTE, 23, "", ""),
        (EQUAL, UDP, "take", ""),
        (EQUAL, TCP, "", "drop"),
        (LOAD_BYTE_X, 14 + 13, "", ""),
        (SET, _SYN, "take", "drop"),
        *ENDS,
    ]


def ipv6(gateway: bytes) -> list[Step]:
    """Return the filter for router solicitations, and UDP and TCP openings to port 53 of ``gateway``."""
    return [
        *_OF_THIS_LAN,
        (LOAD_BYTE, 20, "", ""),
        (EQUAL, ICMPV6, "icmp", ""),
        (EQUAL, UDP, "port", ""),
        (EQUAL, TCP, "", "drop"),
        (LOAD_BYTE, 54 + 13, "", ""),
        (SET, _SYN, "port", "drop"),
        "icmp",
        (LOAD_BYTE, 54, "", ""),
        (EQUAL, SOLICITATION, "take", ""),
        (EQUAL, NEIGHBOUR, "", "drop"),
        *_is_at(22, bytes(16)),
        (JUMP, 0, "take", ""),
        "port",
        (LOAD_HALF, 56, "", ""),
        (EQUAL, DNS_PORT, "", "drop"),
        *_is_at(38, gateway),
        (JUMP, 0, "take", ""),
        *ENDS,
    ]


def _is_at(offset: int, address: bytes) -> list[Step]:
    """Return the steps that drop a frame without ``address`` at this offset."""
    steps: list[Step] = []
    for at in range(0, len(address), 4):
        steps.append((LOAD_WORD, offset + at, "", ""))
        steps.append((EQUAL, int.from_bytes(address[at : at + 4], "big"), "", "drop"))
    return steps
