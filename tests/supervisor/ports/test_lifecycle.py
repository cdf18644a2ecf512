import pytest

from forwarder import membership
from forwarder.names import TRANSPORT_KIND
from supervisor.ports import lifecycle


@pytest.mark.parametrize("machine", [lifecycle, membership], ids=["port", "replica"])
def test_every_pair_is_a_transition_or_prohibited_with_a_reason(machine):
    pairs = {(state, event) for state in machine.State for event in machine.Event}
    assert machine.TRANSITIONS.keys() | machine.PROHIBITED.keys() == pairs
    assert not machine.TRANSITIONS.keys() & machine.PROHIBITED.keys()
    assert all(machine.PROHIBITED.values())


@pytest.mark.parametrize(
    ("machine", "first"), [(lifecycle, lifecycle.State.PENDING), (membership, membership.State.COLD)]
)
def test_every_state_can_be_reached(machine, first):
    reached, edge = set(), {first}
    while edge:
        reached |= edge
        edge = {after for (before, _), after in machine.TRANSITIONS.items() if before in edge} - reached
    assert reached == set(machine.State)


def test_a_port_can_end_from_every_state():
    for state in lifecycle.State:
        if state is not lifecycle.State.GONE:
            ended = lifecycle.TRANSITIONS[state, lifecycle.Event.END]
            assert ended is (
                lifecycle.State.ENDING if state in lifecycle.HAS_WORKER else lifecycle.State.GONE
            )


def test_a_link_goes_on_where_the_kernel_keeps_frames_apart_or_its_position_is_known():
    for kind in TRANSPORT_KIND.values():
        assert lifecycle.resumable(kind, position_known=True)
        assert lifecycle.resumable(kind, position_known=False) == (kind not in ("stream", "stream16"))
