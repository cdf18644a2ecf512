"""The order of changes: workers hear of newcomers by channel, several together; all else is published."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from forwarder.membership import MembershipLog
from forwarder.messages import MAX_PART, Update
from forwarder.names import Incarnation, Policy, PortRecord
from supervisor.membership.join_rollout import AT_ONCE, TURN_S, JoinRollout


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
        self.told = 0
        self.quiet = False
        self.out: list[Any] = []
        self.workers = [Worker(record(port)) for port in range(1, ports + 1)]
        self.held = {port: PortFds(port) for port in range(1, ports + 1)}
        self.beat_at = 100.0
        self.made = JoinRollout(self, self, self, self.record)  # type: ignore[arg-type]

    def publish(self, update: Update) -> None:
        assert update.sequence <= self.told + 1, "it would be ahead"
        assert not update.floods
        self.told = update.last
        self.out.append(("all", *_told(update)))

    def deadline(self) -> float:
        return self.beat_at

    def beat(self, now: float) -> None:
        assert self.told == self.log.sequence, "it would be ahead"
        self.beat_at = now + 100.0
        self.out.append("beat")

    def flush(self) -> None:
        """Of the channels."""

    def holders(self) -> list[Worker]:
        return self.workers

    def send(self, worker: Worker, update: Update, descriptors: tuple[object, ...] = ()) -> None:
        assert descriptors == (PortFds.flood,) * len(update.floods)
        self.told = update.last
        self.out.append((worker.record.port, *_told(update), *(port for port, _ in update.floods)))

    def record(self, served: Incarnation) -> PortRecord | None:
        return next((each.record for each in self.workers if each.served == served), None)

    def flood(self, port: Incarnation) -> str | None:
        held = self.held.get(port.port)
        return None if held is None or held.flood_epoch != port.epoch else held.flood

    def join(self, *ports: int) -> None:
        for port in ports:
            self.held.setdefault(port, PortFds(port))
            if all(worker.record.port != port for worker in self.workers):
                self.workers.insert(0, Worker(record(port)))
            self.made.publish("join", record(port))

    def settle(self, now: float = 0.0) -> None:
        while self.made.tick(now):
            pass


def _told(update: Update) -> list[str]:
    return [f"{change} {record.port}" for change, record in update.changes]


def test_a_newcomer_is_sent_to_all_workers_with_its_flood_ring_and_itself_last() -> None:
    world = World(3)
    world.join(4)
    world.settle()
    assert world.out == [(1, "join 4", 4), (2, "join 4", 4), (3, "join 4", 4), (4, "join 4")]
    assert world.made.deadline() == world.beat_at


def test_newcomers_of_one_turn_go_together() -> None:
    world = World(1)
    world.join(2, 3)
    world.settle()
    assert world.out == [
        (1, "join 2", "join 3", 2, 3),
        (3, "join 2", "join 3", 2),
        (2, "join 2", "join 3", 3),
    ]


def test_newcomers_wait_for_the_workers_and_then_go_together() -> None:
    world = World(2)
    world.join(3)
    world.settle()
    world.out.clear()
    world.join(4)
    world.settle()
    world.join(5)
    assert world.out == []
    assert world.made.deadline() == 3 * TURN_S
    world.settle(3 * TURN_S)
    assert (1, "join 4", "join 5", 4, 5) in world.out
    assert len(world.out) == 5


def test_more_changes_than_a_message_holds_go_in_several() -> None:
    world = World(1)
    world.join(*range(2, MAX_PART + 12))
    world.settle()
    world.settle(1.0)
    mine = [each for each in world.out if each[0] == 1]
    assert [len(each) for each in mine] == [1 + 2 * MAX_PART, 1 + 2 * 10]


def test_a_worker_out_of_reach_hears_of_a_newcomer_without_its_flood_ring() -> None:
    world = World(2)
    alone = world.workers[0].record
    world.workers[0] = Worker(alone._replace(policy=Policy(isolated=True, reaches=("vm-2",))))
    world.join(3)
    world.settle()
    assert world.out == [(1, "join 3"), (2, "join 3", 3), (3, "join 3")]


def test_a_newcomer_that_is_isolated_while_it_is_rolled_out_is_kept_from_the_remaining_workers() -> None:
    world = World(AT_ONCE + 5)
    world.join(100)
    assert world.made.tick(0.0)
    world.workers[0] = Worker(record(100)._replace(policy=Policy(isolated=True)))
    world.settle()
    assert [each[-1] for each in world.out] == [100] * AT_ONCE + ["join 100"] * 6


def test_other_changes_are_published_together() -> None:
    world = World(1)
    world.join(2)
    world.settle()
    world.out.clear()
    world.made.publish("change", record(2)._replace(name="other"))
    world.made.publish("leave", record(2))
    world.settle(1.0)
    assert world.out == [("all", "change 2", "leave 2")]


def test_a_change_waits_for_the_rollout_before_it() -> None:
    world = World(AT_ONCE + 5)
    world.join(100)
    assert world.made.tick(0.0)
    world.made.publish("change", record(100)._replace(name="other"))
    assert world.made.tick(0.0) is False
    assert len(world.out) == AT_ONCE + 6
    world.settle(1.0)
    assert world.out[-1] == ("all", "change 100")


def test_a_beat_is_never_ahead() -> None:
    world = World(AT_ONCE + 5)
    world.beat_at = 0.0
    world.join(100)
    assert world.made.tick(0.0)
    world.join(101)
    world.settle()
    assert "beat" not in world.out
    world.settle(1.0)
    assert world.out[-1] == "beat"


def test_a_settings_change_is_no_newcomer_but_another_worker_is() -> None:
    world = World(2)
    world.join(2)
    world.settle()
    world.out.clear()
    world.made.publish("change", record(2)._replace(name="other"))
    world.settle(1.0)
    assert world.out == [("all", "change 2")]
    world.held[2] = PortFds(9)
    world.made.publish("change", record(2, epoch=9))
    world.settle(2.0)
    assert world.out[1:] == [(1, "change 2", 2), (2, "change 2")]


def test_a_number_that_is_used_again_at_once_has_the_flood_ring_of_the_last_one() -> None:
    world = World(1)
    world.join(2)
    world.made.publish("leave", record(2))
    world.held[2] = PortFds(9)
    world.made.publish("join", record(2, epoch=9)._replace(born=9))
    world.settle()
    assert (1, "join 2", "leave 2", "join 2", 2) in world.out


def test_a_newcomer_that_has_left_again_has_no_flood_ring() -> None:
    world = World(1)
    world.join(2, 3)
    world.made.publish("leave", record(2))
    del world.held[2]
    world.settle()
    assert (1, "join 2", "join 3", "leave 2", 3) in world.out


def test_during_quiet_no_newcomer_is_rolled_out() -> None:
    world = World(2)
    world.quiet = True
    world.join(2)
    assert not world.made.tick(0.0)
    assert world.out == []


def test_many_changes_behind_a_newcomer_need_no_deeper_stack() -> None:
    world = World(2)
    world.join(3)
    for number in range(5000):
        world.made.publish("change", record(3)._replace(name=f"n-{number}"))
    world.settle()
    world.settle(1.0)
    assert world.told == 5001


def reserved(port: int) -> PortRecord:
    return record(port)._replace(name="")


def reserve(world: World, *ports: int) -> None:
    for port in ports:
        world.held[port] = PortFds(port)
        world.made.publish("reserve", reserved(port))
    world.settle()


def test_a_reserved_port_is_rolled_out_before_it_has_a_worker() -> None:
    world = World(2)
    reserve(world, 3, 4)
    assert world.out == [(1, "join 3", "join 4", 3, 4), (2, "join 3", "join 4", 3, 4)]


def test_only_its_own_worker_waits_for_a_vm_that_comes_to_a_reserved_port() -> None:
    world = World(2)
    reserve(world, 3, 4)
    world.out.clear()
    for port in (3, 4):
        world.workers.append(Worker(record(port)))
        world.made.publish("arrive", record(port))
        world.settle()
    assert world.out == [(3, "change 3"), (4, "change 3", "change 4")]


def with_a_late_change() -> World:
    """Return a world where a VM has come to reserved port 3, and ports 1 and 2 have not heard of it yet."""
    world = World(2)
    reserve(world, 3)
    world.workers.append(Worker(record(3)))
    world.made.publish("arrive", record(3))
    world.settle(1.0)
    world.out.clear()
    return world


def test_the_others_hear_of_it_before_the_next_beat() -> None:
    world = with_a_late_change()
    world.told = 1
    world.beat_at = 2.0
    world.settle(2.0)
    assert world.out == [("all", "change 3"), "beat"]


def test_the_others_hear_of_it_with_the_next_changes() -> None:
    world = with_a_late_change()
    reserve(world, 4)
    world.settle(1.0)
    assert world.out == [(port, "change 3", "join 4", 4) for port in (1, 2, 3)]
    world.out.clear()
    world.made.publish("cancel", reserved(4))
    world.settle(2.0)
    assert world.out == []
    world.made.publish("change", record(3)._replace(name="other"))
    world.settle(2.0)
    assert world.out == [("all", "leave 4", "change 3")]


def test_a_reserved_port_with_other_settings_is_told_to_all_before_its_own_worker() -> None:
    world = World(1)
    reserve(world, 2)
    world.workers.insert(0, Worker(record(2)))
    world.out.clear()
    world.made.publish("join", record(2))
    world.settle(1.0)
    assert world.out == [(1, "change 2", 2), (2, "change 2")]


def test_many_late_changes_go_in_messages_that_hold_them() -> None:
    world = World(1)
    ports = range(2, 2 * MAX_PART + 2)
    for start in range(2, 2 * MAX_PART + 2, 4):
        reserve(world, *range(start, start + 4))
        world.settle(1000.0 * start)
    world.out.clear()
    for port in ports:
        world.made.publish("cancel", reserved(port))
    world.beat_at = 1e9
    world.settle(1e9)
    assert sum(len(each) - 1 for each in world.out if each != "beat") == len(ports)
    assert all(len(each) <= MAX_PART + 1 for each in world.out)
