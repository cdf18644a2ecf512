"""Ports that are known before their VM: when they are reserved, and which VM gets one."""

import pytest

from forwarder.names import MAX_PORTS, Identity, Incarnation, Policy
from supervisor.ports.actions import AssignWorker, Log, Publish
from supervisor.ports.registry import Registry
from supervisor.ports.reserve import AGAIN_S, LEFT, PAUSE_S, TOGETHER

WORKER = Identity(100, 1)
PINNED = Policy((b"\x02\0\0\0\0\x01",))
ALONE = Policy(isolated=True)


@pytest.fixture
def registry():
    made = Registry()
    assert made.tick(0.0) == []
    made.reserve.open = True
    return made


def published(actions):
    return [
        (each.change, each.record.port, each.record.epoch) for each in actions if isinstance(each, Publish)
    ]


def attach(registry, policy=Policy(), *, now=0.0, name=None):  # noqa: B008
    record, actions = registry.attach("qemu", now, name, policy)
    return record, actions


def live(registry, record):
    registry.assigned(*record.incarnation, WORKER)
    return registry.hello(*record.incarnation)


def test_ports_are_reserved_together_with_the_next_numbers(registry):
    assert registry.deadline() == 0.0
    assert published(registry.tick(0.0)) == [("reserve", n, n) for n in range(1, TOGETHER + 1)]
    assert registry.tick(1.0) == []
    assert len(registry) == 0


def test_a_vm_gets_the_first_reserved_port_and_all_know_it_already(registry):
    registry.tick(0.0)
    record, actions = attach(registry)
    assert (record.incarnation, record.born, record.name) == (Incarnation(1, 1), 1, "qemu-1")
    assert actions == [AssignWorker(record)]
    assert registry.reserved(record.incarnation) == record
    assert live(registry, record) == [Publish("arrive", record)]
    assert registry.reserved(record.incarnation) is None


def test_the_next_ones_are_reserved_when_few_are_left_and_no_vm_is_on_its_way(registry):
    registry.tick(0.0)
    for left in range(TOGETHER - 1, LEFT - 1, -1):
        assert registry.tick(9.0) == []
        record, _ = attach(registry, now=9.0)
        assert registry.deadline() == float("inf")
        live(registry, record)
        assert len(list(registry.reserve)) == left
    assert registry.tick(9.0) == []
    assert registry.deadline() == 9.0 + PAUSE_S
    numbers = [number for _, number, _ in published(registry.tick(9.0 + PAUSE_S))]
    assert numbers == list(range(TOGETHER + 1, 2 * TOGETHER + 1))


@pytest.mark.parametrize("policy", [PINNED, ALONE])
def test_a_vm_with_other_dealings_gets_another_epoch(registry, policy):
    registry.tick(0.0)
    record, actions = attach(registry, policy)
    assert record.incarnation == Incarnation(1, TOGETHER + 1)
    assert published(actions) == [("cancel", 1, 1)]
    assert live(registry, record) == [Publish("join", record)]


def test_a_vm_whose_name_an_isolated_port_reaches_gets_another_epoch(registry):
    attach(registry, Policy(isolated=True, reaches=("web",)))
    registry.tick(9.0)
    record, _ = attach(registry, name="web")
    assert not registry.reserved(record.incarnation)


def test_settings_that_come_before_the_worker_forwards_are_told_to_all(registry):
    registry.tick(0.0)
    record, _ = attach(registry)
    registry.assigned(*record.incarnation, WORKER)
    assert registry.set_policy(1, PINNED) == []
    assert published(registry.hello(*record.incarnation)) == [("join", 1, 1)]


def test_the_next_worker_of_a_port_that_was_never_live_is_told_to_all(registry):
    registry.tick(0.0)
    record, _ = registry.attach("vfkit", 0.0)
    registry.assigned(*record.incarnation, WORKER)
    registry.worker_lost(*record.incarnation, "signal 9", 0.0)
    assert registry.reserved(record.incarnation) == record
    (assign,) = [each for each in registry.tick(9.0) if isinstance(each, AssignWorker)]
    assert registry.reserved(assign.record.incarnation) is None
    assert published(live(registry, assign.record)) == [("join", 1, assign.record.epoch)]


def test_a_vm_that_goes_before_its_worker_forwards_leaves_the_table(registry):
    registry.tick(0.0)
    attach(registry)
    assert published(registry.detach(1)) == [("leave", 1, 1)]


def test_a_port_that_becomes_isolated_cannot_read_the_rings_that_it_has(registry):
    first, _ = attach(registry)
    live(registry, first)
    registry.tick(9.0)
    old = list(registry.reserve)
    changes = published(registry.set_policy(1, ALONE))
    assert [change for change, _, _ in changes] == ["change", *["cancel"] * TOGETHER, *["reserve"] * TOGETHER]
    assert [number for _, number, _ in changes[1:]] == old * 2
    assert len({epoch for _, _, epoch in changes[1:]}) == 2 * TOGETHER
    assert list(registry.reserve) == old


def test_a_port_that_could_not_be_reserved_is_tried_again_later(registry):
    for number in [number for _, number, _ in published(registry.tick(0.0))]:
        registry.reserve.give_up(number, 0.0)
    assert registry.deadline() == AGAIN_S
    assert len(published(registry.tick(AGAIN_S))) == TOGETHER


def test_a_younger_port_is_told_from_an_older_one_also_if_its_epoch_was_reserved(registry):
    registry.tick(0.0)
    isolated, _ = attach(registry, ALONE)
    record, _ = attach(registry)
    assert record.epoch < isolated.epoch
    assert registry.older(record.port) == isolated.epoch


def test_a_switch_that_stops_reserves_nothing(registry):
    assert all(isinstance(action, Log) for action in registry.shutdown())
    assert registry.deadline() == float("inf")
    assert registry.tick(0.0) == []


def test_the_last_ports_are_for_vms_and_nothing_is_tried_without_a_pause(registry):
    for number in range(MAX_PORTS - 2):
        live(registry, attach(registry, name=f"vm-{number}")[0])
    assert [number for _, number, _ in published(registry.tick(9.0))] == [MAX_PORTS - 1]
    assert registry.tick(9.0) == []
    assert registry.deadline() == 9.0 + AGAIN_S
    assert attach(registry)[0].port == MAX_PORTS - 1
