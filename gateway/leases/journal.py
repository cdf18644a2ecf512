"""Save leases on disk for the next gateway: a line for each change; the last line of an address counts.

A line is written by one call, so a gateway that is killed loses nothing that it has told a guest. Times are
monotonic, which is the same clock for all processes until the machine starts again.

    bound 52:54:00:00:00:0a 192.168.127.57 3 17 5023.250 web     state, MAC, address, port, born, ends, name

There are two files, both opened at the start, since a gateway in its cell can open and rename none. When the
file in use has several times as many lines as there are leases, all leases are written into the other one,
with a last line ``whole N``, and that is in use from then on. Of two files the one with the higher N counts;
one without that line was not finished, and counts only where there is no other.
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from ipaddress import IPv4Address

from forwarder.errors import LocalError
from forwarder.names import format_mac, parse_mac
from gateway.leases.lease import LEASE_S, Lease, LeaseState
from gateway.ports import Port

NONE = "-"
"""Stands for an empty name."""

WHOLE = "whole"

SLACK = 1024
GROWTH = 4
"""Lines for each lease, and ``SLACK`` more, before the leases are written anew."""


class Journal:
    """The files. If they cannot be written, leases outlive the gateway by their computed addresses only."""

    def __init__(self, path: str) -> None:
        """Open both files: ``path``, and the same with ``.2``."""
        self._lines = 0
        self._number = 0
        """How often all leases were written anew."""
        self._files: list[int] = []
        self.failed = ""
        """Why nothing is written any more."""
        try:
            for each in (path, f"{path}.2"):
                self._files.append(os.open(each, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            self.close()
            self.failed = error.strerror or str(error)

    def load(self, now: float) -> list[tuple[Lease, LeaseState, float]]:
        """Return the saved leases, each with its state and its end, in the order in which they end."""
        found: dict[str, tuple[Lease, LeaseState, float]] = {}
        texts = [_lines(file) for file in self._files]
        numbers = [_number(lines) for lines in texts]
        if len(texts) == 2 and numbers[1] > numbers[0]:
            self._files.reverse()
            texts.reverse()
        self._number = max(numbers, default=0)
        for line in texts[0] if texts else []:
            self._lines += 1
            with contextlib.suppress(ValueError, IndexError, LocalError):
                found[line.split()[2]] = _read(line, now)
        return sorted(found.values(), key=lambda entry: entry[2])

    def note(self, lease: Lease, others: Iterable[Lease], count: int) -> None:
        """Write a lease; ``others`` yields all ``count`` leases, for a new file."""
        self._lines += 1
        if not self._files:
            return
        try:
            if self._lines > SLACK + GROWTH * count:
                self._renew(others)
            elif not self.failed:
                _write(self._files[0], _line(lease))
        except OSError as error:
            self.failed = error.strerror or str(error)

    @property
    def may_recover(self) -> bool:
        """Whether a write has failed, which may succeed later: the disk was full."""
        return bool(self.failed and self._files)

    def write_again(self, leases: Iterable[Lease]) -> None:
        """Write all leases, after a failure."""
        with contextlib.suppress(OSError):
            self._renew(leases)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop())

    def _renew(self, leases: Iterable[Lease]) -> None:
        other = self._files[1]
        lines = [_line(lease) for lease in leases if lease.state in (LeaseState.BOUND, LeaseState.KEPT)]
        lines.append(f"{WHOLE} {self._number + 1}\n".encode())
        text = b"".join(lines)
        os.ftruncate(other, 0)
        _write(other, text)
        self._number += 1
        self._lines = len(lines)
        self._files.reverse()
        self.failed = ""


def _write(file: int, text: bytes) -> None:
    """Write all of it. Raises OSError."""
    if os.write(file, text) != len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lines(file: int) -> list[str]:
    with open(file, encoding="ascii", errors="replace", closefd=False) as text:
        return text.read().splitlines()


def _number(lines: list[str]) -> int:
    """Return which writing anew has made this file; 0: none."""
    found = [line.split() for line in lines if line.startswith(WHOLE)]
    return max((int(each[1]) for each in found if len(each) == 2 and each[1].isdecimal()), default=0)


def _line(lease: Lease) -> bytes:
    words = (
        lease.state.value,
        format_mac(lease.mac),
        str(IPv4Address(lease.address)),
        *map(str, lease.port),
        f"{lease.ends:.3f}",
        lease.name or NONE,
    )
    return f"{' '.join(words)}\n".encode()


def _read(line: str, now: float) -> tuple[Lease, LeaseState, float]:
    state, mac, address, number, born, ends, name = line.split()
    lease = Lease(parse_mac(mac), Port(int(number), int(born)), int(IPv4Address(address)))
    lease.name = "" if name == NONE else name
    return lease, LeaseState(state), min(float(ends), now + LEASE_S)
