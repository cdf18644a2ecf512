"""How long a worker keeps a ring, and that it keeps none of a port out of reach."""

import pytest

from forwarder.messages import Floods, RingIdle, RingOpen, RingOver, RingTx, WantFloods, WantRing
from forwarder.names import Policy
from forwarder.replica import Changed, Joined
from tests.helpers.links_bench import Bench, port
from workers.links import GIVE_UPS, IDLE_S


@pytest.fixture
def bench():
    return Bench()


def attached(bench, number, now):
    """A ring towards a port, in use."""
    bench.links.want([number], now)
    bench.links.receive(RingTx(number, 10), bench.descriptors(3), now)
    bench.links.receive(RingOpen(number, 10), (), now)


def test_a_ring_that_is_idle_for_two_looks_is_given_up_and_one_in_use_is_not(bench):
    for number in (2, 3):
        bench.links.apply(Joined(port(number)))
        bench.links.receive(Floods(((number, 10),)), bench.descriptors(1), 0.0)
        attached(bench, number, 100.0)
    bench.sent.clear()
    for look, idle in enumerate(([2, 3], [2], [2])):
        assert bench.links.deadline() == 100.0 + (look + 1) * IDLE_S
        bench.engine.answers["idle_rings"] = idle
        bench.links.tick(now=100.0 + (look + 1) * IDLE_S)
    assert bench.engine.took("detach_tx") == [(2,), (2,)]
    assert bench.sent[0] == RingIdle(2, 10)
    bench.links.want([2], now=300.0)
    assert bench.sent[-1] == WantRing(2, 10), "it is asked for again when it is needed"


def test_a_ring_that_is_wanted_again_and_again_stays(bench):
    bench.links.apply(Joined(port(2)))
    now = 0.0
    for _ in range(GIVE_UPS + 3):
        attached(bench, 2, now)
        bench.engine.answers["idle_rings"] = [2]
        for _ in range(2):
            now += IDLE_S
            bench.links.tick(now)
    assert sum(isinstance(message, RingIdle) for message in bench.sent) == GIVE_UPS


def test_a_ring_that_has_something_in_it_is_not_given_up(bench):
    bench.links.apply(Joined(port(2)))
    attached(bench, 2, 0.0)
    bench.engine.answers.update(idle_rings=[2], detach_tx=False)
    for look in range(1, 4):
        bench.links.tick(now=look * IDLE_S)
    assert not any(isinstance(message, RingIdle) for message in bench.sent)


def test_the_other_half_of_a_ring_goes_when_its_producer_has_given_it_up(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.receive(RingOver(2, 9), (), 0.0)
    bench.links.receive(RingOver(3, 10), (), 0.0)
    assert bench.engine.took("detach_rx") == []
    bench.links.receive(RingOver(2, 10), (), 0.0)
    assert bench.engine.took("detach_rx") == [(2,)]


def test_a_port_out_of_reach_is_asked_for_nothing_and_kept_nothing_of(bench):
    alone = Policy(isolated=True)
    bench.links.apply(Joined(port(2, policy=alone)))
    bench.links.want([2], now=0.0)
    bench.links.tick(now=100.0)
    assert bench.sent == []
    assert bench.links.floods.hears_all, "no VM waits for missing flood rings"
    bench.engine.answers["set_reach"] = True
    bench.links.apply(Changed(port(2)))
    bench.links.tick(now=101.0)
    assert bench.sent == [WantFloods(((2, 10),))]
    bench.links.apply(Changed(port(2, policy=alone)))
    bench.links.tick(now=200.0)
    assert bench.sent == [WantFloods(((2, 10),))]
    bench.links.receive(Floods(((2, 10),)), bench.descriptors(1), 200.0)
    assert bench.engine.took("attach_flood") == []
