"""The ZeroMQ edges: evidence in, membership out, one reply for each command, and no stop for garbage."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.membership import MembershipLog
from forwarder.names import Identity, Policy, PortRecord
from forwarder.rendezvous import CONSOLE, CONTROL, MEMBERSHIP, endpoint, subscription
from forwarder.wire import (
    MESSAGE_BYTES,
    Beat,
    Command,
    Drain,
    Goodbye,
    Heartbeat,
    Hello,
    HelloAgain,
    Message,
    Ready,
    Reply,
    Snapshot,
    SnapshotRequest,
    Update,
    decode,
    encode,
)
from supervisor.console.client import Client
from supervisor.console.server import Console
from supervisor.fleet.publisher import Publisher
from tests.helpers.fakes import reraise
from tests.helpers.guests.fixtures import short_directory

WORKER = Identity(100, 200)
RECORD = PortRecord(1, 5, 5, "vm", "qemu", Policy())
Context = zmq.Context[zmq.Socket[bytes]]


class FakeOwner:
    def __init__(self) -> None:
        self.heard: list[Message] = []

    def hello(self, message: Hello) -> None:
        self.heard.append(message)

    heartbeat = goodbye = hello  # type: ignore[assignment]


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.context: Context = zmq.Context()
        self.loop = Loop(reraise)
        self.owner = FakeOwner()
        self.publisher = Publisher(self.loop, self.context, self.directory, MembershipLog(7), self.owner)
        self.console = Console(
            self.loop,
            self.context,
            self.directory,
            {"echo": lambda arguments: arguments, "fail": self._fail, "break": self._break, "big": self._big},
        )

    @staticmethod
    def _fail(_: dict[str, object]) -> object:
        raise LocalError("that cannot be done")

    @staticmethod
    def _break(_: dict[str, object]) -> object:
        raise RuntimeError("a bug")

    @staticmethod
    def _big(_: dict[str, object]) -> object:
        return b"x" * (17 << 20)

    def socket(self, kind: int, name: str) -> zmq.Socket[bytes]:
        sock = self.context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        if kind == zmq.SUB:
            sock.subscribe(b"")
        sock.connect(endpoint(self.directory, name))
        return sock

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            self.loop.turn(0.01)
            while self.publisher.receive(time.monotonic()) or self.console.receive():
                pass

    def receive(self, sock: zmq.Socket[bytes]) -> Message:
        self.until(lambda: sock.poll(0))
        return decode(sock.recv(), 16 << 20)

    def subscriber(self) -> zmq.Socket[bytes]:
        sock = self.socket(zmq.SUB, MEMBERSHIP)

        def heard() -> bool:
            self.publisher.beat(0.0)
            return bool(sock.poll(1))

        self.until(heard)
        while sock.poll(50):
            sock.recv()
        return sock

    def close(self) -> None:
        self.publisher.close()
        self.console.close()
        self.context.destroy(linger=0)
        self.loop.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with short_directory() as directory:
        made = Bench(directory)
        yield made
        made.close()


def test_the_sockets_are_ours_alone(bench: Bench) -> None:
    for name in (CONTROL, CONSOLE, MEMBERSHIP):
        assert stat.S_IMODE(os.stat(f"{bench.directory}/{name}").st_mode) == 0o600


def test_evidence_is_passed_on_and_its_sender_can_be_answered(bench: Bench) -> None:
    worker = bench.socket(zmq.DEALER, CONTROL)
    evidence = [
        Hello(1, 5, WORKER, 1),
        Heartbeat(1, 5, 7, 0, 0, 0, False, False, 0),
        Goodbye(1, 5, "the VM closed its end"),
    ]
    for message in evidence:
        worker.send(encode(message))
    bench.until(lambda: bench.owner.heard == evidence)
    assert not bench.publisher.drain(1, 4)
    assert bench.publisher.drain(1, 5)
    assert bench.receive(worker) == Drain(1, 5)
    bench.publisher.say_hello_again(1, 5)
    assert bench.receive(worker) == HelloAgain(7)
    bench.publisher.forget(1)
    assert not bench.publisher.drain(1, 5)


def test_a_past_worker_does_not_take_the_place_of_the_present_one(bench: Bench) -> None:
    new, old = bench.socket(zmq.DEALER, CONTROL), bench.socket(zmq.DEALER, CONTROL)
    new.send(encode(Hello(1, 6, WORKER, 1)))
    bench.until(lambda: len(bench.owner.heard) == 1)
    old.send(encode(Heartbeat(1, 5, 7, 0, 0, 0, False, False, 0)))
    bench.until(lambda: len(bench.owner.heard) == 2)
    assert bench.publisher.drain(1, 6)
    assert bench.receive(new) == Drain(1, 6)


def test_a_hello_is_answered_with_a_beat_at_once(bench: Bench) -> None:
    listener, worker = bench.subscriber(), bench.socket(zmq.DEALER, CONTROL)
    worker.send(encode(Hello(1, 5, WORKER, 1)))
    assert bench.receive(listener) == Beat(7, 0, 1000, 1000)


def test_changes_and_snapshots_carry_the_same_sequence(bench: Bench) -> None:
    listener, worker = bench.subscriber(), bench.socket(zmq.DEALER, CONTROL)
    bench.publisher.publish(bench.publisher.log.update("join", RECORD))
    assert bench.receive(listener) == Update(7, 1, "join", RECORD)
    worker.send(encode(SnapshotRequest(1, 5)))
    assert bench.receive(worker) == Snapshot(7, 1, (RECORD,))


def test_of_a_table_that_is_not_complete_nothing_is_said(bench: Bench) -> None:
    listener, worker = bench.subscriber(), bench.socket(zmq.DEALER, CONTROL)
    bench.publisher.quiet = True
    bench.publisher.publish(bench.publisher.log.update("join", RECORD))
    bench.publisher.beat(100.0)
    worker.send(encode(SnapshotRequest(1, 5)))
    worker.send(encode(Hello(1, 5, WORKER, 1)))
    bench.until(lambda: bench.owner.heard)
    assert not listener.poll(50)
    assert not worker.poll(0)
    bench.publisher.speak(200.0)
    assert bench.publisher.deadline() == 201.0
    assert bench.receive(listener) == Beat(7, 1, 1000, 1000)
    worker.send(encode(SnapshotRequest(1, 5)))
    assert bench.receive(worker) == Snapshot(7, 1, (RECORD,))


def test_each_beat_says_when_the_next_one_is_due(bench: Bench) -> None:
    listener = bench.subscriber()
    bench.publisher.beat(100.0)
    assert bench.publisher.deadline() == 101.0
    bench.publisher.beat(101.0)
    assert bench.publisher.deadline() == 102.0
    assert bench.receive(listener) == bench.receive(listener) == Beat(7, 0, 1000, 1000)


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"garbage"],
        [encode(Ready(WORKER, 1))],
        [encode(Hello(1, 5, WORKER, 1)), b""],
        [b"", encode(Hello(1, 5, WORKER, 1))],
        [b"a"] * 100,
    ],
)
def test_bad_evidence_is_counted_and_the_next_is_heard(bench: Bench, parts: list[bytes]) -> None:
    worker = bench.socket(zmq.DEALER, CONTROL)
    worker.send_multipart(parts)
    good = Hello(1, 5, WORKER, 1)
    worker.send(encode(good))
    bench.until(lambda: bench.owner.heard == [good])
    assert bench.publisher.bad_messages == 1


def test_an_oversized_message_costs_its_sender_the_connection(bench: Bench) -> None:
    bad, good = bench.socket(zmq.DEALER, CONTROL), bench.socket(zmq.DEALER, CONTROL)
    bad.send(b"x" * (MESSAGE_BYTES + 1))
    hello = Hello(1, 5, WORKER, 1)
    good.send(encode(hello))
    bench.until(lambda: bench.owner.heard == [hello])
    assert bench.publisher.bad_messages == 0


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_each_command_has_one_reply(bench: Bench, kind: int) -> None:
    operator = bench.socket(kind, CONSOLE)

    def ask(name: str, **arguments: object) -> Message:
        operator.send(encode(Command(name, arguments)))
        return bench.receive(operator)

    assert ask("echo", a=[1, {"b": None}]) == Reply(True, {"a": [1, {"b": None}]})
    assert ask("fail") == Reply(False, "that cannot be done")
    assert ask("break") == Reply(False, "break failed inside the supervisor; its log says where")
    assert ask("absent") == Reply(False, "there is no command absent; the supervisor is another version")
    too_long = ask("big")
    assert isinstance(too_long, Reply)
    assert not too_long.ok


@pytest.mark.parametrize("data", [b"", b"garbage", encode(Ready(WORKER, 1)), encode(Reply(True, 1))])
def test_a_bad_command_is_not_answered_and_the_next_is(bench: Bench, data: bytes) -> None:
    operator = bench.socket(zmq.DEALER, CONSOLE)
    operator.send(data)
    operator.send_multipart([b"a", b"b", b"c", encode(Command("echo", {}))])
    operator.send(encode(Command("echo", {"n": 1})))
    assert bench.receive(operator) == Reply(True, {"n": 1})
    assert bench.console.bad_messages == 2


def test_other_users_are_filtered(bench: Bench) -> None:
    """What keeps a stranger out if the directory's mode ever does not."""
    sock = bench.context.socket(zmq.ROUTER)
    sock.setsockopt(zmq.IPC_FILTER_UID, 12345)
    address = f"ipc://{bench.directory}/filtered"
    sock.bind(address)
    stranger = bench.context.socket(zmq.DEALER)
    stranger.connect(address)
    stranger.send(b"x")
    assert not sock.poll(100)
    sock.close(0)
    stranger.close(0)


def test_an_operator_is_told_that_nobody_runs_or_nobody_answers(bench: Bench) -> None:
    with Client(bench.directory, timeout_s=0.05) as client, pytest.raises(LocalError, match=r"for 0\.05 s"):
        client.ask("echo")
    with pytest.raises(LocalError, match="no supervisor runs in /nowhere"):
        Client("/nowhere")


def test_a_hello_that_led_to_a_change_needs_no_beat_and_a_beat_is_never_ahead(bench: Bench) -> None:
    listener = bench.subscriber()
    bench.publisher.beat(100.0)
    assert bench.receive(listener) == Beat(7, 0, 1000, 1000)
    update = bench.publisher.log.update("join", RECORD)
    bench.publisher.beat(101.0)
    bench.publisher.publish(update)
    bench.publisher.beat(102.0)
    assert bench.receive(listener) == update
    assert bench.receive(listener) == Beat(7, 1, 1000, 1000)


def test_a_subscription_is_known_to_be_in_force_by_its_second_topic(bench: Bench) -> None:
    assert not bench.publisher.assignment(RECORD, 77).subscribed
    listener = bench.subscriber()
    listener.subscribe(subscription(77))
    bench.until(lambda: bench.publisher.assignment(RECORD, 77).subscribed)
    assert not bench.publisher.assignment(RECORD, 78).subscribed
    listener.close()
    bench.until(lambda: not bench.publisher.assignment(RECORD, 77).subscribed)
