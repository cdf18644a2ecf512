"""Save leases on disk for the next gateway: a line for each change; the last line of an address counts.

One call writes one line, so a killed gateway loses no lease that a guest has heard of. Times are monotonic:
all processes share this clock until the machine restarts. When the file has several times as many lines as
there are leases, a new file is written and replaces it.

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
"""Stands for an empty name."""

SLACK = 1024
GROWTH = 4
"""The file is rewritten beyond this many lines for each lease, and ``SLACK`` more."""


class Journal:
    """The journal file. If it cannot be written, only computed addresses survive a restart of the gateway."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines = 0
        self._file = -1
        self.failed = ""
        """The error that stopped the journal; "" while it works."""

    def load(self, now: float) -> list[tuple[Lease, State, float]]:
        """Return the saved leases, each with its state and its end, in the order in which they end."""
        found: dict[str, tuple[Lease, State, float]] = {}
        with contextlib.suppress(OSError):
            for line in _lines(self._path):
                self._lines += 1
                with contextlib.suppress(ValueError, IndexError, LocalError):
                    found[line.split()[2]] = _read(line, now)
        return sorted(found.values(), key=lambda entry: entry[2])

    def note(self, lease: Lease, others: Iterable[Lease], count: int) -> None:
        """Write a lease; ``others`` yields all ``count`` leases, for a new file."""
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
