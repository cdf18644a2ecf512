"""What a worker asks the supervisor for, and what it does with the answers."""

import os

import pytest

from forwarder._core import LARGEST_FRAME, MAX_FRAME, TAKES_LARGE
from forwarder.messages import (
    Change,
    Floods,
    RingOpen,
    RingRx,
    RingSealed,
    RingTx,
    Update,
    WantFloods,
    WantRing,
)
from forwarder.names import MAX_PORTS, Policy
from forwarder.replica import Changed, Joined, Left
from tests.helpers.descriptors import is_open
from tests.helpers.links_bench import MAC, NOW, OTHER_MAC, Bench, port, update
from workers.flood_rings import REPEAT_S
from workers.links import IDLE_S


@pytest.fixture
def bench():
    return Bench()


def test_every_port_that_joins_is_known_to_the_engine_and_its_floods_are_asked_for_in_one_message(bench):
    for number in (2, 3, 4):
        bench.links.apply(Joined(port(number, epoch=number * 10)))
    bench.links.tick(now=5.0)
    assert bench.engine.took("peer_join") == [(2, 20, 20), (3, 30, 30), (4, 40, 40)]
    assert bench.sent == [WantFloods(((2, 20), (3, 30), (4, 40)))]


def test_an_unanswered_request_is_repeated_and_an_answered_one_is_not(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.apply(Joined(port(3)))
    bench.links.tick(now=5.0)
    (fd,) = fds = bench.descriptors(1)
    bench.links.receive(Floods(((2, 10),)), fds, 0.0)
    assert bench.engine.took("attach_flood") == [(2, 10, fd, NOW)]
    assert bench.links.deadline() == 5.0 + REPEAT_S
    bench.links.tick(now=5.0 + REPEAT_S)
    assert bench.sent[1:] == [WantFloods(((3, 10),))]


def test_the_worker_itself_is_no_peer_but_its_policy_is_applied(bench):
    own = port(1, policy=Policy(pinned=(MAC,), flood_unknown=False))
    bench.links.apply(Changed(own))
    bench.links.apply(Left(own))
    assert bench.engine.took("peer_join") == []
    assert bench.engine.took("pin")[-1] == (1, [MAC])
    assert bench.engine.took("set_flood_unknown")[-1] == (False,)


def test_the_engine_hears_of_changed_offload_settings_of_sockets_only():
    tso, large = Policy(offload="tso"), Policy(mtu=9000, receive="large")
    for transport, infer, take in (
        ("qemu", [(0,), (1500,), (0,)], [(0, MAX_FRAME), (0, MAX_FRAME), (TAKES_LARGE, LARGEST_FRAME)]),
        ("vhost", [], []),
        ("tap", [], []),
    ):
        own = port(1)._replace(transport=transport)
        bench = Bench(own)
        for policy in (tso, tso._replace(max_macs=7), large):
            bench.links.apply(Changed(own._replace(policy=policy)))
        assert bench.engine.took("limit") == [(MAX_FRAME,), (1518,), (MAX_FRAME,)]
        assert bench.engine.took("infer") == infer
        assert bench.engine.took("take") == take


def test_a_wanted_ring_is_asked_for_once_then_given_up_for_a_while_and_asked_for_again(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.tick(now=0.0)
    bench.links.want([2], now=1.0)
    bench.links.want([2], now=1.1)
    assert bench.sent[1:] == [WantRing(2, 10)]
    bench.links.receive(Floods(((2, 10),)), bench.descriptors(1), 0.0)
    bench.links.tick(now=1.0 + REPEAT_S)
    assert bench.engine.took("give_up_ring") == [(2,)]
    assert bench.sent[2:] == [WantRing(2, 10)]
    bench.links.receive(RingTx(2, 10), bench.descriptors(3), 0.0)
    assert len(bench.engine.took("attach_tx")) == 1
    assert bench.sent[3:] == [RingSealed(2, 10)]
    bench.links.tick(now=1.0 + 2 * REPEAT_S)
    assert bench.sent[4:] == [WantRing(2, 10)], "it is not known that its consumer has it"
    bench.links.receive(RingOpen(2, 9), (), 0.0)
    assert bench.links.deadline() == 1.0 + 3 * REPEAT_S
    bench.links.receive(RingOpen(2, 10), (), 0.0)
    assert bench.links.deadline() == IDLE_S


def test_no_ring_is_asked_for_to_a_port_that_is_not_a_member(bench):
    bench.links.want([9], now=1.0)
    assert bench.sent == []


def test_a_new_epoch_starts_over(bench):
    bench.links.apply(Joined(port(2, epoch=10)))
    bench.links.want([2], now=0.0)
    bench.links.apply(Changed(port(2, epoch=12, born=10)))
    bench.links.tick(now=0.5)
    assert bench.engine.took("peer_join") == [(2, 10, 10), (2, 12, 10)]
    assert bench.sent == [WantRing(2, 10), WantFloods(((2, 12),))]


def test_a_port_that_leaves_takes_its_requests_with_it(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.want([2], now=0.0)
    bench.links.apply(Left(port(2)))
    bench.links.tick(now=9.0)
    assert bench.engine.took("peer_leave") == [(2,)]
    assert bench.sent == [WantRing(2, 10)]


def test_a_renamed_port_keeps_its_rings(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.apply(Changed(port(2)._replace(name="other")))
    assert len(bench.engine.took("peer_join")) == 1


@pytest.mark.parametrize("refuse", [False, True])
def test_descriptors_are_closed_after_every_outcome(bench, refuse):
    bench.engine.refuse = refuse
    bench.links.apply(Joined(port(2)))
    received = []
    for message, count in ((Floods(((2, 10),)), 1), (RingTx(2, 10), 3), (RingRx(2, 10), 2)):
        fds = bench.descriptors(count)
        bench.links.receive(message, fds, 0.0)
        received += fds
    for now in (5.0, 5.0 + REPEAT_S):
        bench.links.tick(now)
    duplicates = [call[4] for call in bench.engine.took("attach_tx")]
    assert not any(is_open(fd) for fd in received if fd not in duplicates)
    for fd in duplicates:
        os.close(fd)


def test_rings_of_a_past_epoch_are_not_attached(bench):
    bench.links.apply(Joined(port(2, epoch=12)))
    bench.links.receive(Floods(((2, 10),)), bench.descriptors(1), 0.0)
    assert bench.engine.took("attach_flood") == []


def test_the_limits_of_the_port_itself_are_in_force_from_the_start_and_set_again_only_when_they_change():
    own = port(1, policy=Policy(broadcast_per_s=7, bytes_per_s=1_000_000, max_macs=3))
    bench = Bench(own)
    limits = {"broadcast": 7, "multicast": 20_000, "unknown": 20_000, "bytes": 1_000_000, "macs": 3}
    assert bench.engine.took("set_limits") == [(limits,)]
    bench.links.apply(Joined(own))
    bench.links.apply(Changed(own._replace(name="renamed")))
    assert len(bench.engine.took("set_limits")) == 1
    bench.links.apply(Changed(own._replace(policy=own.policy._replace(broadcast_per_s=8))))
    assert bench.engine.took("set_limits")[1:] == [(limits | {"broadcast": 8},)]


def test_a_peer_is_within_reach_or_not_before_anything_of_it_is_attached(bench):
    bench.links.apply(Joined(port(2, policy=Policy(isolated=True))))
    names = [call[0] for call in bench.engine.calls if call[1:2] == (2,)]
    assert names[:2] == ["peer_join", "set_reach"]
    assert bench.engine.took("set_reach") == [(2, False)]


def test_reach_follows_every_change_of_either_side(bench):
    def reach():
        return dict(bench.engine.took("set_reach"))

    isolated = Policy(isolated=True)
    bench.links.apply(Joined(port(2)))
    bench.links.apply(Joined(port(3, policy=isolated)))
    assert reach() == {2: True, 3: False}
    bench.links.apply(Changed(port(3, policy=isolated._replace(reaches=("vm-1",)))))
    assert reach() == {2: True, 3: True}
    bench.links.apply(Changed(port(1, policy=isolated._replace(reaches=("vm-2",)))))
    assert reach() == {2: True, 3: False}
    bench.links.apply(Changed(port(2)._replace(name="other")))
    assert reach() == {2: False, 3: False}
    bench.links.apply(Changed(port(1)))
    assert reach() == {2: True, 3: True}


def test_an_address_that_moves_is_pinned_to_its_new_port_although_the_old_one_is_heard_of_later(bench):
    pinned, both = Policy((MAC,)), Policy((MAC, OTHER_MAC))
    bench.links.apply(Joined(port(3, policy=both)))
    bench.links.apply(Joined(port(2)))
    bench.engine.calls.clear()
    bench.links.apply(Changed(port(2, policy=pinned)))
    assert bench.engine.took("pin") == [(3, [OTHER_MAC]), (2, [MAC])]
    bench.links.apply(Changed(port(3, policy=Policy((OTHER_MAC,)))))
    assert bench.engine.took("pin")[2:] == [(3, [OTHER_MAC])]
    bench.links.apply(Changed(port(1, policy=pinned)))
    assert bench.engine.took("pin")[3:] == [(2, []), (1, [MAC])]


def test_a_later_worker_of_a_port_forgets_the_pins_that_its_table_brings_along():
    cleared = {number for number, macs in Bench(port(5, epoch=9, born=4)).engine.took("pin") if macs == []}
    assert cleared == set(range(1, MAX_PORTS))


def test_half_of_a_ring_that_comes_before_its_port_is_kept_for_it(bench):
    ring, tail, flood = bench.descriptors(3)
    bench.links.receive(RingRx(2, 11), (ring, tail), 0.0)
    bench.links.apply(Joined(port(2, epoch=10)))
    bench.links.apply(Changed(port(2, epoch=11, born=10)))
    assert is_open(ring)
    bench.links.receive(Floods(((2, 11),)), (flood,), 0.0)
    assert bench.engine.took("attach_rx") == [(2, 11, ring, tail)]
    assert not is_open(ring)
    assert not is_open(tail)


def test_half_of_a_ring_waits_for_the_floods_of_its_port_but_not_for_ever(bench):
    ring, tail = bench.descriptors(2)
    bench.links.apply(Joined(port(2)))
    bench.links.receive(RingRx(2, 10), (ring, tail), 0.0)
    bench.links.tick(now=5.0)
    assert bench.engine.took("attach_rx") == []
    bench.links.tick(now=5.0 + REPEAT_S)
    assert bench.engine.took("attach_rx") == [(2, 10, ring, tail)]
    assert not is_open(ring)
    assert not is_open(tail)


def test_of_two_early_halves_the_later_counts_and_one_of_a_past_epoch_is_closed(bench):
    first, second, third, late, tail = bench.descriptors(5)
    bench.links.receive(RingRx(2, 10), (first, os.dup(tail)), 0.0)
    bench.links.receive(RingRx(2, 10), (second, os.dup(tail)), 0.0)
    assert not is_open(first)
    bench.links.apply(Joined(port(2, epoch=12)))
    assert not is_open(second)
    bench.engine.refuse = True
    bench.links.receive(RingRx(2, 11), (late, os.dup(tail)), 0.0)
    assert not is_open(late)
    bench.links.receive(RingRx(2, 12), (third, tail), 0.0)
    bench.links.apply(Left(port(2, epoch=12)))
    assert not is_open(third)
    assert not is_open(tail)
    assert bench.engine.took("attach_rx") == []


def test_rings_of_a_port_that_has_left_are_not_kept(bench):
    bench.links.apply(Joined(port(2, epoch=20)))
    bench.links.apply(Left(port(2, epoch=20)))
    late = bench.descriptors(2), bench.descriptors(1)
    bench.links.receive(RingRx(2, 20), late[0], 0.0)
    bench.links.receive(update(2, "join", port(2, epoch=20)), late[1], 0.0)
    assert not any(is_open(fd) for fds in late for fd in fds)
    assert bench.links._early == bench.links.floods.early == {}
    bench.links.receive(RingRx(2, 21), early := bench.descriptors(2), 0.0)
    assert all(is_open(fd) for fd in early)
    bench.links.apply(Joined(port(2, epoch=22)))
    assert not any(is_open(fd) for fd in early)


def test_a_newcomers_flood_ring_that_comes_along_is_not_asked_for(bench):
    bench.links.apply(Joined(port(2)))
    (fd,) = fds = bench.descriptors(1)
    bench.links.receive(update(1, "join", port(2)), fds, 0.0)
    assert bench.engine.took("attach_flood") == [(2, 10, fd, NOW)]
    assert not is_open(fd)
    bench.links.tick(now=5.0)
    assert bench.sent == []


def test_flood_rings_that_come_together_are_all_read(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.apply(Joined(port(3)))
    fds = bench.descriptors(3)
    both = (Change("join", port(2)), Change("join", port(3)), Change("join", port(4)))
    bench.links.receive(Update(7, 1, both, ((2, 10), (3, 10), (4, 10))), fds, 0.0)
    assert bench.engine.took("attach_flood") == [(2, 10, fds[0], NOW), (3, 10, fds[1], NOW)]
    assert not any(is_open(fd) for fd in fds)
    bench.links.apply(Joined(port(4)))
    assert [call[0] for call in bench.engine.took("attach_flood")] == [2, 3, 4]
    bench.links.tick(now=5.0)
    assert bench.sent == []


def test_a_newcomers_flood_ring_that_does_not_come_is_asked_for(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.tick(now=5.0)
    assert bench.sent == [WantFloods(((2, 10),))]


def test_a_flood_ring_that_comes_before_its_port_is_known_is_kept_for_it(bench):
    bench.links.receive(update(1, "join", port(2, epoch=10)), bench.descriptors(1), 0.0)
    bench.links.receive(update(2, "change", port(2, epoch=12)), bench.descriptors(1), 0.0)
    assert bench.engine.took("attach_flood") == []
    bench.links.apply(Joined(port(2, epoch=12)))
    ((number, epoch, fd, _),) = bench.engine.took("attach_flood")
    assert (number, epoch) == (2, 12)
    assert not is_open(fd)
    assert bench.links.deadline() == float("inf")


def test_its_own_flood_ring_is_not_kept(bench):
    (fd,) = fds = bench.descriptors(1)
    bench.links.receive(update(1, "join", port(1)), fds, 0.0)
    assert not is_open(fd)
    assert bench.links.floods.early == {}
