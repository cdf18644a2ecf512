"""The table of flows against a slow model of it, and its bounds."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.relay.flows import FRESH_S, SETTLED_S, Flows

MOST, EACH = 6, 3
KEYS = st.tuples(st.integers(0, 3), st.integers(0, 5))


class AgainstAModel(RuleBasedStateMachine):
    """The key's first part is its owner."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.flows = Flows(MOST, EACH)
        self.used = {}
        self.settled = set()

    @rule(seconds=st.sampled_from([0.0, 1.0, FRESH_S, SETTLED_S]))
    def wait(self, seconds):
        self.now += seconds
        due = {
            key
            for key, used in self.used.items()
            if used + (SETTLED_S if key in self.settled else FRESH_S) <= self.now
        }
        deadline = self.flows.deadline()
        assert not due or deadline <= self.now
        assert set(self.flows.expire(self.now)) == due
        self.forget(due)

    @rule(key=KEYS)
    def send(self, key):
        value = self.flows.sent(key, self.now)
        assert value == (key if key in self.used else None)
        if value is None:
            gone = self.flows.add(key, key[0], key, self.now)
            assert len(gone) <= 1
            for lost in gone:
                assert lost[0] == key[0] or len(self.used) == MOST
                assert self.count(lost[0]) == max(map(self.count, range(4))) or lost[0] == key[0]
            self.forget(gone)
        self.used[key] = self.now

    @rule(key=KEYS)
    def answer(self, key):
        self.flows.answered(key, self.now)
        if key in self.used:
            self.used[key] = self.now
            self.settled.add(key)

    @rule(key=KEYS)
    def remove(self, key):
        if key in self.used:
            assert self.flows.remove(key) == key
            self.forget([key])

    @rule(owner=st.integers(0, 3))
    def remove_owner(self, owner):
        gone = self.flows.remove_owner(owner)
        assert set(gone) == {key for key in self.used if key[0] == owner}
        self.forget(gone)

    def forget(self, keys):
        for key in list(keys):
            del self.used[key]
            self.settled.discard(key)

    def count(self, owner):
        return sum(key[0] == owner for key in self.used)

    @invariant()
    def is_bounded_and_the_same(self):
        assert set(self.flows) == set(self.used)
        assert len(self.flows) == len(self.used) <= MOST
        assert all(self.count(owner) <= EACH for owner in range(4))
        assert (self.flows.deadline() is None) == (not self.used)


TestAgainstAModel = AgainstAModel.TestCase


@given(st.lists(st.integers(0, 200), max_size=60))
def test_a_guest_that_scans_pushes_out_flows_of_its_own_only(targets):
    flows = Flows(most=100, most_each=10)
    flows.add(("quiet", 1), "quiet", "quiet flow", 0.0)
    for now, target in enumerate(targets):
        key = ("scanner", target)
        if flows.sent(key, now / 100) is None:
            assert "quiet flow" not in flows.add(key, "scanner", "scan", now / 100)
    assert "quiet flow" in list(flows)


def test_what_was_never_answered_goes_first():
    flows = Flows(most=10, most_each=2)
    flows.add("talk", "guest", "talk", 0.0)
    flows.answered("talk", 0.0)
    flows.add("question", "guest", "question", 1.0)
    assert flows.add("next", "guest", "next", 2.0) == ["question"]
