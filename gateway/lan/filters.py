"""What the gateway's packet sockets hear of the LAN, as programs for the kernel (``gateway.bpf``).

Each takes one IP version: questions for a lease or a name, the first segment of a TCP connection to port
53, router solicitations, and what a guest sends to try out an
IPv6 address of its own.
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
    SET,
    Step,
)
from gateway.lan.frames import ICMPV6, NEIGHBOUR, SOLICITATION, TCP, UDP

DNS_PORT, DHCP_PORT = 53, 67
_SYN = 0x02
_FRAGMENT = 0x3FFF


def ipv4(gateway: bytes) -> list[Step]:
    """Return what takes DHCP, and UDP and the first segments of TCP to port 53 of ``gateway``."""
    return [
        (LOAD_HALF, 20, "", ""),
        (SET, _FRAGMENT, "drop", ""),
        (HEADER_LENGTH, 14, "", ""),
        (LOAD_HALF_X, 16, "", ""),
        (EQUAL, DHCP_PORT, "dhcp", ""),
        (EQUAL, DNS_PORT, "", "drop"),
        (LOAD_WORD, 30, "", ""),
        (EQUAL, int.from_bytes(gateway, "big"), "", "drop"),
        (LOAD_BYTE, 23, "", ""),
        (EQUAL, UDP, "take", ""),
        (EQUAL, TCP, "", "drop"),
        (LOAD_BYTE_X, 14 + 13, "", ""),
        (SET, _SYN, "take", "drop"),
        "dhcp",
        (LOAD_BYTE, 23, "", ""),
        (EQUAL, UDP, "take", "drop"),
        *ENDS,
    ]


def ipv6(gateway: bytes) -> list[Step]:
    """Return what takes router solicitations, and UDP and first segments of TCP to port 53 of ``gateway``."""
    return [
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
    """Return what drops frames that do not have ``address`` there."""
    steps: list[Step] = []
    for at in range(0, len(address), 4):
        steps.append((LOAD_WORD, offset + at, "", ""))
        steps.append((EQUAL, int.from_bytes(address[at : at + 4], "big"), "", "drop"))
    return steps
