"""Faults between two VMs, each with the command that finds it and the words that name it.

The table of docs/operating.md is this one, and tests/system/operators/test_faults.py makes each of them.
"""

from __future__ import annotations

PAIR = "supervisor explain web db"
OUTSIDE = "supervisor explain web 203.0.113.9"

FAULTS = {
    "two VMs have one MAC address": (PAIR, "is a duplicate MAC address: VMs behind db and thief use it"),
    "a VM sends from an address that is not its own": (
        PAIR,
        "web sends from a MAC address that is not pinned to it",
    ),
    "isolation": (PAIR, "web is isolated, and db is not in its reach"),
    "isolation on one side only": (PAIR, "db is isolated, and web is not in its reach"),
    "another subnet": (PAIR, "web uses 10.99.0.1 and db 10.77.0.2, which are in different subnets"),
    "MTUs that differ": (PAIR, "web sends frames of up to 1,514 bytes, and db none above 1,410"),
    "a black hole for long packets": (PAIR, "they were longer than its MTU of 1280"),
    "a filter in the guest": (
        PAIR,
        "nothing longer than an ARP answer has come back: a filter in the guest of db",
    ),
    "a guest that answers no ARP": (
        "supervisor explain web 10.99.0.2",
        "and db does not answer: its guest filters ARP, or its interface is down",
    ),
    "a VM that never sends": (PAIR, "the VM of db has sent nothing yet"),
    "a VM that takes no frames": (PAIR, "db is stalled: its VM takes no frames"),
    "a VM that has left": (PAIR, "db: its VM left"),
    "more broadcasts than the limit": (PAIR, "ARP among them (storm)"),
    "a full table of MAC addresses": (PAIR, "uses more MAC addresses than its limit-macs of 1"),
    "a port parked after crashes": (PAIR, "db is parked: it lost too many workers"),
    "no lease": (OUTSIDE, "web has no lease from the gateway"),
    "a wrong gateway in the guest": (OUTSIDE, "the gateway is 192.168.127.1: the guest's route is wrong"),
    "no route in the guest": (
        OUTSIDE,
        "web has sent nothing to the gateway: its guest has no route to there",
    ),
    "refused by policy": (OUTSIDE, "the gateway refuses 203.0.113.9 (denied): --deny names a network"),
    "a gateway that hangs": (OUTSIDE, "the gateway is silent: it does not answer"),
    "a gateway that was killed": (OUTSIDE, "the gateway was ended by SIGKILL"),
    "two DHCP servers": (OUTSIDE, "web sends DHCP answers, as a second DHCP server does"),
    "a firewall on the host": (
        "supervisor explain web 198.51.100.2:9",
        "this host gets no answer from there either: a firewall of this host or beyond drops it",
    ),
    "nothing listens at the far end": (
        "supervisor explain web 198.51.100.2:1",
        "the far end refuses connections",
    ),
}
"""By the fault: the command, and words of its first line."""
