"""Kinds of numbers on the command line, for argparse: a wrong one is refused before anything is started."""

from __future__ import annotations

import argparse

from forwarder.names import MAX_PORTS
from tests.helpers.guests.netns import MAX_TAP_MTU

# A frame of the load generator carries more than a header (load/load.h).
SMALLEST_FRAME, LARGEST_FRAME = 34, 65_550


def count(text: str) -> int:
    """Return how many there are to be of something: 1 or more."""
    return _whole(text, 1, 1_000_000)


def vms(text: str) -> int:
    """Return a number of VMs that fits on a switch, with one to watch them."""
    return _whole(text, 1, MAX_PORTS - 2)


def frame_size(text: str) -> int:
    """Return the length of a frame in bytes."""
    return _whole(text, SMALLEST_FRAME, LARGEST_FRAME)


def mtu(text: str) -> int:
    """Return an MTU that a TAP takes."""
    return _whole(text, 576, MAX_TAP_MTU)


def streams(text: str) -> int:
    """Return a number of streams that iperf3 takes."""
    return _whole(text, 1, 128)


def senders(text: str) -> int:
    """Return a number of VMs that send to one."""
    return _whole(text, 2, 64)


def frame_rate(text: str) -> int:
    """Return frames a second; 0 stands for no limit."""
    return _whole(text, 0, 100_000_000)


def seconds(text: str) -> float:
    """Return a time in seconds."""
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text}: seconds, more than 0 and at most a day")
    return value


def _whole(text: str, least: int, most: int) -> int:
    value = int(text)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is not from {least:,} to {most:,}")
    return value
