"""The ZeroMQ edges: membership out, one reply for each command, and no stop for garbage."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.membership import MembershipLog
from forwarder.messages import Beat, Command, Message, Ready, Reply
from forwarder.names import PROTOCOL_VERSION, Cell, Policy, PortRecord
from forwarder.rendezvous import CONSOLE, MEMBERSHIP, endpoint, path, worker_path
from forwarder.wire import MESSAGE_BYTES, decode, encode
from supervisor.console.client import Client
from supervisor.console.server import Console
from supervisor.membership import publisher
from supervisor.membership.publisher import Publisher
from tests.helpers.fakes import PATIENCE, reraise
from tests.helpers.guests.fixtures import short_directory

RECORD = PortRecord(1, 5, 5, "vm", "qemu", Policy())
READY = Ready(1, Cell((), 0))
ME = os.getpid()
OLDER = 4
"""The last epoch of the ports before RECORD's."""
Context = zmq.Context[zmq.Socket[bytes]]


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.context: Context = zmq.Context()
        self.loop = Loop(reraise)
        self.subscribed: list[int] = []
        self.listeners: list[zmq.Socket[bytes]] = []
        self.publisher = Publisher(
            self.loop, self.context, self.directory, MembershipLog(7), self.subscribed.append
        )
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

    def operator(self, kind: int) -> zmq.Socket[bytes]:
        sock = self.context.socket(kind)
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(endpoint(path(self.directory, CONSOLE)))
        return sock

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            self.loop.turn(0.01)
            for sock in self.listeners:
                sock.getsockopt(zmq.EVENTS)  # as a worker asks before it sleeps: ZeroMQ then goes on
            while self.publisher.receive() or self.console.receive():
                pass

    def receive(self, sock: zmq.Socket[bytes]) -> Message:
        self.until(lambda: sock.poll(0))
        return decode(sock.recv(), 16 << 20)

    def subscriber(self, *topics: bytes) -> zmq.Socket[bytes]:
        """A worker's subscription, in force; the worker is this process."""
        sock = self.context.socket(zmq.SUB)
        sock.setsockopt(zmq.LINGER, 0)
        for topic in topics or (b"",):
            sock.subscribe(topic)
        sock.bind(endpoint(worker_path(self.directory, ME, MEMBERSHIP)))
        self.publisher.connect(ME)
        self.listeners.append(sock)
        return sock

    def worker(self) -> zmq.Socket[bytes]:
        sock = self.subscriber()
        self.until(lambda: self.publisher.is_subscribed(ME))
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


def test_the_console_is_ours_alone(bench: Bench) -> None:
    assert stat.S_IMODE(os.stat(f"{bench.directory}/{CONSOLE}").st_mode) == 0o600


def test_a_subscribed_worker_is_identified_by_the_kernel(bench: Bench) -> None:
    assert not bench.publisher.assignment(RECORD, ME, OLDER).subscribed
    bench.worker()
    assert bench.subscribed == [ME]
    assert bench.publisher.assignment(RECORD, ME, OLDER).subscribed
    assert not bench.publisher.assignment(RECORD, ME + 1, OLDER).subscribed
    bench.publisher.disconnect(ME)
    assert not bench.publisher.assignment(RECORD, ME, OLDER).subscribed


def test_a_wrong_subscription_ends_the_connection_and_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    sock = bench.worker()
    for number in range(10_000):
        sock.subscribe(b"%d" % number)
    bench.until(lambda: not bench.publisher.is_subscribed(ME))
    assert caplog.text.count(f"worker {ME} sent a subscription that workers never send") == 1
    bench.publisher.beat(0.0)
    assert not sock.poll(50)


def test_a_worker_that_changes_its_mind_again_and_again_is_disconnected(bench: Bench) -> None:
    sock = bench.worker()
    for _ in range(publisher.CHANGES):
        sock.unsubscribe(b"")
        sock.subscribe(b"")
    bench.until(lambda: not bench.publisher.is_subscribed(ME))


def test_a_long_subscription_costs_its_sender_the_connection_and_others_nothing(bench: Bench) -> None:
    sock = bench.worker()
    sock.subscribe(b"x" * 100_000)
    bench.until(lambda: True)
    bench.publisher.publish(bench.publisher.log.update("join", RECORD))
    bench.publisher.disconnect(ME)


def test_an_incomplete_table_is_not_published(bench: Bench) -> None:
    listener = bench.worker()
    bench.publisher.quiet = True
    bench.publisher.publish(bench.publisher.log.update("join", RECORD))
    bench.publisher.beat(100.0)
    assert not listener.poll(50)
    bench.publisher.speak(200.0)
    assert bench.publisher.deadline() == 201.0
    assert bench.receive(listener) == Beat(7, 1, 1000, 1000)


def test_each_beat_says_when_the_next_one_is_due(bench: Bench) -> None:
    listener = bench.worker()
    bench.publisher.beat(100.0)
    assert bench.publisher.deadline() == 101.0
    bench.publisher.beat(101.0)
    assert bench.publisher.deadline() == 102.0
    assert bench.receive(listener) == bench.receive(listener) == Beat(7, 0, 1000, 1000)


def test_an_oversized_message_costs_its_sender_the_connection(bench: Bench) -> None:
    bad, good = bench.operator(zmq.DEALER), bench.operator(zmq.DEALER)
    bad.send(b"x" * (MESSAGE_BYTES + 1))
    good.send(encode(Command("echo", {})))
    assert bench.receive(good) == Reply(True, {})
    assert bench.console.bad_messages == 0


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_each_command_has_one_reply(bench: Bench, kind: int) -> None:
    operator = bench.operator(kind)

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


@pytest.mark.parametrize("data", [b"", b"garbage", encode(READY), encode(Reply(True, 1))])
def test_a_bad_command_is_not_answered_and_the_next_is(bench: Bench, data: bytes) -> None:
    operator = bench.operator(zmq.DEALER)
    operator.send(data)
    operator.send_multipart([b"a", b"b", b"c", encode(Command("echo", {}))])
    operator.send(encode(Command("echo", {"n": 1})))
    assert bench.receive(operator) == Reply(True, {"n": 1})
    assert bench.console.bad_messages == 2


def test_a_command_of_another_version_is_answered_so_that_its_sender_can_say_so(bench: Bench) -> None:
    operator = bench.operator(zmq.DEALER)
    operator.send(msgpack.packb((PROTOCOL_VERSION + 1, "Command", "status", {})))
    answer = bench.receive(operator)
    assert isinstance(answer, Reply)
    assert f"protocol {PROTOCOL_VERSION + 1}, not {PROTOCOL_VERSION}" in str(answer.result)
    assert bench.console.bad_messages == 1


def test_an_operator_hears_that_the_supervisor_is_another_version() -> None:
    answer = msgpack.packb((PROTOCOL_VERSION - 1, "Reply", True, {}))
    with short_directory() as directory, zmq.Context() as context, context.socket(zmq.ROUTER) as older:
        older.bind(endpoint(path(str(directory), CONSOLE)))
        thread = threading.Thread(target=lambda: older.send_multipart([older.recv_multipart()[0], answer]))
        thread.start()
        with Client(str(directory)) as client, pytest.raises(LocalError, match="another version than this"):
            client.ask("status")
        thread.join()


def test_other_users_are_filtered(bench: Bench) -> None:
    """This keeps other users out even if the mode of the directory does not."""
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


def test_an_operator_hears_that_no_supervisor_runs_or_answers(bench: Bench) -> None:
    with Client(bench.directory, timeout_s=0.05) as client, pytest.raises(LocalError, match=r"for \d+\.\d s"):
        client.ask("echo")
    with pytest.raises(LocalError, match="no supervisor runs in /nowhere"):
        Client("/nowhere")
