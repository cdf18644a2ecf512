"""When a worker lets its VM in, and from where it reads the floods of each port."""

import pytest

from forwarder.messages import MAX_FLOODS, Floods
from forwarder.replica import Changed, Joined, Left
from tests.helpers.links_bench import NOW, START, Bench, port, update
from workers.flood_rings import REPEAT_S


@pytest.fixture
def bench():
    return Bench()


def give(bench, *ports):
    """Answer a request for flood rings."""
    bench.links.receive(Floods(ports), bench.descriptors(len(ports)), 0.0)


def test_a_vm_is_read_when_all_earlier_ports_are_heard(bench):
    assert bench.links.floods.hears_all
    bench.links.apply(Joined(port(2, 8)))
    bench.links.apply(Joined(port(3, 9)))
    assert not bench.links.floods.hears_all
    bench.links.tick(now=5.0)
    bench.links.receive(update(1, "join", port(2, 8)), bench.descriptors(1), 0.0)
    assert not bench.links.floods.hears_all
    give(bench, (3, 9))
    assert bench.links.floods.hears_all
    assert [call[3] for call in bench.engine.took("attach_flood")] == [NOW, NOW]


def test_a_port_that_is_younger_is_read_from_its_start_and_not_waited_for(bench):
    bench.links.apply(Joined(port(2, 11)))
    assert bench.links.floods.hears_all
    bench.links.tick(now=5.0)
    give(bench, (2, 11))
    assert bench.engine.took("attach_flood")[0][3] == START


def test_a_port_that_joins_when_the_vm_is_let_in_is_read_from_its_start_although_it_is_older(bench):
    bench.links.let_in()
    bench.links.apply(Joined(port(2, 8)))
    assert bench.links.floods.hears_all
    bench.links.receive(update(1, "join", port(2, 8)), bench.descriptors(1), 0.0)
    assert bench.engine.took("attach_flood")[0][3] == START


@pytest.mark.parametrize("why", ["it left", "it has another worker", "it has no ring to be had"])
def test_a_port_that_cannot_be_heard_is_not_waited_for(bench, why):
    bench.links.apply(Joined(port(2, 8)))
    bench.links.tick(now=5.0)
    if why == "it left":
        bench.links.apply(Left(port(2, 8)))
    elif why == "it has another worker":
        bench.links.apply(Changed(port(2, 12, born=8)))
    else:
        give(bench)
    assert bench.links.floods.hears_all


def test_the_end_of_an_answer_says_nothing_of_a_port_that_was_not_asked_for(bench):
    bench.links.apply(Joined(port(2, 8)))
    bench.links.tick(now=5.0)
    bench.links.apply(Joined(port(3, 9)))
    give(bench, (2, 8))
    assert not bench.links.floods.hears_all
    bench.links.tick(now=5.0 + REPEAT_S)
    give(bench, (3, 9))
    assert bench.links.floods.hears_all


def test_an_answer_in_parts_ends_with_a_part_that_is_not_full(bench):
    wanted = [(number, number) for number in range(2, MAX_FLOODS + 3)]
    bench = Bench(port(1, 1000))
    for number, epoch in wanted:
        bench.links.apply(Joined(port(number, epoch)))
    bench.links.tick(now=5.0)
    give(bench, *wanted[:MAX_FLOODS])
    assert not bench.links.floods.hears_all
    give(bench)
    assert bench.links.floods.hears_all


def test_floods_that_the_worker_before_had_read_are_not_read_again(bench):
    """The table still has our port under the epoch of that worker, which is less than the other port's."""
    bench = Bench(port(1, 20, born=3))
    bench.links.apply(Joined(port(1, 3)))
    bench.links.apply(Joined(port(2, 8)))
    bench.links.tick(now=5.0)
    give(bench, (2, 8))
    assert bench.engine.took("attach_flood")[0][3] == NOW


def test_a_port_that_left_and_is_back_under_its_epoch_is_not_heard_again(bench):
    bench.links.let_in()
    bench.links.apply(Joined(port(2, 11)))
    bench.links.apply(Left(port(2, 11)))
    bench.links.apply(Joined(port(2, 11)))
    bench.links.tick(now=5.0)
    give(bench, (2, 11))
    assert bench.engine.took("attach_flood")[0][3] == NOW


def test_a_reserved_port_is_read_from_its_start_and_not_waited_for(bench):
    bench.links.apply(Joined(port(2, 8)._replace(name="")))
    assert bench.links.floods.hears_all
    bench.links.apply(Changed(port(2, 8)))
    bench.links.tick(now=5.0)
    give(bench, (2, 8))
    assert bench.engine.took("attach_flood")[0][3] == START


def test_a_port_that_was_there_before_is_waited_for_although_its_epoch_is_later(bench):
    bench = Bench(port(1, 5), older=9)
    bench.links.apply(Joined(port(2, 9)))
    bench.links.apply(Joined(port(3, 10)))
    assert not bench.links.floods.hears_all
    bench.links.tick(now=5.0)
    give(bench, (2, 9), (3, 10))
    assert [call[3] for call in bench.engine.took("attach_flood")] == [NOW, START]
