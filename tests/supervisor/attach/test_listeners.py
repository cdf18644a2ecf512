"""All listeners together: one for each URL, ports counted, and what workers brought back found again."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.acceptor import Pauses
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Policy, PortRecord
from supervisor.attach.addresses import SCHEMES, Attachment, PortOptions, parse_listen, parse_tap
from supervisor.attach.connect import CALL_S
from supervisor.attach.listener_common import PER_PORT, RESERVED
from supervisor.attach.listeners import Listeners
from supervisor.base.saved_state import SavedState
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fakes import FakeOwner, reraise, turn_a_while, turn_until
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import PATIENCE

PINNED = Policy((b"\x02\0\0\0\0\1",))


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = Loop(reraise)
        self.owner = FakeOwner()
        self.pauses = Pauses(time.monotonic)
        saved = SavedState(str(directory / "state"), inherit=False)
        self.listeners = Listeners(self.loop, self.pauses, self.owner, saved)
        self._socks: list[socket.socket] = []

    def url(self, transport: str, name: str) -> str:
        scheme = SCHEMES[transport][0]
        return f"{scheme}://{self.directory}/{name}"

    def open(self, transport: str, name: str, settings: PortOptions | None = None) -> str:
        address = parse_listen(transport, self.url(transport, name))
        return self.listeners.open(Attachment(address, settings or PortOptions()))

    def connect(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.directory / name))
        self._socks.append(sock)
        return sock

    def vm(self, transport: str, name: str) -> None:
        sock = self.connect(name)
        if transport == "connect":
            sock.send(b"POST /connect HTTP/1.1\r\nHost: x\r\n\r\n")

    def datagram(self, name: str, to: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(self.directory / name))
        sock.connect(str(self.directory / to))
        sock.send(b"frame")
        self._socks.append(sock)
        return sock

    def release(self, index: int, reason: str = "") -> None:
        port = self.owner.arrived[index][0].id
        self.owner.released.add(port)
        self.listeners.released(port, reason)

    def tick(self, now: float) -> None:
        self.listeners.tick(now)

    def close(self) -> None:
        self.listeners.close_all()
        self.owner.close()
        self.loop.close()
        for sock in self._socks:
            sock.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with short_directory() as directory:
        made = Bench(directory)
        yield made
        made.close()


def test_each_url_once_and_gone_when_closed(bench: Bench) -> None:
    url = bench.open("qemu", "q")
    with pytest.raises(LocalError, match="attached already"):
        bench.open("qemu", "q")
    assert [each.url for each in bench.listeners] == [url]
    assert bench.listeners.close(url) is None
    assert not (bench.directory / "q").exists()
    with pytest.raises(LocalError, match="nothing is attached"):
        bench.listeners.close(url)


def test_an_address_can_be_pinned_to_one_listener_only(bench: Bench) -> None:
    bench.open("qemu", "q", PortOptions(None, PINNED))
    with pytest.raises(
        LocalError, match=r"02:00:00:00:00:01 is already pinned to unix://.*; detach that first"
    ):
        bench.open("bess", "b", PortOptions(None, PINNED))
    assert not (bench.directory / "b").exists()


def test_the_descriptors_limit_the_number_of_ports(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.open("qemu", "q")
    (listener,) = bench.listeners
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (RESERVED + listener.descriptors + 3 * PER_PORT, limits[1]))
    try:
        vms = [bench.connect("q") for _ in range(5)]
        turn_until(bench.loop, lambda: "descriptor limit reached: 3 ports" in caplog.text)
        assert len(bench.owner.arrived) == 3
        assert vms[4].recv(1) == b""
        bench.release(0)
        bench.connect("q")
        turn_until(bench.loop, lambda: len(bench.owner.arrived) == 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_datagram_vm_is_looked_after_once_a_second(bench: Bench) -> None:
    assert bench.listeners.deadline() == float("inf")
    bench.open("vfkit", "v")
    vm = bench.datagram("vm", "v")
    turn_until(bench.loop, lambda: bench.owner.arrived)
    now = time.monotonic()
    bench.tick(now)
    assert 0.9 < bench.listeners.deadline() - now < 1.1
    bench.tick(now + 0.5)
    vm.close()
    bench.tick(now + 0.5)
    assert not bench.owner.reports
    bench.tick(now + 0.95)  # with others that wake the loop about then
    assert len(bench.owner.reports) == 1


def test_callers_are_looked_after_and_have_their_descriptors_set_aside(bench: Bench) -> None:
    bench.open("connect", "c")
    (listener,) = bench.listeners
    bench.connect("c")
    turn_until(bench.loop, lambda: bench.listeners.deadline() < float("inf"))
    due = bench.listeners.deadline()
    assert 0 < due - time.monotonic() <= CALL_S
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (RESERVED + PER_PORT + listener.descriptors - 1, limits[1]))
    try:
        with pytest.raises(LocalError, match="descriptor limit reached: 0 ports"):
            bench.listeners.arrive("connect", -1, PortOptions(), "unix:///c")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    bench.tick(due)
    assert bench.listeners.deadline() == float("inf")


def test_closing_a_datagram_listener_names_the_port_that_goes_with_it(bench: Bench) -> None:
    url = bench.open("vfkit", "v")
    bench.datagram("vm", "v")
    turn_until(bench.loop, lambda: bench.owner.arrived)
    assert bench.listeners.close(url) == bench.owner.arrived[0][0].id


def test_a_socket_that_a_worker_brought_back_is_not_bound_over(bench: Bench) -> None:
    bench.open("vfkit", "v")
    bench.datagram("vm", "v")
    turn_until(bench.loop, lambda: bench.owner.arrived)
    record, kept = bench.owner.arrived[0]
    # The next supervisor: the path and the worker's descriptor are what the last one has left.
    path = bench.directory / "v"
    path.rename(bench.directory / "kept")
    bench.listeners.close_all()
    (bench.directory / "kept").rename(path)
    bench.listeners.adopt(record, kept)
    settings = PortOptions("web", PINNED)
    assert bench.open("vfkit", "v", settings) == bench.url("vfkit", "v")
    (listener,) = bench.listeners
    assert listener.settings == settings
    assert bench.listeners.close(listener.url) == record.id
    assert not path.exists()


@pytest.mark.parametrize("what", ["text", "socket"])
def test_another_file_at_the_path_of_a_socket_that_a_worker_brought_back_is_left_alone(
    bench: Bench, what: str
) -> None:
    bench.open("vfkit", "v")
    bench.datagram("vm", "v")
    turn_until(bench.loop, lambda: bench.owner.arrived)
    record, kept = bench.owner.arrived[0]
    path = bench.directory / "v"
    bench.listeners.close_all()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
        if what == "text":
            path.write_text("mine")
        else:
            theirs.bind(str(path))
        before = path.stat()
        bench.listeners.adopt(record, kept)
        bench.open("vfkit", "v")
        (file,) = bench.listeners.mend()
        assert file.is_taken(), "the log says so"
        bench.listeners.close(bench.url("vfkit", "v"))
        assert os.path.samestat(path.stat(), before)


def test_a_device_that_a_worker_brought_back_keeps_its_name_and_its_addresses(bench: Bench) -> None:
    bench.listeners.adopt(PortRecord(1, 5, 5, "uplink", "tap", PINNED), -1)
    device = Attachment(parse_tap("bh0,netns=blue"), PortOptions("uplink", PINNED))
    assert bench.listeners.open(device) == "tap://bh0,netns=blue"
    with pytest.raises(LocalError, match="is already pinned to tap://bh0,netns=blue"):
        bench.listeners.open(device._replace(address=parse_listen("qemu", "unix:///q")))


def test_a_device_is_opened_again_once(bench: Bench) -> None:
    bench.listeners.adopt(PortRecord(1, 5, 5, "bh0", "tap", Policy()), -1)
    device = Attachment(parse_tap("bh0"))
    assert bench.listeners.goes_on_with(device) == 1
    assert bench.listeners.open(device) == "tap://bh0"
    assert bench.listeners.goes_on_with(device) == 0
    with pytest.raises(LocalError, match="tap://bh0 is attached already"):
        bench.listeners.open(device)


@pytest.mark.parametrize("transport", ["qemu", "connect"])
def test_a_listener_with_pinned_addresses_goes_on_with_the_port_that_a_worker_brought_back(
    bench: Bench, transport: str
) -> None:
    bench.open(transport, "q", PortOptions(None, PINNED))
    bench.vm(transport, "q")
    turn_until(bench.loop, lambda: bench.owner.arrived)
    record, vm = bench.owner.arrived[0]
    bench.listeners.close_all()  # the next supervisor has the port only
    bench.listeners.adopt(record, vm)
    address = parse_listen(transport, bench.url(transport, "q"))
    for other in (PortOptions(), PortOptions(None, Policy((b"\x02\0\0\0\0\2",)))):
        assert bench.listeners.goes_on_with(Attachment(address, other)) == 0
    assert bench.listeners.goes_on_with(Attachment(address, PortOptions(None, PINNED))) == 1
    bench.open(transport, "q", PortOptions(None, PINNED))
    bench.vm(transport, "q")
    turn_a_while(bench.loop)
    assert len(bench.owner.arrived) == 1, "the address belongs to the port that is still there"
    bench.release(0)
    turn_until(bench.loop, lambda: len(bench.owner.arrived) == 2)


HELLO = bytes.fromhex("010000000100000000000000")
BAD = "flags 0x2"


def test_a_listener_with_pinned_addresses_pauses_after_clients_of_another_protocol(bench: Bench) -> None:
    bench.open("vhost", "s", PortOptions(None, PINNED))
    for number in range(3):
        bench.connect("s").send(HELLO)
        turn_until(bench.loop, lambda number=number: len(bench.owner.arrived) > number)  # type: ignore[misc]
        assert bench.pauses.deadline() is None
        bench.release(number, BAD)
    due = bench.pauses.deadline()
    assert due is not None, "the end of its port is no end of the pause"
    bench.connect("s").send(HELLO)
    turn_a_while(bench.loop)
    assert len(bench.owner.arrived) == 3
    bench.pauses.tick(due)
    turn_until(bench.loop, lambda: len(bench.owner.arrived) == 4)


def test_a_listener_that_waits_for_the_end_of_a_port_is_not_opened_by_a_pause(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.open("vhost", "s", PortOptions(None, PINNED))
    bench.connect("s").send(HELLO)
    turn_until(bench.loop, lambda: bench.owner.arrived)
    bench.release(0, BAD)
    others = [bench.connect("s") for _ in range(2)]  # on probation, while a VM is taken
    turn_a_while(bench.loop)
    bench.connect("s").send(HELLO)
    turn_until(bench.loop, lambda: len(bench.owner.arrived) == 2)
    for each in others:
        each.send(b"GET / HTTP/1.1\r\n")
    turn_until(bench.loop, lambda: "No connection is taken for 1 s" in caplog.text)
    assert bench.pauses.deadline() is None


def test_an_adopted_port_that_has_gone_before_its_listener_is_opened_is_not_waited_for(bench: Bench) -> None:
    record = PortRecord(7, 9, 5, "q", "qemu", PINNED)
    bench.owner.arrived.append((record, os.open("/dev/null", os.O_RDONLY)))
    bench.listeners.adopt(record, -1)
    bench.release(0)
    bench.open("qemu", "q", PortOptions(None, PINNED))
    bench.vm("qemu", "q")
    turn_until(bench.loop, lambda: len(bench.owner.arrived) == 2)


def test_a_socket_whose_path_is_gone_is_not_listened_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.open("vfkit", "v")
    bench.datagram("vm", "v")
    turn_until(bench.loop, lambda: bench.owner.arrived)
    bench.listeners.close_all()
    before = open_descriptors()
    bench.listeners.adopt(*bench.owner.arrived[0])
    assert not list(bench.listeners)
    assert "is gone" in caplog.text
    assert open_descriptors() == before
