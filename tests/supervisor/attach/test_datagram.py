"""The datagram listener: one VM, found by its first datagram, noticed when it dies, then the next."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forwarder.loop import Loop
from supervisor.attach.addresses import PortOptions, parse_listen
from supervisor.attach.datagram import VfkitListener
from tests.helpers.fakes import FakeOwner, reraise, turn_a_while, turn_until
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import PATIENCE


class Bench:
    """A listener, its owner and VMs in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = str(directory / "switch")
        self.loop = Loop(reraise)
        self.owner = FakeOwner()
        self.listener = VfkitListener(
            self.loop, parse_listen("vfkit", f"unixgram://{self.path}"), PortOptions(), self.owner
        )
        self._vms: list[socket.socket] = []
        self._workers: list[socket.socket] = []

    def vm(self, name: str | None = "vm", *, connected: bool = True) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.settimeout(PATIENCE)
        self._vms.append(sock)
        if name is not None:
            address = str(self.directory / name) if name[0] != "\0" else name
            if name[0] != "\0" and os.path.exists(address):
                os.unlink(address)
            sock.bind(address)
        if connected:
            sock.connect(self.path)
        return sock

    def until(self, condition: Callable[[], object]) -> None:
        turn_until(self.loop, condition, self.listener.tick)

    def taken(self, count: int = 1) -> socket.socket:
        """Wait for the port of the VM; return the descriptor that its worker would have."""
        self.until(lambda: len(self.owner.arrived) == count)
        sock = socket.socket(fileno=os.dup(self.owner.arrived[-1][1]))
        sock.settimeout(PATIENCE)
        self._workers.append(sock)
        return sock

    def release(self) -> None:
        """The port is gone, and so is every descriptor of it but the listener's own."""
        record, vm = self.owner.arrived[-1]
        self._workers[-1].close()
        os.close(vm)
        self.owner.arrived[-1] = (record, os.open("/dev/null", os.O_RDONLY))
        self.listener.released()

    def close(self) -> None:
        self.listener.close()
        self.owner.close()
        self.loop.close()
        for sock in [*self._vms, *self._workers]:
            sock.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with short_directory() as directory:
        made = Bench(directory)
        yield made
        made.close()
        assert not os.path.exists(made.path)


@pytest.mark.parametrize("greeting", [[], [b"VFKT"]])
def test_the_first_frame_is_left_for_the_worker_and_the_greeting_is_not(
    bench: Bench, greeting: list[bytes]
) -> None:
    vm = bench.vm()
    for data in [*greeting, b"VFKT and more", b"frame"]:
        vm.send(data)
    worker = bench.taken()
    assert worker.recv(100) == b"VFKT and more"
    assert worker.recv(100) == b"frame"
    worker.send(b"answer")
    assert vm.recv(100) == b"answer"


def test_connected_both_ways_a_pair_holds_far_more_than_eleven_frames(bench: Bench) -> None:
    vm = bench.vm()
    vm.send(b"x")
    worker = bench.taken()
    for sender in (vm, worker):
        sender.setblocking(False)
        for _ in range(100):
            sender.send(bytes(60))


def test_an_abstract_address_is_as_good(bench: Bench) -> None:
    vm = bench.vm(f"\0bulkhead-test-{os.getpid()}")
    vm.send(b"frame")
    bench.taken().send(b"answer")
    assert vm.recv(10) == b"answer"
    vm.close()
    bench.until(lambda: bench.owner.reports)


def test_a_sender_without_an_address_is_dropped_and_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = bench.vm(None)
    nobody.setblocking(False)
    sent = 0
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        try:
            nobody.send(b"frame")
            sent += 1
        except BlockingIOError:
            bench.loop.turn(0)
            bench.listener.tick(time.monotonic())
    assert not bench.owner.arrived
    assert caplog.text.count("without an address") == 1
    assert sent < 150, "no VM can set the pace of the loop"
    somebody = bench.vm()
    bench.until(lambda: try_to_send(somebody))
    bench.taken()


def try_to_send(vm: socket.socket, data: bytes = b"frame") -> bool:
    vm.setblocking(False)
    try:
        vm.send(data)
    except OSError:
        return False
    return True


def test_an_empty_datagram_is_no_vm(bench: Bench) -> None:
    vm = bench.vm()
    vm.send(b"")
    turn_a_while(bench.loop)
    assert not bench.owner.arrived
    vm.send(b"frame")
    bench.until(lambda: bench.owner.arrived)


def test_other_senders_get_no_frames_in(bench: Bench) -> None:
    vm = bench.vm("one")
    vm.send(b"frame")
    bench.taken()
    other = bench.vm("two", connected=False)
    with pytest.raises(PermissionError):
        other.sendto(b"x", bench.path)


VM_PROCESS = """
import socket, sys
vm = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
vm.bind(sys.argv[1])
vm.sendto(b"frame", sys.argv[2])
sys.stdin.read()
"""


def start_vm(bench: Bench, name: str) -> subprocess.Popen[bytes]:
    path = bench.directory / name
    path.unlink(missing_ok=True)
    argv = [sys.executable, "-c", VM_PROCESS, str(path), bench.path]
    return subprocess.Popen(argv, stdin=subprocess.PIPE)


def end_vm(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_killed_vm_is_noticed_at_once_by_its_process(bench: Bench) -> None:
    process = start_vm(bench, "vm")
    bench.taken()
    end_vm(process)
    turn_until(bench.loop, lambda: bench.owner.reports)  # no tick, so no probes
    ((port, reason),) = bench.owner.reports
    assert port == bench.owner.arrived[0][0].id
    assert f"process {process.pid} ended" in reason


def test_a_socket_that_outlives_its_process_is_still_a_vm(bench: Bench) -> None:
    vm = bench.vm(connected=False)
    code = f"import socket; socket.socket(fileno={vm.fileno()}).sendto(b'frame', {bench.path!r})"
    subprocess.run([sys.executable, "-c", code], pass_fds=[vm.fileno()], check=True)
    worker = bench.taken()
    turn_a_while(bench.loop)
    bench.listener.tick(time.monotonic())
    assert not bench.owner.reports
    worker.send(b"still here")
    assert vm.recv(100) == b"still here"


@pytest.mark.parametrize("name", ["vm", "elsewhere"])
def test_a_vm_that_restarts_at_once_gets_through(bench: Bench, name: str) -> None:
    process = start_vm(bench, "vm")
    bench.taken()
    end_vm(process)
    new = bench.vm(name, connected=False)
    bench.until(lambda: bench.owner.reports)
    with pytest.raises(PermissionError):
        new.sendto(b"too early: the old port is not gone", bench.path)
    bench.release()
    new.sendto(b"frame", bench.path)
    assert bench.taken(2).recv(100) == b"frame"
    assert len(bench.owner.reports) == 1


def test_a_path_that_is_another_socket_by_now_is_another_vm(bench: Bench) -> None:
    vm = bench.vm()
    vm.send(b"frame")
    bench.taken()
    new = bench.vm(connected=False)  # the same path; the old socket lives on without one
    bench.until(lambda: bench.owner.reports)
    bench.release()
    new.sendto(b"frame", bench.path)
    bench.taken(2).send(b"answer")
    assert new.recv(10) == b"answer"


def test_frames_that_the_next_vm_has_queued_are_not_lost(bench: Bench) -> None:
    vm = bench.vm("one")
    vm.send(b"frame")
    worker = bench.taken()
    assert worker.recv(10) == b"frame"
    vm.close()
    with pytest.raises(ConnectionRefusedError):
        worker.send(b"x")  # the kernel dissolves the association itself
    new = bench.vm("two")
    new.send(b"early")
    bench.release()
    assert bench.taken(2).recv(10) == b"early"


def test_a_refused_vm_does_not_make_the_loop_spin_and_gets_in_later(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.owner.refuse = "all ports are in use"
    vm = bench.vm()
    vm.setblocking(False)
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        try_to_send(vm)
        bench.loop.turn(0.001)
        bench.listener.tick(time.monotonic())
    assert caplog.text.count("all ports are in use") == 1
    bench.owner.refuse = ""
    bench.until(lambda: try_to_send(vm) and bench.owner.arrived)


def test_a_vm_that_is_to_go_is_cut_off_and_the_next_gets_in(bench: Bench) -> None:
    vm = bench.vm("one")
    vm.send(b"frame")
    bench.taken()
    bench.listener.disconnect()
    bench.release()
    with pytest.raises(ConnectionRefusedError):
        vm.send(b"frame")
    new = bench.vm("two")
    new.send(b"frame")
    bench.taken(2)


def test_a_socket_that_a_worker_kept_goes_on_with_its_vm_and_then_with_the_next(bench: Bench) -> None:
    vm = bench.vm("one")
    vm.send(b"frame")
    bench.taken()
    record, kept = bench.owner.arrived[0]
    address = parse_listen("vfkit", f"unixgram://{bench.path}")
    dead = bench.listener
    adopted = (record.id, socket.socket(fileno=os.dup(kept)), dead.file)
    bench.listener = VfkitListener(bench.loop, address, PortOptions(), bench.owner, adopted)
    dead._socket.close()  # as the death of a supervisor closes it: the path stays
    bench.listener.tick(time.monotonic())
    assert not bench.owner.reports
    vm.close()
    bench.until(lambda: bench.owner.reports)
    bench.release()
    bench.vm("two").send(b"frame")
    bench.taken(2)


def test_a_socket_whose_directory_is_missing_is_made_again_when_there_is_one(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    directory = os.path.dirname(bench.path)
    away = f"{directory}.away"
    os.rename(directory, away)
    try:
        bench.listener.mend()
        bench.listener.tick(bench.listener.deadline())
        assert "accepts no VM and is tried again" in caplog.text
    finally:
        os.rename(away, directory)
    os.unlink(bench.path)
    bench.listener.tick(bench.listener.deadline())
    vm = bench.vm()
    vm.send(b"frame")
    assert bench.taken().recv(10) == b"frame"


def test_a_listener_without_a_socket_ends_without_a_word(bench: Bench) -> None:
    directory = os.path.dirname(bench.path)
    os.rename(directory, f"{directory}.away")
    try:
        bench.listener.mend()
        bench.listener.close()
    finally:
        os.rename(f"{directory}.away", directory)
    os.unlink(bench.path)
