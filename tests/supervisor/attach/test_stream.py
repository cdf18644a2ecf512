"""Stream and seqpacket listeners: many VMs, tuned sockets, refusals that cost no other VM anything."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forwarder.acceptor import Pauses
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import Policy
from supervisor.attach.addresses import PortOptions, parse_listen
from supervisor.attach.listener_common import hung_up
from supervisor.attach.stream import StreamListener
from tests.helpers.descriptors import no_more_descriptors
from tests.helpers.fakes import FakeOwner, reraise, turn_a_while, turn_until
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.waiting import PATIENCE

Open = Callable[..., StreamListener]


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(reraise)
    yield made
    made.close()


@pytest.fixture
def owner() -> Iterator[FakeOwner]:
    made = FakeOwner()
    yield made
    made.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as made:
        yield made


@pytest.fixture
def pauses() -> Pauses:
    return Pauses(time.monotonic)


@pytest.fixture
def listen(loop: Loop, pauses: Pauses, owner: FakeOwner) -> Iterator[Open]:
    opened: list[StreamListener] = []

    def make(transport: str, url: str, settings: PortOptions | None = None) -> StreamListener:
        opened.append(
            StreamListener(loop, pauses, parse_listen(transport, url), settings or PortOptions(), owner)
        )
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def unix(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return sock


@pytest.mark.parametrize(
    ("transport", "scheme", "kind"),
    [("qemu", "unix", socket.SOCK_STREAM), ("bess", "unixpacket", socket.SOCK_SEQPACKET)],
)
def test_each_connection_is_brought_with_its_own_descriptor(
    loop: Loop, owner: FakeOwner, listen: Open, directory: Path, transport: str, scheme: str, kind: int
) -> None:
    listener = listen(transport, f"{scheme}://{directory}/s")
    vms = [unix(directory / "s", kind) for _ in range(3)]
    turn_until(loop, lambda: len(owner.arrived) == 3)
    for number, (vm, (record, descriptor)) in enumerate(zip(vms, owner.arrived, strict=True)):
        assert record.transport == transport
        assert not os.get_inheritable(descriptor)
        assert not os.get_blocking(descriptor)
        vm.send(bytes([number]))
        assert os.read(descriptor, 10) == bytes([number])
        assert not hung_up(descriptor, "stream" if kind == socket.SOCK_STREAM else "seqpacket")
        vm.close()
    assert listener.url == f"{scheme}://{directory}/s"


def test_tcp_says_its_port_and_sends_small_frames_at_once(loop: Loop, owner: FakeOwner, listen: Open) -> None:
    for host in ("127.0.0.1", "localhost"):
        listener = listen("qemu", f"tcp://{host}:0")
        port = int(listener.url.rpartition(":")[2])
        assert listener.url == f"tcp://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            before = len(owner.arrived)
            turn_until(loop, lambda before=before: len(owner.arrived) > before)
            accepted = socket.socket(fileno=os.dup(owner.arrived[-1][1]))
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            accepted.close()


def test_an_address_in_use_or_of_another_host_fails_with_one_line(listen: Open, directory: Path) -> None:
    taken = listen("qemu", "tcp://127.0.0.1:0")
    with pytest.raises(LocalError, match="address in use"):
        listen("qemu", taken.url)
    with pytest.raises(LocalError, match="does not have that address"):
        listen("qemu", "tcp://192.0.2.1:0")
    with pytest.raises(LocalError, match="no IP address"):
        listen("qemu", "tcp://example.invalid:1")
    listen("qemu", f"unix://{directory}/s")
    with pytest.raises(LocalError, match="address in use"):
        listen("bess", f"unixpacket://{directory}/s")
    assert (directory / "s").exists()


def test_a_refused_vm_is_disconnected_and_logged_once_a_second(
    loop: Loop, owner: FakeOwner, listen: Open, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listen("qemu", f"unix://{directory}/s")
    owner.refuse = "all ports are in use"
    vms = [unix(directory / "s") for _ in range(50)]
    turn_until(loop, lambda: not vms[-1].setblocking(False) and closed(vms[-1]))
    assert all(closed(vm) for vm in vms)
    assert caplog.text.count("all ports are in use") == 1


def closed(vm: socket.socket) -> bool:
    try:
        return vm.recv(1) == b""
    except BlockingIOError:
        return False


def test_at_the_descriptor_limit_vms_wait_and_the_loop_does_not_spin(
    loop: Loop,
    pauses: Pauses,
    owner: FakeOwner,
    listen: Open,
    directory: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    listen("qemu", f"unix://{directory}/s")
    vms = [unix(directory / "s") for _ in range(5)]
    with no_more_descriptors():
        loop.turn(0)
        began = time.monotonic()
        loop.turn(0.1)
        assert time.monotonic() - began >= 0.09, "a loop that spins"
    assert not owner.arrived
    assert caplog.text.count("raise the descriptor limit") == 1
    due = pauses.deadline()
    assert due is not None
    pauses.tick(due)
    turn_until(loop, lambda: len(owner.arrived) == 5)
    for vm in vms:
        vm.close()


def test_with_pinned_addresses_the_next_vm_waits_for_the_end_of_the_last(
    loop: Loop, owner: FakeOwner, listen: Open, directory: Path
) -> None:
    pinned = PortOptions(None, Policy((b"\x02\0\0\0\0\1",)))
    listener = listen("qemu", f"unix://{directory}/s", pinned)
    first, second = unix(directory / "s"), unix(directory / "s")
    turn_until(loop, lambda: owner.arrived)
    turn_a_while(loop)
    assert len(owner.arrived) == 1
    first.close()
    listener.released()
    turn_until(loop, lambda: len(owner.arrived) == 2)
    assert listener.port == owner.arrived[1][0].id
    second.close()


def test_a_peer_that_left_with_nothing_to_read_has_hung_up() -> None:
    for kind, word in ((socket.SOCK_STREAM, "stream"), (socket.SOCK_SEQPACKET, "seqpacket")):
        for data in (b"", b"frame"):
            ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
            if data:
                theirs.send(data)
            assert not hung_up(ours.fileno(), word)
            theirs.close()
            assert hung_up(ours.fileno(), word) == (not data)
            ours.close()


def test_a_vm_that_comes_again_and_again_in_vain_is_met_with_pauses(
    loop: Loop, owner: FakeOwner, listen: Open, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As QEMU does that wants several pairs of queues; the listener peeks at what comes after such an end."""
    vain = "the VM closed the link before a driver used it (a port has one pair of queues)"
    listener = listen("vhost", f"unix://{directory}/s")
    for reason in ("the VM closed the link", vain, vain, vain):
        with unix(directory / "s") as vm:
            vm.sendall(bytes.fromhex("010000000100000000000000"))
            arrived = len(owner.arrived)
            turn_until(loop, lambda before=arrived: len(owner.arrived) > before)  # type: ignore[misc]
            assert "again and again" not in caplog.text
            listener.ended(owner.arrived[-1][0].id, reason)
    assert f"{vain}, again and again. No connection is taken for 1 s" in caplog.text
    with unix(directory / "s") as vm:
        vm.sendall(bytes.fromhex("010000000100000000000000"))
        arrived = len(owner.arrived)
        turn_a_while(loop)
        assert len(owner.arrived) == arrived
