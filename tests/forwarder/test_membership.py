"""The log of membership and its replica: snapshots, gaps, silence, and changes that come by channel."""

import itertools
import math

import pytest

from forwarder.errors import LocalError
from forwarder.membership import MembershipLog
from forwarder.names import MAX_PORTS, Policy, PortRecord
from forwarder.replica import (
    ASK_LONGEST_S,
    BUFFERED,
    SILENT_BEATS,
    AskSnapshot,
    Changed,
    Joined,
    Left,
    Replica,
    ReplicaState,
)


def record(port, epoch=1, born=1):
    return PortRecord(port, epoch, born, f"tap-{port}", "tap", Policy())


def publisher_of(*ports, epoch=10):
    publisher = MembershipLog(epoch)
    for port in ports:
        publisher.update("join", record(port))
    return publisher


def live_replica(publisher, now=0.0, jitter=0.0):
    replica = Replica(now, lambda: jitter)
    assert replica.receive(publisher.beat(), now) == [AskSnapshot()]
    replica.receive(publisher.snapshot(), now)
    assert replica.state is ReplicaState.LIVE
    return replica


# --- the publisher


def test_every_change_has_a_number_and_beats_and_snapshots_carry_the_last():
    publisher = MembershipLog(10)
    assert publisher.beat()[:2] == (10, 0)
    assert publisher.update("join", record(1)) == (10, 1, (("join", record(1)),), ())
    assert publisher.update("change", record(1, epoch=2))[:2] == (10, 2)
    assert publisher.beat()[:2] == (10, 2)
    assert publisher.snapshot() == (10, 2, (record(1, epoch=2),))
    assert publisher.update("leave", record(1, epoch=2))[:2] == (10, 3)
    assert publisher.snapshot() == (10, 3, ())


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        ("join", record(1, epoch=9, born=9)),
        ("change", record(2)),
        ("leave", record(2)),
        ("change", record(1, epoch=4)),
        ("change", record(1, epoch=9, born=9)),
    ],
)
def test_a_change_that_makes_no_sense_is_not_published(change, bad):
    publisher = MembershipLog(10)
    publisher.update("join", record(1, epoch=5))
    with pytest.raises(LocalError):
        publisher.update(change, bad)
    assert publisher.snapshot() == (10, 1, (record(1, epoch=5),))


def test_the_beat_slows_down_as_the_fleet_grows():
    publisher = MembershipLog(10)
    assert publisher.beat() == (10, 0, 1000, 1000)
    for port in range(1, 201):
        publisher.update("join", record(port))
    assert publisher.beat() == (10, 200, 20_000, 4000)


# --- joining


def test_nothing_is_asked_before_a_message_has_come_through_the_subscription():
    replica = Replica(0.0, lambda: 0.0)
    assert replica.deadline() == math.inf
    assert replica.tick(1000.0) == []
    assert replica.receive(publisher_of(1).snapshot(), 1000.0) == []
    assert (replica.state, replica.table) == (ReplicaState.COLD, {})
    assert replica.receive(publisher_of(1).beat(), 1001.0) == [AskSnapshot()]


def test_an_update_proves_the_subscription_as_well_as_a_beat():
    publisher = publisher_of(1)
    replica = Replica(0.0, lambda: 0.0)
    assert replica.receive(publisher.update("join", record(2)), 0.0) == [AskSnapshot()]
    assert replica.receive(publisher.snapshot(), 0.1) == [Joined(record(1)), Joined(record(2))]
    assert (replica.epoch, replica.sequence) == (10, 2)


def test_updates_that_cross_the_snapshot_are_applied_to_it_once():
    publisher = publisher_of(1)
    replica = Replica(0.0, lambda: 0.0)
    replica.receive(publisher.beat(), 0.0)
    assert replica.receive(publisher.update("join", record(2)), 0.1) == []
    snapshot = publisher.snapshot()
    assert replica.receive(publisher.update("leave", record(1)), 0.2) == []
    assert replica.receive(snapshot, 0.3) == [Joined(record(2))]
    assert (replica.state, replica.sequence) == (ReplicaState.LIVE, 3)


def test_a_snapshot_older_than_later_messages_is_dropped_and_asked_for_again():
    publisher = publisher_of(1)
    replica = Replica(0.0, lambda: 0.0)
    replica.receive(publisher.beat(), 0.0)
    late = publisher.snapshot()
    publisher.update("join", record(2))  # lost
    replica.receive(publisher.update("join", record(3)), 0.1)
    assert replica.receive(late, 0.2) == []
    assert (replica.state, replica.table) == (ReplicaState.SYNCING, {})
    assert replica.tick(replica.deadline()) == [AskSnapshot()]
    assert len(replica.receive(publisher.snapshot(), 1.0)) == 3


def test_a_snapshot_of_another_supervisor_is_not_believed():
    replica = Replica(0.0, lambda: 0.0)
    replica.receive(publisher_of(1, epoch=11).beat(), 0.0)
    assert replica.receive(publisher_of(1, 2, epoch=10).snapshot(), 0.1) == []
    assert replica.state is ReplicaState.SYNCING


def test_an_unanswered_question_is_repeated_ever_less_often():
    publisher = publisher_of(1)
    replica = Replica(0.0, lambda: 1.0)
    replica.receive(publisher.beat(), 0.0)
    asked = [0.0]
    now = 0.0
    while now < 35.0:
        now += 0.05
        if now % 1.0 < 0.05:
            replica.receive(publisher.beat(), now)
        if replica.tick(now):
            asked.append(now)
    waits = [after - before for before, after in itertools.pairwise(asked)]
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 8, 8], abs=0.2)
    assert max(waits) < ASK_LONGEST_S + 0.2


def test_updates_kept_for_a_snapshot_are_bounded():
    publisher = publisher_of()
    replica = Replica(0.0, lambda: 0.0)
    replica.receive(publisher.beat(), 0.0)
    early = publisher.snapshot()
    for _ in range(BUFFERED):
        replica.receive(publisher.update("join", record(1)), 0.1)
        replica.receive(publisher.update("leave", record(1)), 0.1)
    assert replica.receive(early, 0.2) == []  # the updates that follow it have been thrown away
    assert replica.receive(publisher.snapshot(), 0.3) == []  # the table is empty, but it is one
    assert (replica.state, replica.sequence) == (ReplicaState.LIVE, 2 * BUFFERED)


# --- following


def test_updates_in_sequence_are_told_as_differences():
    publisher = publisher_of(1)
    replica = live_replica(publisher)
    assert replica.receive(publisher.update("join", record(2)), 0.1) == [Joined(record(2))]
    assert replica.receive(publisher.update("change", record(2, epoch=3)), 0.2) == [
        Changed(record(2, epoch=3))
    ]
    assert replica.receive(publisher.update("leave", record(2, epoch=3)), 0.3) == [Left(record(2, epoch=3))]
    assert dict(replica.table) == {1: record(1)}
    assert replica.sequence == publisher.sequence


def test_a_repeated_update_counts_once():
    publisher = publisher_of(1)
    replica = live_replica(publisher)
    update = publisher.update("join", record(2))
    replica.receive(update, 0.1)
    assert replica.receive(update, 0.2) == []
    assert replica.receive(publisher.beat(), 0.3) == []
    assert replica.receive(publisher_of(1).beat(), 0.4) == []
    assert (replica.state, replica.sequence) == (ReplicaState.LIVE, 2)


def test_an_unrequested_snapshot_does_not_set_the_table_back():
    publisher = publisher_of(1)
    replica = live_replica(publisher)
    old = publisher.snapshot()
    replica.receive(publisher.update("join", record(2)), 0.1)
    assert replica.receive(old, 0.2) == []
    assert len(replica.table) == 2


# --- losing and finding


def lose_one_then_update(publisher):
    publisher.update("join", record(8))
    return publisher.update("join", record(9))


def lose_the_last_then_beat(publisher):
    publisher.update("join", record(8))
    return publisher.beat()


def restart(publisher):
    return publisher_of(1, epoch=publisher.epoch + 1).beat()


@pytest.mark.parametrize("loss", [lose_one_then_update, lose_the_last_then_beat, restart])
def test_a_loss_is_noticed_and_the_old_table_stays_in_force_until_the_new_one_is_complete(loss):
    publisher = publisher_of(1, 2)
    replica = live_replica(publisher, jitter=0.5)
    assert replica.receive(loss(publisher), 10.0) == []
    assert replica.state is ReplicaState.LISTENING
    assert len(replica.table) == 2
    assert replica.deadline() == 10.25  # half of half an interval
    assert replica.tick(10.2) == []
    assert replica.tick(10.25) == [AskSnapshot()]
    assert len(replica.table) == 2


def test_a_resynchronised_replica_tells_only_the_differences():
    publisher = MembershipLog(10)
    for port in (1, 2, 3, 4):
        publisher.update("join", record(port))
    replica = live_replica(publisher)
    publisher.update("leave", record(1))
    publisher.update("change", record(2, epoch=5))
    publisher.update("leave", record(3))
    publisher.update("join", record(3, epoch=6, born=6))
    publisher.update("join", record(5, epoch=7, born=7))
    replica.receive(publisher.beat(), 1.0)
    replica.tick(1.0)
    assert replica.receive(publisher.snapshot(), 1.1) == [
        Left(record(1)),
        Changed(record(2, epoch=5)),
        Left(record(3)),
        Joined(record(3, epoch=6, born=6)),
        Joined(record(5, epoch=7, born=7)),
    ]


def test_a_supervisor_that_comes_back_with_the_same_ports_changes_nothing():
    replica = live_replica(publisher_of(1, 2))
    successor = publisher_of(1, 2, epoch=11)
    replica.receive(successor.beat(), 1.0)
    replica.tick(1.0)
    assert replica.receive(successor.snapshot(), 1.1) == []
    assert (replica.state, replica.epoch) == (ReplicaState.LIVE, 11)


def test_after_silence_nothing_is_asked_until_a_message_arrives():
    publisher = publisher_of(1)
    replica = live_replica(publisher)
    assert replica.deadline() == SILENT_BEATS * 1.0
    assert replica.tick(2.9) == []
    assert replica.tick(3.0) == []
    assert replica.state is ReplicaState.LISTENING
    assert replica.deadline() == math.inf
    assert replica.tick(1000.0) == []
    assert dict(replica.table) == {1: record(1)}
    assert replica.receive(publisher.beat(), 1001.0) == [AskSnapshot()]


def test_silence_is_measured_in_the_intervals_that_the_beat_tells():
    publisher = publisher_of(*range(1, MAX_PORTS))
    replica = live_replica(publisher)
    assert replica.deadline() == pytest.approx(SILENT_BEATS * (MAX_PORTS - 1) / 10)


def test_silence_while_asking_ends_the_asking():
    publisher = publisher_of(1)
    replica = Replica(0.0, lambda: 1.0)
    replica.receive(publisher.beat(), 0.0)
    replica.tick(0.5)
    replica.tick(1.5)
    assert replica.tick(3.0) == []
    assert replica.state is ReplicaState.LISTENING
    assert replica.receive(publisher.snapshot(), 3.1) == []
    assert replica.tick(100.0) == []


def test_another_supervisor_while_asking_begins_again():
    replica = Replica(0.0, lambda: 0.5)
    replica.receive(publisher_of(1).beat(), 0.0)
    successor = publisher_of(2, epoch=11)
    assert replica.receive(successor.beat(), 0.1) == []
    assert replica.state is ReplicaState.LISTENING
    assert replica.tick(replica.deadline()) == [AskSnapshot()]
    assert replica.receive(successor.snapshot(), 1.0) == [Joined(record(2))]


def test_a_late_message_of_a_past_supervisor_cannot_set_the_table_back():
    replica = live_replica(publisher_of(1))
    successor = publisher_of(1, epoch=11)
    replica.receive(successor.beat(), 1.0)
    replica.tick(1.0)
    early = successor.snapshot()
    successor.update("join", record(2))
    replica.receive(successor.snapshot(), 1.1)
    replica.receive(publisher_of(1).beat(), 1.2)
    replica.tick(1.2)
    replica.receive(MembershipLog(11).beat(), 1.3)  # late too
    replica.tick(1.3)
    assert replica.receive(early, 1.4) == []
    assert len(replica.table) == 2


def test_a_change_may_also_come_outside_the_subscription():
    publisher = publisher_of(1)
    replica = live_replica(publisher_of(1))
    update = publisher.update("join", record(2))
    assert replica.overhear(update, 1.0) == [Joined(record(2))]
    assert replica.receive(update, 2.0) == [], "the copy that is published says nothing new"
    assert replica.overhear(update, 2.0) == []
    assert replica.state is ReplicaState.LIVE


def test_a_change_that_overtakes_an_earlier_one_waits_for_it():
    publisher = publisher_of(1, 2)
    replica = live_replica(publisher_of(1, 2))
    left = publisher.update("leave", record(2))
    joined = publisher.update("join", record(3))
    assert replica.overhear(joined, 1.0) == []
    assert replica.state is ReplicaState.LIVE
    assert replica.receive(left, 1.0) == [Left(record(2)), Joined(record(3))]
    assert replica.receive(joined, 2.0) == []
    assert replica.state is ReplicaState.LIVE


def test_of_changes_that_come_together_those_that_are_known_count_once():
    publisher = publisher_of(1)
    replica = live_replica(publisher_of(1))
    changes = [publisher.update("join", record(number)) for number in (2, 3, 4)]
    together = changes[0]._replace(changes=tuple(each.changes[0] for each in changes))
    assert replica.receive(changes[0], 1.0) == [Joined(record(2))]
    assert replica.overhear(together, 1.0) == [Joined(record(3)), Joined(record(4))]
    assert replica.sequence == together.last == publisher.sequence
    assert replica.receive(together, 2.0) == []
    assert replica.receive(publisher.beat(), 2.0) == []
    assert replica.state is ReplicaState.LIVE


def test_the_last_of_changes_that_come_together_is_not_missed():
    publisher = publisher_of(1)
    replica = live_replica(publisher_of(1))
    first, second = (publisher.update("join", record(number)) for number in (2, 3))
    later = publisher.update("join", record(4))
    together = first._replace(changes=first.changes + second.changes)
    assert replica.overhear(later, 1.0) == []
    assert replica.receive(together, 1.0) == [Joined(record(number)) for number in (2, 3, 4)]


def test_a_change_that_comes_before_the_table_is_not_forgotten():
    publisher = publisher_of(1)
    replica = Replica(0.0, lambda: 0.0)
    assert replica.receive(publisher.beat(), 0.0) == [AskSnapshot()]
    snapshot = publisher.snapshot()
    assert replica.overhear(publisher.update("join", record(2)), 0.0) == []
    assert replica.receive(snapshot, 0.0) == [Joined(record(1)), Joined(record(2))]
    assert replica.state is ReplicaState.LIVE


def test_another_supervisors_change_is_not_overheard():
    replica = live_replica(publisher_of(1))
    update = publisher_of(1).update("join", record(2))
    assert replica.overhear(update._replace(epoch=update.epoch + 1), 1.0) == []
    assert replica.state is ReplicaState.LIVE
