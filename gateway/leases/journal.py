"""The leases on disk, for the next gateway: a line for each change, and the last line of an address counts.

A line is written by one call, so a gateway that is killed loses nothing that it has told a guest. Times are
monotonic, which is the same clock for all processes until the machine starts again. When the file has several
times as many lines as there are leases it is written anew, beside the old one and then in its place.

    bound 52:54:00:00:00:0a 192.168.127.57 3 17 5023.250 web     state, MAC, address, port, born, ends, name
"""

import contextlib
import os
from collections.abc import Iterable
from ipaddress import IPv4Address

from forwarder.errors import LocalError
from forwarder.names import format_mac, parse_mac
from gateway.leases.table import LEASE_S, Lease, State
from gateway.ports import Port

NONE = "-"
"""Stands for no name."""

SLACK = 1024
GROWTH = 4
"""Lines for each lease, and ``SLACK`` more, before the file is written anew."""


class Journal:
    """The file. If it cannot be written, leases outlive the gateway by their computed addresses only."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines = 0
        self._file = -1
        self.failed = ""
        """Why nothing is written any more."""

    def load(self, now: float) -> list[tuple[Lease, State, float]]:
        """Return what is there: each lease with its state and its end, in the order in which they end."""
        found: dict[str, tuple[Lease, State, float]] = {}
        with contextlib.suppress(OSError):
            for line in _lines(self._path):
                self._lines += 1
                with contextlib.suppress(ValueError, IndexError, LocalError):
                    found[line.split()[2]] = _read(line, now)
        return sorted(found.values(), key=lambda entry: entry[2])

    def note(self, lease: Lease, others: Iterable[Lease], count: int) -> None:
        """Write a lease down; ``others`` are all ``count`` leases there are."""
        self._lines += 1
        try:
            if self._lines > SLACK + GROWTH * count:
                self._renew(others)
            elif not self.failed:
                if self._file < 0:
                    self._file = os.open(
                        self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
                    )
                os.write(self._file, _line(lease))
        except OSError as error:
            self.failed = error.strerror or str(error)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _renew(self, leases: Iterable[Lease]) -> None:
        self.close()
        beside = f"{self._path}.new"
        lines = [_line(lease) for lease in leases if lease.state in (State.BOUND, State.KEPT)]
        self._lines = len(lines)
        with open(beside, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(b"".join(lines))
        os.replace(beside, self._path)
        self.failed = ""


def _lines(path: str) -> list[str]:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read().splitlines()


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


def _read(line: str, now: float) -> tuple[Lease, State, float]:
    state, mac, address, number, born, ends, name = line.split()
    lease = Lease(parse_mac(mac), Port(int(number), int(born)), int(IPv4Address(address)))
    lease.name = "" if name == NONE else name
    return lease, State(state), min(float(ends), now + LEASE_S)
