"""``POST /connect``: what may be said before a link begins, for how long, and no byte of a frame is lost."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder.acceptor import Pauses
from forwarder.loop import Loop
from forwarder.names import Policy
from supervisor.attach.addresses import PortOptions, parse_listen
from supervisor.attach.connect import CALL_S, CALLERS, ConnectListener
from supervisor.attach.http_head import HEAD_BYTES
from tests.helpers.descriptors import open_descriptors
from tests.helpers.fakes import FakeOwner, reraise, turn_a_while, turn_until
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import PATIENCE

REQUEST = b"POST /connect HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
FRAMES = b"\x3c\0" + bytes(range(60)) + b"\x0e\0" + bytes(14)


class Bench:
    """A listener in a directory of its own, and its clients."""

    def __init__(self, directory: Path, settings: PortOptions | None = None) -> None:
        self.loop = Loop(reraise)
        self.owner = FakeOwner()
        self.path = directory / "s"
        address = parse_listen("connect", f"unix://{self.path}")
        self.listener = ConnectListener(
            self.loop, Pauses(time.monotonic), address, settings or PortOptions(), self.owner
        )
        self._socks: list[socket.socket] = []

    def call(self, said: bytes = b"") -> socket.socket:
        """Connect and say something."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(str(self.path))
        sock.sendall(said)
        self._socks.append(sock)
        return sock

    def until(self, ports: int) -> None:
        """Turn the loop until there are so many ports."""
        turn_until(self.loop, lambda: len(self.owner.arrived) >= ports)

    def until_closed(self, *socks: socket.socket) -> bytes:
        """Turn the loop until these are hung up on; return what the last one was told."""
        told = b""
        for sock in socks:
            sock.setblocking(False)
            told = b""

            def closed(sock: socket.socket = sock) -> bool:
                nonlocal told
                try:
                    said = sock.recv(65536)
                except BlockingIOError:
                    return False
                except ConnectionResetError:
                    return True
                told += said
                return not said

            turn_until(self.loop, closed)
        return told

    def close(self) -> None:
        self.listener.close()
        self.owner.close()
        self.loop.close()
        for sock in self._socks:
            sock.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@pytest.fixture
def bench(directory: Path) -> Iterator[Bench]:
    made = Bench(directory)
    yield made
    made.close()


@pytest.mark.parametrize("cut", range(len(REQUEST) + 4))
def test_wherever_the_request_is_cut_the_worker_finds_the_first_frame(bench: Bench, cut: int) -> None:
    data = REQUEST + FRAMES
    caller = bench.call(data[:cut])
    turn_a_while(bench.loop, 2)
    assert bool(bench.owner.arrived) == (cut >= len(REQUEST))
    caller.sendall(data[cut:])
    bench.until(1)
    ((record, descriptor),) = bench.owner.arrived
    assert record.transport == "connect"
    assert os.read(descriptor, 1000) == FRAMES
    assert not os.get_blocking(descriptor)
    os.write(descriptor, FRAMES)
    assert caller.recv(1000) == FRAMES, "no answer comes before the first frame"


def test_more_frames_than_are_peeked_at_lose_nothing(bench: Bench) -> None:
    many = FRAMES * (3 * HEAD_BYTES // len(FRAMES))
    bench.call(REQUEST + many)
    bench.until(1)
    descriptor = bench.owner.arrived[0][1]
    found = b""
    while len(found) < len(many):
        found += os.read(descriptor, 65536)
    assert found == many


def test_many_vms_attach_at_one_socket(bench: Bench) -> None:
    callers = [bench.call() for _ in range(3)]
    for caller in reversed(callers):
        caller.sendall(REQUEST)
    bench.until(3)
    assert len({os.fstat(descriptor).st_ino for _, descriptor in bench.owner.arrived}) == 3
    assert bench.listener.deadline() == float("inf")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"GET /services/forwarder/all HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n"),
        (b"\0\0\0\x3c" + bytes(60), b"HTTP/1.1 400 Bad Request\r\n"),
        (b"POST /connect HTTP/1.1\r\nx: " + b"y" * HEAD_BYTES, b"HTTP/1.1 431 "),
    ],
)
def test_another_request_is_answered_logged_and_hung_up_on(
    bench: Bench, caplog: pytest.LogCaptureFixture, said: bytes, told: bytes
) -> None:
    assert bench.until_closed(bench.call(said)).startswith(told)
    assert caplog.text.count(f"unix://{bench.path}: a client was refused: ") == 1
    assert not bench.owner.arrived


def test_a_silent_client_is_hung_up_on_in_time(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    callers = [bench.call(), bench.call(REQUEST[:10])]
    turn_until(bench.loop, lambda: bench.listener.deadline() < float("inf"))
    turn_a_while(bench.loop)
    now = time.monotonic()
    assert 0 < bench.listener.deadline() - now <= CALL_S
    bench.listener.tick(now)
    assert bench.listener.deadline() < float("inf")
    bench.listener.tick(now + CALL_S)
    bench.until_closed(*callers)
    assert bench.listener.deadline() == float("inf")
    assert "no request came within 2 s" in caplog.text


def test_silent_clients_keep_no_vm_from_attaching(bench: Bench) -> None:
    silent = [bench.call() for _ in range(3 * CALLERS)]
    turn_a_while(bench.loop)
    caller = bench.call(REQUEST + FRAMES)
    bench.until(1)
    assert os.read(bench.owner.arrived[0][1], 1000) == FRAMES
    bench.until_closed(*silent[: 2 * CALLERS])
    silent[-1].sendall(REQUEST)
    bench.until(2)
    caller.close()


def test_a_client_whose_request_is_complete_does_not_make_room(bench: Bench) -> None:
    callers = [bench.call() for _ in range(CALLERS)]
    turn_a_while(bench.loop)
    for caller in callers:
        caller.sendall(REQUEST)
    callers += [bench.call() for _ in range(CALLERS)]
    bench.until(CALLERS)
    for caller in callers[CALLERS:]:
        caller.sendall(REQUEST)
    bench.until(2 * CALLERS)


def test_a_client_that_leaves_before_its_request_is_complete_leaves_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_descriptors()
    for said in (b"", REQUEST[:-1]):
        caller = bench.call(said)
        turn_until(bench.loop, lambda: bench.listener.deadline() < float("inf"))
        caller.close()
        turn_until(bench.loop, lambda: bench.listener.deadline() == float("inf"))
    assert open_descriptors() == before
    assert not caplog.text


def test_a_vm_that_is_refused_is_hung_up_on(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.owner.refuse = "all ports are in use"
    bench.until_closed(bench.call(REQUEST))
    assert "a VM was refused: all ports are in use" in caplog.text


def test_closing_the_listener_hangs_up_on_callers_and_not_on_vms(bench: Bench) -> None:
    vm = bench.call(REQUEST)
    bench.until(1)
    caller = bench.call()
    turn_until(bench.loop, lambda: bench.listener.deadline() < float("inf"))
    bench.listener.close()
    assert caller.recv(1) == b""
    assert not bench.path.exists()
    os.write(bench.owner.arrived[0][1], b"x")
    assert vm.recv(1) == b"x"
    bench.listener = ConnectListener(
        bench.loop,
        Pauses(time.monotonic),
        parse_listen("connect", f"unix://{bench.path}"),
        PortOptions(),
        bench.owner,
    )


def test_with_pinned_addresses_the_next_vm_waits_for_the_end_of_the_last(directory: Path) -> None:
    bench = Bench(directory, PortOptions(None, Policy((b"\x02\0\0\0\0\1",))))
    try:
        bench.call(REQUEST)
        bench.until(1)
        bench.call(REQUEST + FRAMES)
        turn_a_while(bench.loop)
        assert len(bench.owner.arrived) == 1
        bench.listener.released()
        bench.until(2)
        assert os.read(bench.owner.arrived[1][1], 1000) == FRAMES
    finally:
        bench.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_is_refused_whatever_the_mode_of_the_socket(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert bench.path.stat().st_mode & 0o777 == 0o600
    bench.path.parent.chmod(0o755)
    bench.path.chmod(0o666)
    os.seteuid(65534)
    try:
        caller = bench.call(REQUEST)
    finally:
        os.seteuid(0)
    bench.until_closed(caller)
    assert not bench.owner.arrived
    assert "it belongs to another user" in caplog.text
