"""The registry: numbers, names, workers and losses of ports, and the actions that it decides."""

import math

import pytest

from forwarder._core import LAYOUT
from forwarder.errors import LocalError
from forwarder.names import MAX_PORTS, TRANSPORT_KIND, Identity, Policy, PortRecord
from forwarder.restart_budget import Budget
from supervisor.ports.actions import AssignWorker, EndWorker, Log, Publish, ReleaseVm
from supervisor.ports.lifecycle import PortState, resumable
from supervisor.ports.registry import Registry

WORKER = Identity(100, 1)
OTHER = Identity(200, 2)
PINNED = Policy((b"\x02\0\0\0\0\x01",))


def acts(actions):
    return [action for action in actions if not isinstance(action, Log)]


def hello(registry, record):
    return registry.hello(record.port, record.epoch)


def live(registry, transport="vfkit", identity=WORKER, **options):
    record, _ = registry.attach(transport, 0.0, **options)
    registry.assigned(record.port, record.epoch, identity)
    assert acts(hello(registry, record)) == [Publish("join", record)]
    return record


def test_a_port_joins_when_its_worker_says_hello():
    registry = Registry()
    record, actions = registry.attach("qemu", 5.0)
    assert record == PortRecord(1, 1, 1, "qemu-1", "qemu", Policy())
    assert actions == [AssignWorker(record)]
    assert registry.get(1).state is PortState.PENDING
    assert registry.assigned(1, 1, WORKER) == []
    assert not registry.live(1, 1)
    assert acts(hello(registry, record)) == [Publish("join", record)]
    assert registry.live(1, 1)
    assert registry.get(1).since == 5.0
    assert hello(registry, record) == []  # it says so twice


def test_a_lost_worker_is_replaced_under_a_new_epoch_and_the_port_stays_a_member():
    registry = Registry(Budget(first_s=0.5))
    record = live(registry)
    assert acts(registry.worker_lost(1, 1, "signal 9", 10.0)) == []
    assert registry.get(1).state is PortState.WAITING
    assert registry.get(1).identity is None
    assert registry.deadline() == 10.5
    assert registry.tick(10.4) == []
    (assign,) = registry.tick(10.5)
    assert assign == AssignWorker(record._replace(epoch=2))
    assert registry.deadline() == math.inf
    registry.assigned(1, 2, OTHER)
    assert acts(hello(registry, assign.record)) == [Publish("change", assign.record)]
    assert registry.get(1).restarts == 1


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("transport", TRANSPORT_KIND)
def test_a_link_goes_on_without_its_worker_only_where_its_position_is_known(transport, known):
    registry = Registry()
    record = live(registry, transport)
    actions = acts(registry.worker_lost(1, 1, "signal 9", 10.0, position_known=known))
    if resumable(TRANSPORT_KIND[transport], position_known=known):
        assert actions == []
        assert registry.get(1).state is PortState.WAITING
    else:
        leave, release = actions
        assert leave == Publish("leave", record)
        assert isinstance(release, ReleaseVm)
        assert "signal 9" in release.reason
        assert len(registry) == 0


def test_a_stream_that_no_worker_has_touched_waits_for_another_worker():
    registry = Registry()
    registry.attach("qemu", 0.0)
    assert acts(registry.worker_lost(1, 1, "no process can be started", 1.0)) == []
    assert registry.get(1).state is PortState.WAITING


def test_a_port_that_flaps_is_parked_and_leaves_and_its_vm_can_be_freed():
    registry = Registry(Budget(attempts=1, first_s=0.5))
    record = live(registry)
    registry.worker_lost(1, 1, "signal 11", 10.0)
    registry.tick(10.5)
    registry.assigned(1, 2, OTHER)
    leave, log = registry.worker_lost(1, 2, "signal 11", 11.0)
    assert leave == Publish("leave", record._replace(epoch=2))
    assert log.level == "error"
    assert "parked" in log.text
    assert "signal 11" in log.text
    assert registry.get(1).state is PortState.PARKED
    assert registry.deadline() == math.inf
    (release,) = acts(registry.detach(1))
    assert isinstance(release, ReleaseVm)
    assert len(registry) == 0


def test_the_vm_hangs_up():
    registry = Registry()
    record = live(registry, "qemu")
    assert acts(registry.goodbye(1, 1, "hung up")) == [Publish("leave", record), EndWorker(1, 1, WORKER)]
    assert registry.get(1).state is PortState.ENDING
    assert not registry.live(1, 1)
    assert registry.vm_gone(1, 1, "hung up") == []
    assert acts(registry.worker_lost(1, 1, "exit 0", 1.0)) == [ReleaseVm(record, "hung up")]
    assert registry.get(1) is None


def test_a_vm_that_hangs_up_before_it_has_a_worker_is_released_at_once():
    registry = Registry()
    record, _ = registry.attach("qemu", 0.0)
    assert acts(registry.vm_gone(1, 1, "hung up")) == [ReleaseVm(record, "hung up")]
    with pytest.raises(LocalError):
        registry.assigned(1, 1, WORKER)


def test_a_port_without_a_worker_still_leaves_when_it_ends():
    registry = Registry()
    record = live(registry)
    registry.worker_lost(1, 1, "signal 9", 1.0)
    reason = "detached by the operator"
    assert acts(registry.detach(1)) == [Publish("leave", record), ReleaseVm(record, reason)]


def test_evidence_of_a_past_life_changes_nothing():
    registry = Registry(Budget(first_s=0.5))
    live(registry)
    registry.worker_lost(1, 1, "signal 9", 10.0)
    registry.tick(11.0)
    registry.assigned(1, 2, OTHER)
    assert registry.worker_lost(1, 1, "signal 9", 12.0) == []
    assert registry.goodbye(1, 1, "hung up") == []
    assert registry.vm_gone(1, 99, "hung up") == []
    assert registry.hello(1, 1) == []
    with pytest.raises(LocalError):
        registry.assigned(1, 1, WORKER)
    assert registry.get(1).state is PortState.STARTING


def test_an_unexpected_hello_is_ignored():
    registry = Registry()
    record, _ = registry.attach("qemu", 0.0)
    assert acts(hello(registry, record)) == []  # no worker yet
    registry.assigned(1, 1, WORKER)
    assert registry.hello(1, 5) == []  # another epoch
    assert registry.hello(9, 1) == []
    assert registry.get(1).state is PortState.STARTING


def test_a_hello_that_crossed_the_order_to_end_changes_nothing():
    registry = Registry()
    record, _ = registry.attach("qemu", 0.0)
    registry.assigned(1, 1, WORKER)
    assert acts(registry.detach(1)) == [EndWorker(1, 1, WORKER)]
    assert hello(registry, record) == []
    assert registry.get(1).state is PortState.ENDING


def test_a_policy_reaches_the_members_and_the_next_worker():
    registry = Registry(Budget(first_s=0.5))
    record = live(registry)
    changed = record._replace(policy=PINNED)
    assert registry.set_policy(1, PINNED) == [Publish("change", changed)]
    assert registry.set_policy(1, PINNED) == []
    registry.worker_lost(1, 1, "signal 9", 10.0)
    assert registry.tick(11.0) == [AssignWorker(changed._replace(epoch=2))]


def test_a_policy_set_before_the_port_joins_goes_with_the_join():
    registry = Registry()
    record, _ = registry.attach("qemu", 0.0)
    assert registry.set_policy(1, PINNED) == []
    registry.assigned(1, 1, WORKER)
    changed = record._replace(policy=PINNED)
    assert acts(hello(registry, changed)) == [Publish("join", changed)]


def test_an_address_is_pinned_to_one_port_however_it_is_asked_for():
    registry = Registry()
    live(registry, name="web", policy=PINNED)
    second = live(registry, identity=OTHER)
    claim = PortRecord(9, 70, 70, "late", "qemu", PINNED)
    for ask in (lambda: registry.attach("qemu", 0.0, None, PINNED), lambda: registry.set_policy(2, PINNED)):
        with pytest.raises(
            LocalError, match=r"already pinned to port 1 \(web\); unpin it there first"
        ) as caught:
            ask()
        assert str(caught.value).endswith(": supervisor set web pin=")
    (refusal,) = registry.adopt(claim, Identity(300, 3), LAYOUT, 5.0)
    assert isinstance(refusal, Log)
    assert "pinned to port 1 (web)" in refusal.text
    assert registry.get(2).record == second
    assert len(registry) == 2
    assert registry.set_policy(1, PINNED) == []
    registry.set_policy(1, Policy())
    assert registry.set_policy(2, PINNED) == [Publish("change", second._replace(policy=PINNED))]


def test_a_claimed_port_is_taken_over_and_epochs_go_on_past_it():
    registry = Registry()
    record = PortRecord(4, 70, 33, "web", "qemu", PINNED)
    assert acts(registry.adopt(record, WORKER, LAYOUT, 5.0)) == [Publish("join", record)]
    assert registry.live(4, 70)
    assert registry.get(4).since == 5.0
    assert hello(registry, record) == []
    assert registry.attach("qemu", 6.0)[0].epoch == 71


@pytest.mark.parametrize(
    ("change", "version"),
    [
        ({"port": 1}, LAYOUT),
        ({"name": "vfkit-1"}, LAYOUT),
        ({}, LAYOUT + 1),
    ],
)
def test_a_claim_that_clashes_is_refused(change, version):
    registry = Registry()
    live(registry)
    record = PortRecord(4, 70, 33, "web", "qemu", Policy())._replace(**change)
    assert acts(registry.adopt(record, OTHER, version, 5.0)) == []
    assert len(registry) == 1


def test_a_port_number_is_reused_as_late_as_possible():
    registry = Registry()
    for number in range(1, MAX_PORTS):
        record, _ = registry.attach("bess", 0.0)
        assert record.port == number
        registry.vm_gone(number, record.born, "hung up")
    assert registry.attach("bess", 0.0)[0].port == 1


def test_a_full_switch_refuses_a_vm_clearly_and_goes_on():
    registry = Registry()
    for _ in range(1, MAX_PORTS):
        registry.attach("bess", 0.0)
    with pytest.raises(LocalError, match="all 1023 ports are in use"):
        registry.attach("bess", 0.0)
    registry.vm_gone(500, 500, "hung up")
    assert registry.attach("bess", 0.0)[0].port == 500


def test_names_are_unique_and_free_again_when_their_port_is_gone():
    registry = Registry()
    record, _ = registry.attach("tap", 0.0, name="qemu-2")
    assert registry.attach("qemu", 0.0)[0].name == "qemu-3"  # number 2 would need the name that is taken
    with pytest.raises(LocalError, match="named 'qemu-2' already"):
        registry.attach("tap", 0.0, name="qemu-2")
    with pytest.raises(LocalError, match="cannot name a port"):
        registry.attach("tap", 0.0, name="no good")
    registry.vm_gone(1, record.born, "hung up")
    assert registry.attach("tap", 0.0, name="qemu-2")[0].name == "qemu-2"


def test_a_missing_port_is_reported_to_the_operator():
    registry = Registry()
    with pytest.raises(LocalError, match="no port 7"):
        registry.detach(7)
    with pytest.raises(LocalError, match="no port 7"):
        registry.set_policy(7, PINNED)


def test_a_shutdown_ends_every_worker_publishes_nothing_and_accepts_no_vm():
    registry = Registry()
    first = live(registry)
    second = live(registry, "qemu", OTHER)
    third, _ = registry.attach("qemu", 0.0)
    reason = "the switch stops"
    assert acts(registry.shutdown()) == [
        EndWorker(1, 1, WORKER),
        EndWorker(2, 2, OTHER),
        ReleaseVm(third, reason),
    ]
    with pytest.raises(LocalError, match="stopping"):
        registry.attach("qemu", 0.0)
    claim = PortRecord(9, 70, 33, "web", "qemu", Policy())
    assert acts(registry.adopt(claim, WORKER, LAYOUT, 0.0)) == []
    assert acts(registry.worker_lost(1, 1, "exit 0", 1.0)) == [ReleaseVm(first, reason)]
    assert acts(registry.worker_lost(2, 2, "exit 0", 1.0)) == [ReleaseVm(second, reason)]
    assert len(registry) == 0
    assert registry.shutdown() == []


def test_ports_are_listed_by_number():
    registry = Registry()
    registry.adopt(PortRecord(4, 70, 33, "web", "qemu", Policy()), WORKER, LAYOUT, 5.0)
    registry.adopt(PortRecord(2, 71, 34, "db", "qemu", Policy()), OTHER, LAYOUT, 5.0)
    assert [port.record.port for port in registry] == [2, 4]


def test_the_number_of_an_adopted_port_is_used_again_as_late_as_any():
    registry = Registry()
    registry.adopt(PortRecord(4, 70, 33, "web", "qemu", Policy()), WORKER, LAYOUT, 5.0)
    assert registry.attach("qemu", 6.0)[0].port == 5
