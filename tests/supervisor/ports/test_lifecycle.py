"""State machines: every pair of state and event is in exactly one of the two tables."""

import pytest

from forwarder import replica
from forwarder.names import TRANSPORT_KIND
from supervisor.ports import lifecycle
from supervisor.ports.lifecycle import PortState

MACHINES = [
    (lifecycle, PortState, lifecycle.PortEvent, PortState.PENDING),
    (replica, replica.ReplicaState, replica.ReplicaEvent, replica.ReplicaState.COLD),
]


@pytest.mark.parametrize(("machine", "states", "events", "first"), MACHINES, ids=["port", "replica"])
def test_every_pair_is_a_transition_or_prohibited_with_a_reason(machine, states, events, first):
    pairs = {(state, event) for state in states for event in events}
    assert machine.TRANSITIONS.keys() | machine.PROHIBITED.keys() == pairs
    assert not machine.TRANSITIONS.keys() & machine.PROHIBITED.keys()
    assert all(machine.PROHIBITED.values())


@pytest.mark.parametrize(("machine", "states", "events", "first"), MACHINES, ids=["port", "replica"])
def test_every_state_can_be_reached(machine, states, events, first):
    reached, edge = set(), {first}
    while edge:
        reached |= edge
        edge = {after for (before, _), after in machine.TRANSITIONS.items() if before in edge} - reached
    assert reached == set(states)


def test_a_port_can_end_from_every_state():
    for state in PortState:
        if state is not PortState.GONE:
            ended = lifecycle.TRANSITIONS[state, lifecycle.PortEvent.END]
            assert ended is (PortState.ENDING if state in lifecycle.HAS_WORKER else PortState.GONE)


def test_a_link_goes_on_where_the_kernel_keeps_frames_apart_or_its_position_is_known():
    for kind in TRANSPORT_KIND.values():
        assert lifecycle.resumable(kind, position_known=True)
        assert lifecycle.resumable(kind, position_known=False) == (kind not in ("stream", "stream16"))
