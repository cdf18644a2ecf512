"""The giver of rings: viewers, the ports that each asked for, and each of their workers in turn."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder import _core
from forwarder.acceptor import Pauses
from forwarder.channel import Channel, ChannelClosedError
from forwarder.loop import Loop
from forwarder.messages import Capture, CaptureOver, CaptureRing, Drain, Message, Reply, WantCapture
from forwarder.names import Incarnation, Policy, PortRecord
from forwarder.rendezvous import CAPTURES
from forwarder.wire import encode
from supervisor.base import logs
from supervisor.capture.server import LARGEST_RING, MEMORY, MOST, SMALLEST_RING, CaptureServer, ring_bytes

YES = Reply(True, None)
WANTED = WantCapture((), b"", 128)


def record(port: int, epoch: int, name: str) -> PortRecord:
    return PortRecord(port, epoch, epoch, name, "qemu", Policy())


class Fleet:
    """Workers that keep what they are told."""

    def __init__(self) -> None:
        self.records = [record(1, 5, "one"), record(2, 6, "two")]
        self.told: list[tuple[Incarnation, Message]] = []

    def forwarding(self) -> list[PortRecord]:
        return self.records

    def tell(self, served: Incarnation, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        self.told.append((served, message))
        for descriptor in descriptors:
            _core.CaptureReader(descriptor, served.port, served.epoch)
        return True


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = Loop(lambda: pytest.fail("a callback failed"))
        self.fleet = Fleet()
        self.server = CaptureServer(self.loop, Pauses(lambda: 0.0), str(directory), self.fleet)
        self.now = 0.0

    def connect(self) -> Channel:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.directory / CAPTURES))
        return Channel(sock)

    def turn(self) -> None:
        self.now += 1.0
        for _ in range(3):
            self.loop.turn(0.0)
            self.server.tick(self.now)

    def received(self, viewer: Channel) -> list[Message]:
        """Return what a viewer was told, and let go of the rings."""
        self.turn()
        messages = []
        with contextlib.suppress(ChannelClosedError):
            while (received := viewer.receive()) is not None:
                messages.append(received[0])
                for descriptor in received[1]:
                    os.close(descriptor)
        return messages


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.server.close()
    made.loop.close()
    assert list(tmp_path.iterdir()) == []


def test_each_port_gets_a_ring_that_both_ends_have(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as viewer:
        viewer.send(WANTED)
        rings = [CaptureRing(1, 5, "one", "qemu"), CaptureRing(2, 6, "two", "qemu")]
        assert bench.received(viewer) == [YES, *rings]
        assert bench.fleet.told == [
            (Incarnation(1, 5), Capture(1, b"", 128)),
            (Incarnation(2, 6), Capture(1, b"", 128)),
        ]
        bench.fleet.records = [record(1, 9, "one"), record(2, 6, "two"), record(3, 10, "three")]
        assert bench.received(viewer) == [
            CaptureRing(1, 9, "one", "qemu"),
            CaptureRing(3, 10, "three", "qemu"),
        ]
    bench.fleet.told.clear()
    bench.turn()
    ended = {served for served, message in bench.fleet.told if message == CaptureOver(1)}
    assert ended == {Incarnation(1, 9), Incarnation(2, 6), Incarnation(3, 10)}
    assert bench.server.deadline() == float("inf")


@pytest.mark.parametrize("name", ["two", "2"])
def test_ports_are_named_or_numbered(bench: Bench, name: str) -> None:
    with contextlib.closing(bench.connect()) as viewer:
        viewer.send(WANTED._replace(ports=(name,)))
        assert bench.received(viewer) == [YES, CaptureRing(2, 6, "two", "qemu")]


def test_a_number_is_a_port_before_it_is_a_name(bench: Bench) -> None:
    bench.fleet.records = [record(1, 5, "2"), record(2, 6, "two")]
    with contextlib.closing(bench.connect()) as viewer:
        viewer.send(WANTED._replace(ports=("2",)))
        assert bench.received(viewer) == [YES, CaptureRing(2, 6, "two", "qemu")]


def test_one_more_viewer_than_there_may_be_is_refused_until_another_has_gone(bench: Bench) -> None:
    viewers = [bench.connect() for _ in range(MOST)]
    for viewer in viewers:
        viewer.send(WANTED._replace(ports=("two",)))
        assert bench.received(viewer) == [YES, CaptureRing(2, 6, "two", "qemu")]
    viewers.append(bench.connect())
    said = "4 captures are under way, of two; two; two; two; end one of them first"
    assert bench.received(viewers[-1]) == [Reply(False, said)]
    viewers[1].close()
    bench.turn()
    assert bench.fleet.told[-1] == (Incarnation(2, 6), CaptureOver(2))
    viewers.append(bench.connect())
    viewers[-1].send(WANTED)
    assert len(bench.received(viewers[-1])) == 3
    for viewer in viewers:
        viewer.close()


def test_two_captures_of_a_port_have_a_ring_each(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as one, contextlib.closing(bench.connect()) as other:
        for viewer in (one, other):
            viewer.send(WANTED._replace(ports=("two",)))
            assert bench.received(viewer)[1:] == [CaptureRing(2, 6, "two", "qemu")]
        assert [message for _, message in bench.fleet.told] == [Capture(1, b"", 128), Capture(2, b"", 128)]


@pytest.mark.parametrize("message", [Drain(), WANTED])
def test_a_viewer_that_sends_a_wrong_message_is_disconnected(bench: Bench, message: Message) -> None:
    with contextlib.closing(bench.connect()) as viewer:
        viewer.send(WANTED)
        bench.received(viewer)
        viewer.send(message)
        assert bench.received(viewer) == []
        with pytest.raises(ChannelClosedError):
            viewer.receive()
    assert bench.fleet.told[-1][1] == CaptureOver(1)


def test_garbage_is_logged_once_a_second(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "THROTTLE_S", 600.0)  # however slow the machine is
    for data in (b"\xff", encode(Drain()), b"", encode(YES)) * 10:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as viewer:
            viewer.connect(str(bench.directory / CAPTURES))
            viewer.send(data)
            bench.turn()
    assert [line.partition(": ")[0] for line in caplog.messages] == [f"bad message on {CAPTURES}, ignored"]
    assert bench.server.deadline() == float("inf")


def test_rings_share_the_memory() -> None:
    assert ring_bytes(1) == LARGEST_RING
    assert ring_bytes(250) == 512 << 10
    for ports in range(1, 1024):
        size = ring_bytes(ports)
        assert size & (size - 1) == 0
        assert SMALLEST_RING <= size <= LARGEST_RING
        assert size * ports <= MEMORY or size == SMALLEST_RING


def test_a_missing_port_is_named(bench: Bench) -> None:
    with contextlib.closing(bench.connect()) as viewer:
        viewer.send(WANTED._replace(ports=("one", "web")))
        assert bench.received(viewer) == [
            Reply(False, "no port 'web' forwards now; supervisor status lists the ports")
        ]
    assert bench.fleet.told == []
