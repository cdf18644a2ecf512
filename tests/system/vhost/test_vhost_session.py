"""Sessions of vhost-user on real processes: workers killed after any message, and what ends a session."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, mac
from tests.helpers.guests.fixtures import running_switch
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.vhost_vm import HEADER, VhostVM
from tests.helpers.guests.virtio_driver import MEMORY_BYTES, TO_GUEST
from tests.helpers.guests.waiting import wait_for

MESSAGES = 18
"""Of a VM that is set up."""

NewVm = Callable[[], VhostVM]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    with running_switch() as running:
        yield running.start(*running.arguments(vhost=True, qemu=True))


@pytest.fixture(scope="module")
def neighbour(switch: Switch) -> Iterator[FakeVM]:
    """A VM on a socket that is there all the while."""
    with contextlib.closing(switch.connect("unix")) as other:
        switch.wait_live(1)
        yield other


@pytest.fixture
def vm(switch: Switch, neighbour: FakeVM) -> Iterator[NewVm]:
    """Make VMs that are gone, with their ports, at the end of the test."""
    with contextlib.ExitStack() as stack:

        def connect() -> VhostVM:
            new = VhostVM(switch.vhost)
            stack.callback(new.close)
            return new

        yield connect
    wait_for(lambda: not vhost_ports(switch), "the ports to go")


def vhost_ports(switch: Switch) -> list[dict[str, Any]]:
    return [port for port in switch.ports() if port["transport"] == "vhost"]


def worker(switch: Switch) -> int:
    """The process of the only vhost port's worker."""
    switch.wait_live(2)
    (port,) = vhost_ports(switch)
    return int(port["worker"]["pid"])


def introduced(vm: VhostVM) -> VhostVM:
    vm.set_up()
    vm.post(20)
    return vm


def goes_both_ways(neighbour: FakeVM, vm: VhostVM) -> None:
    number = next(NUMBERS)
    hello, words = build_frame(BROADCAST, mac(2), 100 + number), build_frame(mac(2), mac(1), 300 + number)

    def heard_by(frames: Callable[[], list[bytes]], frame: bytes, send: Callable[[bytes], object]) -> None:
        def heard() -> bool:
            send(frame)  # again and again: an unknown VM is not heard yet
            return frame in frames()

        wait_for(heard, f"a frame of {len(frame)} bytes")

    heard_by(vm.driver.frames, hello, neighbour.send)
    heard_by(neighbour.drain, words, vm.send)


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_vm_is_set_up(neighbour: FakeVM, vm: NewVm, *, acknowledged: bool) -> None:
    new = vm()
    said = []
    new.between = said.append
    new.set_up(acknowledged=acknowledged)
    assert len(said) == MESSAGES
    new.post(20)
    goes_both_ways(neighbour, new)


@pytest.mark.parametrize("number", range(MESSAGES))
def test_a_worker_that_is_killed_after_any_message_is_replaced(
    switch: Switch, neighbour: FakeVM, vm: NewVm, number: int
) -> None:
    """The message may be in the socket still, applied, answered or taken out: each is answered once."""
    new = vm()
    first = worker(switch)
    said: list[str] = []

    def kill(name: str) -> None:
        said.append(name)
        if len(said) == number + 1:
            os.kill(first, signal.SIGKILL)

    new.between = kill
    new.set_up()
    assert worker(switch) != first
    new.post(20)
    goes_both_ways(neighbour, new)


def test_messages_that_wait_while_a_worker_is_killed_are_taken_by_the_next_one(
    switch: Switch, neighbour: FakeVM, vm: NewVm
) -> None:
    new = vm()
    os.kill(worker(switch), signal.SIGKILL)
    new.acknowledges = False
    for _ in range(3):
        new.say("SET_OWNER")
    new.set_up()
    new.post(20)
    goes_both_ways(neighbour, new)


def test_a_queue_that_is_stopped_goes_on_where_it_stopped(
    switch: Switch, neighbour: FakeVM, vm: NewVm
) -> None:
    new = introduced(vm())
    goes_both_ways(neighbour, new)
    for index, queue in enumerate(new.driver.queues):
        base = new.stop_queue(index)
        assert base == queue.used_index()
        new.start_queue(index, queue, base)
    goes_both_ways(neighbour, new)


def test_a_worker_that_was_never_asked_is_not_reported(switch: Switch, neighbour: FakeVM, vm: NewVm) -> None:
    """A VM that only connects is a port, and its worker can be killed, too."""
    new = vm()
    os.kill(worker(switch), signal.SIGKILL)
    wait_for(lambda: vhost_ports(switch)[0]["worker"]["restarts"] == 1, "another worker")
    introduced(new)
    goes_both_ways(neighbour, new)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(HEADER.pack(2, 1, 8) + b"\xff" * 8, "SET_FEATURES makes no sense", id="features"),
        pytest.param(
            HEADER.pack(8, 1, 8) + struct.pack("<II", 0, 3), "SET_VRING_NUM makes no sense", id="size"
        ),
        pytest.param(HEADER.pack(5, 1, 40) + struct.pack("<II32x", 1, 0), "share=on", id="memory not shared"),
        pytest.param(HEADER.pack(1, 1, 2**31), "a payload of 2147483648 bytes", id="length"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not those of a vhost-user request", id="HTTP"),
    ],
)
def test_a_senseless_message_ends_its_session_with_one_line(
    switch: Switch, neighbour: FakeVM, vm: NewVm, data: bytes, says: str
) -> None:
    other = introduced(vm())
    bad = vm()
    switch.wait_live(3)
    before = len(switch.log().splitlines())
    bad.sock.sendall(data)
    wait_for(bad.has_ended, "the session to end")

    def said() -> list[str]:
        return [line for line in switch.log().splitlines()[before:] if "WARNING" in line or "gone" in line]

    wait_for(said, "a line")
    goes_both_ways(neighbour, other)
    assert len(said()) == 1, said()
    assert says in said()[0]


def test_a_message_in_pieces_is_taken_when_it_is_whole(switch: Switch, neighbour: FakeVM, vm: NewVm) -> None:
    new = vm()
    data = HEADER.pack(1, 1, 0) + HEADER.pack(2, 1, 8) + struct.pack("<Q", new.driver.features)
    for at in range(len(data)):
        new.sock.sendall(data[at : at + 1])
    assert len(new.answer(1)) == 8
    introduced(new)
    goes_both_ways(neighbour, new)


def test_a_vm_that_takes_its_memory_away_loses_its_port_alone(
    switch: Switch, neighbour: FakeVM, vm: NewVm
) -> None:
    other, thief = introduced(vm()), introduced(vm())
    switch.wait_live(3)
    before = len(switch.log().splitlines())
    os.ftruncate(thief.driver.fd, 0)
    thief.driver.queues[TO_GUEST].kicks()
    other.send(build_frame(BROADCAST, mac(1), 100))
    wait_for(thief.has_ended, "the session to end")
    switch.wait_live(2)
    said = switch.log().splitlines()[before:]
    lines = [line for line in said if ("INFO" in line or "WARNING" in line) and "first frame" not in line]
    assert len(lines) == 1, lines
    assert "gone, the VM took its memory away" in lines[0]
    os.ftruncate(thief.driver.fd, MEMORY_BYTES)
    goes_both_ways(neighbour, other)


def test_a_worker_that_hangs_while_its_vm_waits_is_replaced(
    switch: Switch, neighbour: FakeVM, vm: NewVm
) -> None:
    """QEMU and its VM wait for the answer; a stopped worker that owes no answer is left alone."""
    new = introduced(vm())
    goes_both_ways(neighbour, new)
    stopped = worker(switch)
    os.kill(stopped, signal.SIGSTOP)
    queue = new.driver.queues[TO_GUEST]
    base = new.stop_queue(TO_GUEST)
    assert base == queue.used_index()
    assert worker(switch) != stopped
    new.start_queue(TO_GUEST, queue, base)
    goes_both_ways(neighbour, new)
    assert "its worker does not answer its VM" in switch.log()


def test_a_guest_without_buffers_wakes_no_worker(switch: Switch, neighbour: FakeVM, vm: NewVm) -> None:
    new = vm()
    new.set_up()
    switch.wait_live(2)
    neighbour.send(build_frame(BROADCAST, mac(2), 1000))
    wait_for(lambda: vhost_ports(switch)[0]["retries"]["eagain"] > 0, "it to wait for buffers")
    before = vhost_ports(switch)[0]["worker"]["ctx_switches"]
    for _ in range(200):
        neighbour.send(build_frame(BROADCAST, mac(2), 1000))
    wait_for(lambda: _sent(switch) >= 200, "the frames to be switched")
    assert vhost_ports(switch)[0]["worker"]["ctx_switches"] - before < 50


def _sent(switch: Switch) -> int:
    return sum(int(port["rx"]["frames"]) for port in switch.ports() if port["transport"] == "qemu")


def test_dpdk_sends_and_receives(switch: Switch) -> None:
    """DPDK's own front-end: one program with two ports sends back the frames that it receives."""
    requirements.require(["dpdk"])
    before = len(switch.ports())
    devices = [
        f"--vdev=net_virtio_user{number},path={switch.vhost},mac={mac(number + 8).hex(':')}"
        for number in range(2)
    ]
    process = subprocess.Popen(
        [
            "dpdk-testpmd",
            *("--no-huge", "-m", "256", "--no-pci", "--no-telemetry"),
            f"--file-prefix={switch.directory.name}",
            *("-l", "0-1", *devices, "--", "--forward-mode=mac", "--tx-first", "--total-num-mbufs=4096"),
            *("--nb-cores=1", "--auto-start", "--no-mlockall"),
            *[f"--eth-peer={number},{mac(9 - number).hex(':')}" for number in range(2)],
        ],
        stdin=subprocess.PIPE,  # at whose end it ends
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(
            lambda: sum(port["tx"]["frames"] > 1000 for port in vhost_ports(switch)) == 2,
            "a thousand frames each way",
        )
        assert all(port["drops"]["runt"] == port["drops"]["refused"] == 0 for port in vhost_ports(switch))
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: len(switch.ports()) == before, "its ports to go")
