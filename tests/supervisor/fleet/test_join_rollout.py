"""The order of changes: workers hear of a newcomer by channel, one after the other, before it is
published."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from forwarder.membership import MembershipLog
from forwarder.names import Incarnation, Policy, PortRecord, may_talk
from supervisor.fleet.join_rollout import AT_ONCE, LINGER_S, JoinRollout


def record(port: int, epoch: int = 0) -> PortRecord:
    return PortRecord(port, epoch or port, port, f"vm-{port}", "qemu", Policy())


class Worker(NamedTuple):
    record: PortRecord

    @property
    def served(self) -> Incarnation:
        return self.record.incarnation


class PortFds:
    flood = os.devnull

    def __init__(self, epoch: int) -> None:
        self.flood_epoch = epoch


class World:
    """Plays socket edge, channels and fd store, and notes in order what goes out."""

    def __init__(self, ports: int) -> None:
        self.log = MembershipLog(7)
        self.published = 0
        self.quiet = False
        self.cold = False
        self.out: list[Any] = []
        self.workers = [Worker(record(port)) for port in range(1, ports + 1)]
        self.held = {port: PortFds(port) for port in range(1, ports + 1)}
        self.beat_at = 100.0
        self.made = JoinRollout(self, self, self, self.record)  # type: ignore[arg-type]

    def has_asked_for_table(self, port: int, epoch: int) -> bool:
        return not self.cold

    def publish(self, update: Any) -> None:
        assert update.sequence == self.published + 1
        self.published = update.sequence
        self.out.append(("all", update.change, update.record.port))

    def deadline(self) -> float:
        return self.beat_at

    def beat(self, now: float) -> None:
        assert self.published == self.log.sequence, "it would be ahead"
        self.beat_at = now + 100.0
        self.out.append("beat")

    def flush(self) -> None:
        """Of the channels."""

    def holders(self) -> list[Worker]:
        return self.workers

    def send(self, worker: Worker, update: Any, descriptors: tuple[object, ...]) -> None:
        assert descriptors == ((PortFds.flood,) if may_talk(worker.record, update.record) else ())
        self.out.append((worker.record.port, update.change, update.record.port))

    def record(self, served: Incarnation) -> PortRecord | None:
        return next((each.record for each in self.workers if each.served == served), None)

    def get(self, port: int) -> PortFds | None:
        return self.held.get(port)

    def join(self, port: int) -> None:
        self.held.setdefault(port, PortFds(port))
        if all(worker.record.port != port for worker in self.workers):
            self.workers.insert(0, Worker(record(port)))
        self.made.publish("join", record(port), 0.0)

    def settle(self, now: float = 0.0) -> None:
        while self.made.tick(now):
            pass


def test_a_newcomer_is_sent_to_all_workers_itself_last_and_published_later() -> None:
    world = World(3)
    world.join(4)
    world.settle()
    assert world.out == [(1, "join", 4), (2, "join", 4), (3, "join", 4), (4, "join", 4)]
    assert world.made.deadline() == LINGER_S
    world.settle(LINGER_S)
    assert world.out[4:] == [("all", "join", 4)]
    assert world.made.deadline() == world.beat_at


def test_a_worker_out_of_reach_hears_of_a_newcomer_without_its_flood_ring() -> None:
    world = World(2)
    alone = world.workers[0].record
    world.workers[0] = Worker(alone._replace(policy=Policy(isolated=True, reaches=("vm-2",))))
    world.join(3)
    world.settle()
    assert world.out == [(1, "join", 3), (2, "join", 3), (3, "join", 3)]


def test_newcomers_share_the_wake_up_and_any_other_change_takes_them_along() -> None:
    world = World(1)
    world.join(2)
    world.settle()
    world.join(3)
    world.settle()
    world.out.clear()
    world.made.publish("leave", record(2), 0.0)
    assert world.out == [("all", "join", 2), ("all", "join", 3), ("all", "leave", 2)]


def test_a_change_waits_for_the_introduction_before_it() -> None:
    world = World(AT_ONCE + 5)
    world.join(100)
    world.made.publish("change", record(100)._replace(name="other"), 0.0)
    assert world.made.tick(0.0)
    assert len(world.out) == AT_ONCE
    world.settle()
    assert world.out[-2:] == [("all", "join", 100), ("all", "change", 100)]
    assert len(world.out) == AT_ONCE + 6 + 2


def test_a_beat_is_never_ahead() -> None:
    world = World(AT_ONCE + 5)
    world.beat_at = 0.0
    world.join(100)
    assert world.made.tick(0.0)
    assert "beat" not in world.out
    world.settle()
    assert world.out[-2:] == [("all", "join", 100), "beat"]


def test_a_newcomer_that_waits_for_a_published_message_gets_its_own_change_at_once() -> None:
    world = World(1)
    world.cold = True
    world.join(2)
    assert world.out == [("all", "join", 2)]
    world.settle()
    assert world.out[1:] == [(1, "join", 2), (2, "join", 2)]


def test_a_settings_change_is_no_introduction_but_another_worker_is() -> None:
    world = World(2)
    world.join(2)
    world.settle()
    world.out.clear()
    world.made.publish("change", record(2)._replace(name="other"), 0.0)
    assert world.out == [("all", "join", 2), ("all", "change", 2)]
    world.held[2] = PortFds(9)
    world.made.publish("change", record(2, epoch=9), 0.0)
    world.settle()
    assert world.out[2:] == [(1, "change", 2), (2, "change", 2)]


def test_during_quiet_no_newcomer_is_rolled_out() -> None:
    world = World(2)
    world.quiet = True
    world.join(2)
    assert world.out == [("all", "join", 2)]
    assert not world.made.tick(LINGER_S)


def test_many_changes_behind_an_introduction_need_no_deeper_stack() -> None:
    world = World(2)
    world.join(3)
    for number in range(5000):
        world.made.publish("change", record(3)._replace(name=f"n-{number}"), 0.0)
    world.settle()
    assert world.published == 5001
