"""Faults between two VMs, each with the command that finds it, the words that name it, and its exit status.

The table of docs/operating.md is this one. tests/system/operators makes each of them: test_faults.py and
test_outside_faults.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

PAIR = "supervisor explain web db"
OUTSIDE = "supervisor explain web 203.0.113.9"


class Fault(NamedTuple):
    """How a fault is found."""

    command: str
    words: str
    """In the first line of the answer."""
    status: int
    """Exit status: 1: the two cannot reach each other."""


FAULTS = {
    "two VMs have one MAC address": Fault(
        PAIR, "is a duplicate MAC address: VMs behind db and thief use it", 1
    ),
    "a VM sends from an address that is not its own": Fault(
        PAIR, "web sends from a MAC address that is not pinned to it", 1
    ),
    "isolation": Fault(PAIR, "web is isolated, and db is not in its reach", 1),
    "isolation on one side only": Fault(PAIR, "db is isolated, and web is not in its reach", 1),
    "another subnet": Fault(PAIR, "web uses 10.99.0.1 and db 10.77.0.2, which are in different subnets", 1),
    "MTUs that differ": Fault(PAIR, "web sends frames of up to 1,514 bytes, and db none above 1,410", 0),
    "a black hole for long packets": Fault(PAIR, "they were longer than its MTU of 1280", 0),
    "a filter in the guest": Fault(
        PAIR, "nothing but ARP answers has come back: a filter in the guest of db", 1
    ),
    "a filter that came later": Fault(PAIR, "a filter in the guest of db, or it has no route back", 0),
    "a VM that reads too slowly": Fault(
        PAIR,
        "frames for db were lost in the last minute (egress_full): its VM reads more slowly",
        0,
    ),
    "a VM that asks the gateway too much": Fault(
        OUTSIDE, "web asks the gateway for more names, leases or connections than its share", 0
    ),
    "a guest that answers no ARP": Fault(
        "supervisor explain web 10.99.0.2",
        "and db does not answer: its guest filters ARP, or its interface is down",
        1,
    ),
    "a VM that never sends": Fault(PAIR, "the VM of db has sent nothing yet", 0),
    "a VM that takes no frames": Fault(PAIR, "db is stalled: its VM takes no frames", 1),
    "a VM that has left": Fault(PAIR, "db: its VM left", 1),
    "more broadcasts than the limit": Fault(PAIR, "ARP among them (storm)", 1),
    "a full table of MAC addresses": Fault(PAIR, "uses more MAC addresses than its limit-macs of 1", 1),
    "a port parked after crashes": Fault(PAIR, "db is parked: it lost too many workers", 1),
    "no lease": Fault(OUTSIDE, "web has no lease from the gateway", 0),
    "a wrong gateway in the guest": Fault(
        OUTSIDE, "the gateway is 192.168.127.1: the guest's route is wrong", 1
    ),
    "no route in the guest": Fault(
        OUTSIDE,
        "web has sent nothing to the gateway: its guest has no route to there, or has not tried yet",
        0,
    ),
    "refused by policy": Fault(
        OUTSIDE, "the gateway refuses 203.0.113.9 (denied): --deny names a network", 1
    ),
    "a gateway that hangs": Fault(OUTSIDE, "the gateway is silent: it does not answer", 1),
    "a gateway that was killed": Fault(OUTSIDE, "the gateway was ended by SIGKILL", 0),
    "two DHCP servers": Fault(OUTSIDE, "web sends DHCP answers, as a second DHCP server does", 0),
    "a firewall on the host": Fault(
        "supervisor explain web 198.51.100.2:9",
        "this host gets no answer from there either: a firewall of this host or beyond drops it",
        1,
    ),
    "no route on the host": Fault(
        OUTSIDE, "this host has no way to there either (network is unreachable)", 1
    ),
    "nothing listens at the far end": Fault(
        "supervisor explain web 198.51.100.2:1", "the far end refuses connections", 1
    ),
    "one IP address at two VMs": Fault(
        PAIR, "10.99.0.1 is a duplicate IP address: VMs behind db and web use it", 1
    ),
    "IPv6 on one side, IPv4 on the other": Fault(
        PAIR, "web uses IPv6 only (fd00::1), and db IPv4 only (10.99.0.2): no address fits", 1
    ),
    "VLANs that differ": Fault(
        PAIR, "web sends in VLAN 10 and db without a VLAN tag: their guests' VLANs differ", 1
    ),
    "a VM that is paused": Fault(
        PAIR, "the VM of db has read and sent nothing for 5 s, and frames wait in its socket", 1
    ),
    "a VM with vhost-user that is paused": Fault(
        PAIR,
        "none has come back: its VM is paused (which vhost-user does not show), a filter in the guest of db",
        1,
    ),
    "a VM at its bandwidth limit": Fault(
        PAIR, "of its limit-bandwidth of 8 Mbit/s, so its VM has to wait", 0
    ),
    "a netmask that is too wide": Fault(
        OUTSIDE, "which is outside of 192.168.127.0/24: its netmask is too wide", 1
    ),
    "resolvers of the host that do not answer": Fault(
        OUTSIDE, "no resolver of this host answered VMs' questions for names", 0
    ),
    "a VM to which no forward leads": Fault("supervisor explain host web", "no forward leads to web", 0),
    "a forward to a port where no program listens": Fault(
        "supervisor explain host 192.168.127.2:81",
        "port 81 of 192.168.127.2 refused a connection: no program listens there in the guest",
        1,
    ),
}
"""By the fault."""


def named(
    running: Switch, fault: str, names: dict[str, str] | None = None, again: Callable[[], object] = int
) -> str:
    """Wait until the command of a fault says its words in the first line; return the line.

    ``names``: how ports are called here. ``again`` is done between two questions.
    """
    command, words, status = FAULTS[fault]
    for ours, theirs in (names or {}).items():
        command, words = (re.sub(rf"\b{ours}\b", theirs, text) for text in (command, words))
    last = ""

    def is_named() -> bool:
        nonlocal last
        again()
        done = running.command("explain", *command.split()[2:], check=False)
        last = f"{done.returncode}: {done.stdout}"
        return done.returncode == status and words in done.stdout.split("\n", 1)[0]

    wait_for(is_named, lambda: f"{status}: {words!r} in {last!r}")
    return last.split("\n", 1)[0]
