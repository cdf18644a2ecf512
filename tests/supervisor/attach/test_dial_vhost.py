"""A path that is dialled: until a VM listens there, and again whenever it has gone."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisor.attach.addresses import Listen, PortOptions
from supervisor.attach.dial_vhost import REDIAL_S, VhostDialer
from tests.helpers.fakes import FakeOwner

NEVER = float("inf")
VAIN = "the VM closed the link before a driver used it (a port has one pair of queues)"


class Bench:
    """A dialler, and the VM that it is for; ``turn`` lets time pass until the next dial."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = FakeOwner()
        self.address = Listen("dial_vhost", f"unix://{path}", str(path))
        self.dialer = VhostDialer(
            Listen("dial_vhost", f"unix://{path}", str(path)), PortOptions(), self.owner
        )
        self.vm: socket.socket | None = None
        self.now = 1000.0

    def listen(self) -> socket.socket:
        self.hang_up()
        self.path.unlink(missing_ok=True)
        self.vm = socket.socket(socket.AF_UNIX)
        self.vm.setblocking(False)
        self.vm.bind(str(self.path))
        self.vm.listen(8)
        return self.vm

    def hang_up(self) -> None:
        if self.vm is not None:
            self.vm.close()

    def turn(self) -> None:
        self.now = max(self.now, self.dialer.deadline())
        self.dialer.tick(self.now)

    def close(self) -> None:
        self.hang_up()
        self.owner.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "vm.sock")
    yield made
    made.close()


def is_dialled(vm: socket.socket) -> bool:
    """Whether a connection waits, which is taken."""
    try:
        vm.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_it_dials_until_somebody_listens_and_not_all_the_time(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        bench.turn()
        assert bench.dialer.deadline() == bench.now + REDIAL_S
    bench.listen()
    bench.hang_up()  # its file is left, and nobody answers
    bench.turn()
    vm = bench.listen()
    bench.dialer.tick(bench.now + REDIAL_S / 2)
    assert not is_dialled(vm)
    assert not caplog.records, "a VM that is not there yet is not worth a line"
    bench.turn()
    assert is_dialled(vm)
    assert [record.transport for record, _ in bench.owner.arrived] == ["vhost"]
    assert bench.dialer.deadline() == NEVER
    bench.dialer.tick(bench.now + 10)
    assert not is_dialled(vm), "one path, one VM"


def test_it_dials_again_whenever_the_vm_has_gone(bench: Bench) -> None:
    for number in range(1, 4):
        vm = bench.listen()
        bench.turn()
        assert is_dialled(vm)
        assert bench.dialer.port == bench.owner.arrived[-1][0].id
        bench.hang_up()
        bench.owner.released.add(bench.owner.arrived[-1][0].id)
        bench.dialer.released()
        bench.turn()
        assert bench.dialer.deadline() == bench.now + REDIAL_S
        assert len(bench.owner.arrived) == number


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("flags 0x5448202f are not those of a request", "speaks another protocol than vhost-user"),
        (VAIN, VAIN),
    ],
)
def test_a_process_that_ends_each_link_at_once_is_dialled_less_and_less_often(
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
    said: str,
) -> None:
    assert dials(bench, monkeypatch, reason, after=0.9)[2:] == [1.0, 2.0]
    assert f"{said}, again and again. It is dialled again in 1 s" in caplog.text


@pytest.mark.parametrize(("reason", "after"), [(VAIN, 1.1), ("the VM closed the link", 0.1)])
def test_a_vm_that_was_served_is_dialled_again_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reason: str, after: float
) -> None:
    assert max(dials(bench, monkeypatch, reason, after)) <= REDIAL_S


def dials(bench: Bench, monkeypatch: pytest.MonkeyPatch, reason: str, after: float) -> list[float]:
    """End four links for a reason, each after some seconds; return the pauses until the next dials."""
    now = time.monotonic()
    monkeypatch.setattr("supervisor.attach.dial_vhost.time", SimpleNamespace(monotonic=lambda: now))
    vm = bench.listen()
    pauses = []
    for _ in range(4):
        now = max(now, bench.dialer.deadline())
        bench.dialer.tick(now)
        assert is_dialled(vm)
        now += after
        bench.owner.released.add(bench.owner.arrived[-1][0].id)
        bench.dialer.ended(bench.owner.arrived[-1][0].id, reason)
        bench.dialer.released()
        pauses.append(bench.dialer.deadline() - now)
    return pauses


def test_a_vm_that_is_refused_is_hung_up_on_and_dialled_later(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    vm = bench.listen()
    bench.owner.refuse = "there are enough"
    bench.turn()
    connection = vm.accept()[0]
    connection.settimeout(0)
    assert connection.recv(1) == b""
    connection.close()
    assert "its VM was refused: there are enough" in caplog.text
    bench.owner.refuse = ""
    bench.turn()
    assert is_dialled(vm)


def test_what_is_no_socket_is_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.path.parent.joinpath("file").write_text("")
    bench.dialer = VhostDialer(
        Listen("dial_vhost", "unix:///file", f"{bench.path.parent}/file/vm.sock"), PortOptions(), bench.owner
    )
    bench.turn()
    assert "cannot be dialled: Not a directory" in caplog.text
    assert bench.dialer.deadline() == bench.now + REDIAL_S


def test_one_that_a_worker_brought_back_is_not_dialled_before_it_has_gone(bench: Bench) -> None:
    vm = bench.listen()
    record = bench.owner.arrive("vhost", socket.socket(socket.AF_UNIX).detach(), PortOptions(), "")
    bench.dialer = VhostDialer.adopted(bench.address, record, bench.owner)
    bench.dialer.tick(bench.now)
    assert not is_dialled(vm)
    bench.dialer.released()
    bench.turn()
    assert is_dialled(vm)
