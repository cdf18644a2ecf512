"""However the network and both sides misbehave, every replica ends up with the registry's table.

A virtual clock drives a real publisher and a real replica over a network that loses, duplicates, delays
and reorders messages as often as Hypothesis tells it to; both sides restart. At every step the replica's
table has to be one that the publisher had, under the number that the replica gives it, and what the replica
told its caller has to add up to that table. When the faults stop, the replica must be level within SETTLED_S.
"""

import heapq
import itertools
import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.membership import BEAT_S, MembershipLog, Snapshot
from forwarder.names import Policy, PortRecord
from forwarder.replica import (
    ASK_LONGEST_S,
    SILENT_BEATS,
    AskSnapshot,
    Changed,
    Joined,
    Left,
    Replica,
    ReplicaState,
)

LATENCY_S = 0.001
LONGEST_DELAY_S = 3.0
SETTLED_S = LONGEST_DELAY_S + SILENT_BEATS * BEAT_S + 2 * BEAT_S + 2 * ASK_LONGEST_S


class Faults(NamedTuple):
    """How often each happens to a message, and how long a late one takes at most (seconds)."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    delay: float = 0.0


class World:
    def __init__(self, seed, faults):
        self.now = 0.0
        self.random = random.Random(seed)
        self.faults = faults
        self.order = itertools.count()
        self.epochs = itertools.count(2)
        self.flying = []  # (when, order, worker's life, message or None for a request)
        self.registry = {}
        self.history = {}
        self.worker_life = 0
        self.lost = 0
        self.publisher = None
        self.back_at = None
        self.start_supervisor()
        self.start_worker()

    def start_supervisor(self):
        self.publisher = MembershipLog(next(self.epochs))
        self.note()
        self.next_beat = self.now
        for record in self.registry.values():
            self.publish("join", record)

    def start_worker(self):
        self.worker_life += 1
        self.replica = Replica(self.now, self.random.random)
        self.told = {}
        self.heard = (0, 0)
        self.applied = (0, 0)

    def note(self):
        table = {record.port: record for record in self.publisher.snapshot().records}
        self.history[self.publisher.epoch, self.publisher.sequence] = table

    def publish(self, change, record):
        if self.publisher is not None:
            update = self.publisher.update(change, record)
            self.note()
            self.broadcast(update)

    def change(self, kind, port):
        known = self.registry.get(port)
        epoch = next(self.epochs)
        if kind == "join" and known is None:
            record = PortRecord(port, epoch, epoch, f"tap-{port}", "tap", Policy())
        elif kind == "change" and known is not None:
            record = known._replace(epoch=epoch)
        elif kind == "leave" and known is not None:
            record = self.registry.pop(port)
        else:
            return
        if kind != "leave":
            self.registry[port] = record
        self.publish(kind, record)

    def broadcast(self, message):
        if self.lost:
            self.lost -= 1
        else:
            self.send(message)

    def send(self, message):
        if self.random.random() < self.faults.lost:
            return
        for _ in range(1 + (self.random.random() < self.faults.twice)):
            late = self.random.random() < self.faults.late
            when = self.now + LATENCY_S + late * self.random.random() * self.faults.delay
            heapq.heappush(self.flying, (when, next(self.order), self.worker_life, message))

    def faults_stop(self):
        self.lost = 0
        self.faults = Faults()
        if self.publisher is None:
            self.back_at = self.now

    def run(self, seconds):
        end = self.now + seconds
        while True:
            due = [end, self.replica.deadline()]
            if self.flying:
                due.append(self.flying[0][0])
            due.append(self.next_beat if self.publisher is not None else self.back_at)
            self.now = max(self.now, min(due))
            if self.now >= end:
                return
            self.step()

    def step(self):
        if self.publisher is None and self.now >= self.back_at:
            self.start_supervisor()
        elif self.publisher is not None and self.now >= self.next_beat:
            self.broadcast(self.publisher.beat())
            self.next_beat = self.now + self.publisher.interval_s()
        elif self.flying and self.now >= self.flying[0][0]:
            _, _, life, message = heapq.heappop(self.flying)
            if message is None:
                if self.publisher is not None:
                    self.send(self.publisher.snapshot())
            elif life == self.worker_life:
                if not isinstance(message, Snapshot):
                    last_epoch, last_sequence = self.heard
                    known = last_sequence if message.epoch == last_epoch else 0
                    self.heard = (message.epoch, max(known, message.sequence))
                self.take(self.replica.receive(message, self.now))
        else:
            self.take(self.replica.tick(self.now))
            assert self.replica.deadline() > self.now, "a tick that does not move the deadline is a spin"

    def take(self, actions):
        for action in actions:
            match action:
                case AskSnapshot():
                    assert self.heard != (0, 0), "asked before anything came through the subscription"
                    self.send(None)
                case Joined(record):
                    assert record.port not in self.told
                    self.told[record.port] = record
                case Changed(record):
                    assert self.told[record.port].born == record.born
                    self.told[record.port] = record
                case Left(record):
                    assert self.told.pop(record.port) == record
        replica = self.replica
        assert replica.table == self.told
        now = (replica.epoch, replica.sequence)
        if now != (0, 0):
            assert self.told == self.history[now], "a table that never was"
        if replica.state is ReplicaState.LIVE:
            assert now[0] == self.heard[0], "sure of another supervisor's table"
            assert now[1] >= self.heard[1], "sure of a table that is known to be old"
        if now[0] == self.applied[0]:
            assert now >= self.applied, "set back"
        self.applied = now


FAULTS = {
    "lost": [0.0, 0.1, 0.4],
    "twice": [0.0, 0.3],
    "late": [0.0, 0.2, 0.6],
    "delay": [0.01, 0.5, LONGEST_DELAY_S],
}
EVENTS = {
    "join": [1, 2, 3],
    "change": [1, 2, 3],
    "leave": [1, 2, 3],
    "run": [0.0005, 0.002, 0.1, 0.6, 1.0, 5.0],
    "lose": [1, 2, 5],
    "supervisor dies": [0.01, 0.5, 5.0],
    "worker dies": [None],
}


def happen(world, event, argument):
    match event:
        case "join" | "change" | "leave":
            world.change(event, argument)
        case "run":
            world.run(argument)
        case "lose":
            world.lost = argument
        case "supervisor dies":
            world.publisher, world.back_at = None, world.now + argument
        case "worker dies":
            world.start_worker()


def live_through(world, events):
    for event, argument in events:
        happen(world, event, argument)
    world.faults_stop()
    world.run(SETTLED_S)
    assert world.replica.state is ReplicaState.LIVE
    assert (world.replica.epoch, world.replica.sequence) == (world.publisher.epoch, world.publisher.sequence)
    assert world.told == world.registry


@settings(max_examples=150)
@given(
    st.integers(0, 1 << 32),
    st.builds(Faults, **{name: st.sampled_from(values) for name, values in FAULTS.items()}),
    st.lists(
        st.sampled_from([(event, argument) for event, values in EVENTS.items() for argument in values]),
        max_size=60,
    ),
)
def test_the_replica_is_level_soon_after_the_faults_stop(seed, faults, events):
    live_through(World(seed, faults), events)


@pytest.mark.parametrize("seed", range(100))
def test_a_long_and_troubled_life(seed):
    chance = random.Random(seed)
    faults = Faults(**{name: chance.choice(values) for name, values in FAULTS.items()})
    weights = [2, 2, 2, 20, 1, 1, 0.2]
    events = [(event, chance.choice(EVENTS[event])) for event in chance.choices(list(EVENTS), weights, k=400)]
    live_through(World(seed, faults), events)


def test_a_lost_tail_is_noticed_by_the_next_beat_though_nothing_else_happens():
    world = World(1, Faults())
    world.run(1.5)
    world.lost = 3
    for port in (1, 2, 3):
        world.change("join", port)
    world.run(2 * BEAT_S)
    assert world.told == world.registry
    assert len(world.told) == 3


def test_a_worker_joins_within_a_beat():
    world = World(1, Faults())
    world.change("join", 1)
    world.run(BEAT_S / 2)
    world.start_worker()
    world.run(BEAT_S)
    assert world.told == world.registry


def test_a_dead_supervisor_leaves_the_table_in_force():
    world = World(1, Faults())
    world.change("join", 1)
    world.run(1.5)
    happen(world, "supervisor dies", 3600.0)
    world.run(3599.0)
    assert world.replica.state is ReplicaState.LISTENING
    assert world.told == world.registry
    world.run(1.0 + 2 * BEAT_S)
    assert world.replica.state is ReplicaState.LIVE
