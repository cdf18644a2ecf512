"""What a claim brings is looked at before anything changes: every descriptor that lies is refused."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder import _core
from forwarder._core import LAYOUT
from forwarder.channel import close_all
from forwarder.errors import PeerError
from forwarder.messages import Claim
from forwarder.names import FLOOD_BYTES, TRANSPORT_KIND, Cell, Identity, Policy, PortRecord
from supervisor.base.cells import CellPolicy
from supervisor.base.proc import start_time
from supervisor.fleet import claimed_fds
from supervisor.fleet.takeover import TakeOver
from supervisor.ports.registry import Registry
from supervisor.rings.fd_store import FdStore

CELL = Cell((), 0)
SELF = Identity(os.getpid(), start_time(os.getpid()))
SOCKETS = {
    "qemu": (socket.AF_UNIX, socket.SOCK_STREAM),
    "connect": (socket.AF_UNIX, socket.SOCK_STREAM),
    "bess": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "vfkit": (socket.AF_UNIX, socket.SOCK_DGRAM),
    "vhost": (socket.AF_UNIX, socket.SOCK_STREAM),
}


def record(transport: str = "qemu") -> PortRecord:
    return PortRecord(3, 7, 5, "vm", transport, Policy())


def detached(family: int, kind: int) -> int:
    return socket.socket(family, kind).detach()


def null() -> int:
    return os.open("/dev/null", os.O_RDWR)


def regular() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@pytest.fixture
def honest() -> Iterator[list[int]]:
    """What a worker of a qemu port brings."""
    made = [
        detached(*SOCKETS["qemu"]),
        _core.doorbell_create(),
        _core.doorbell_create(),
        _core.stats_page_create(),
        _core.flood_create(FLOOD_BYTES, 3, 7),
    ]
    yield made
    close_all(made)


def replace(descriptors: list[int], index: int, lie: int) -> None:
    os.close(descriptors[index])
    descriptors[index] = lie


@pytest.mark.parametrize("transport", SOCKETS)
def test_the_claim_of_a_worker_of_each_transport_is_accepted(honest: list[int], transport: str) -> None:
    replace(honest, 0, detached(*SOCKETS[transport]))
    claimed_fds.check(record(transport), tuple(honest), -1)
    claimed_fds.check(record(transport), tuple(honest), honest[2])


def test_a_vm_over_tcp_is_taken(honest: list[int]) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        replace(honest, 0, detached(family, socket.SOCK_STREAM))
        claimed_fds.check(record(), tuple(honest), -1)


LIES: list[tuple[str, int, Callable[[], int]]] = [
    *((transport, 0, null) for transport in (*SOCKETS, "tap", "gateway")),
    *((transport, 0, regular) for transport in (*SOCKETS, "tap", "gateway")),
    ("qemu", 0, lambda: detached(socket.AF_UNIX, socket.SOCK_DGRAM)),
    ("qemu", 0, lambda: detached(socket.AF_INET, socket.SOCK_DGRAM)),
    ("connect", 0, lambda: detached(socket.AF_INET, socket.SOCK_STREAM)),
    ("vfkit", 0, lambda: detached(socket.AF_INET, socket.SOCK_DGRAM)),
    ("vfkit", 0, lambda: detached(socket.AF_UNIX, socket.SOCK_STREAM)),
    ("bess", 0, lambda: detached(socket.AF_UNIX, socket.SOCK_DGRAM)),
    ("tap", 0, lambda: detached(socket.AF_UNIX, socket.SOCK_DGRAM)),
    ("vhost", 0, lambda: detached(socket.AF_INET, socket.SOCK_STREAM)),
    ("vhost", 0, lambda: detached(socket.AF_UNIX, socket.SOCK_SEQPACKET)),
    *(("qemu", index, null) for index in range(1, 5)),
    *(("qemu", index, regular) for index in range(1, 5)),
    ("qemu", 3, _core.doorbell_create),
    ("qemu", 4, lambda: os.memfd_create("unsealed")),
    ("qemu", 3, lambda: os.memfd_create("unsealed")),
]


@pytest.mark.parametrize(("transport", "index", "lie"), LIES)
def test_a_descriptor_that_lies_is_refused(
    honest: list[int], transport: str, index: int, lie: Callable[[], int]
) -> None:
    if transport in SOCKETS:
        replace(honest, 0, detached(*SOCKETS[transport]))
    replace(honest, index, lie())
    with pytest.raises(PeerError):
        claimed_fds.check(record(transport), tuple(honest), -1)


def test_a_flood_doorbell_that_the_others_do_not_sleep_on_is_refused(honest: list[int]) -> None:
    other = _core.doorbell_create()
    with pytest.raises(PeerError, match="not that of the other workers"):
        claimed_fds.check(record(), tuple(honest), other)
    os.close(other)


class Bench:
    """A takeover whose pool and listeners only note what they are asked."""

    def __init__(self, *, cell_required: bool = False) -> None:
        self.asked: list[str] = []
        self.processes = self.dialer = self
        self.registry, self.fd_store = Registry(), FdStore()
        parts: Any = self
        self.takeover = TakeOver(
            self.registry, self.fd_store, parts, parts, CellPolicy(required=cell_required)
        )

    def forget(self, *_: object) -> None:
        """Of the dialer."""

    def refuse(self, *_: object) -> None:
        self.asked.append("refuse")

    def adopt(self, *_: object) -> None:
        self.asked.append("adopt")

    def claim(self, descriptors: list[int]) -> bool:
        copies = tuple(os.dup(each) for each in descriptors)
        adopted, _ = self.takeover.adopt(Claim(LAYOUT, CELL, record()), SELF, copies, 1.0)
        if adopted is None:
            close_all(copies)
        return adopted is not None


def test_a_claim_of_a_process_that_is_not_waited_for_changes_nothing(
    honest: list[int], tmp_path: Path
) -> None:
    bench = Bench()
    assert not bench.claim(honest)
    bench.takeover.left = {SELF}
    bench.takeover.close(str(tmp_path))
    assert bench.asked == ["refuse"], "it had its time"
    assert not bench.claim(honest), "the window is closed"
    assert bench.asked == ["refuse"]
    assert not len(bench.registry)
    assert bench.fd_store.get(3) is None


def test_a_claim_with_a_lie_changes_nothing_and_an_honest_one_is_taken_once(honest: list[int]) -> None:
    bench = Bench()
    bench.takeover.left = {SELF}
    lying = [*honest[:3], honest[0], honest[4]]
    assert not bench.claim(lying)
    assert not bench.asked
    assert not len(bench.registry)
    bench.takeover.left = {SELF}
    assert bench.claim(honest)
    assert len(bench.registry) == 1
    assert not bench.claim(honest)
    bench.fd_store.close()


def test_a_worker_of_a_switch_that_required_no_cell_serves_none_that_does(
    honest: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(cell_required=True)
    bench.takeover.left = {SELF}
    assert not bench.claim(honest)
    assert "not taken over, a cell is required, and it lacks " in caplog.text
    assert not len(bench.registry)
    assert not bench.takeover.left, "nobody waits for it"


def test_every_transport_that_is_no_tap_is_known_by_its_socket() -> None:
    assert {*SOCKETS, "tap", "gateway"} == TRANSPORT_KIND.keys()
