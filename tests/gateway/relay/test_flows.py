"""The table of flows against a slow model of it, and whose flow has to go."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.fair_share import Shares
from gateway.relay.counts import Counts
from gateway.relay.flow_context import FlowTable
from gateway.relay.flows import FRESH_S, SETTLED_S, Flows

KEYS = st.tuples(st.integers(0, 3), st.integers(0, 5))


class AgainstAModel(RuleBasedStateMachine):
    """The key's first part is its owner."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.flows = Flows()
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
        assert set(self.flows.due(self.now)) == due
        self.forget(due)

    @rule(key=KEYS)
    def send(self, key):
        value = self.flows.sent(key, self.now)
        assert value == (key if key in self.used else None)
        if value is None:
            self.flows.add(key, key[0], key, self.now)
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
            self.forget([key])

    @rule(owner=st.integers(0, 3))
    def make_room(self, owner):
        gone = self.flows.next_to_go(owner)
        assert (gone is None) == (not self.used)
        if gone is None:
            return
        if self.count(owner):
            assert gone[0] == owner
        else:
            assert self.count(gone[0]) == max(map(self.count, range(4)))
        mine = [key for key in self.used if key[0] == gone[0]]
        assert gone in self.settled or self.used[gone] == min(
            self.used[key] for key in mine if key not in self.settled
        )
        assert gone not in self.settled or self.settled >= set(mine)
        self.forget([gone])

    def forget(self, keys):
        for key in list(keys):
            assert self.flows.remove(key) == (key[0], key)
            del self.used[key]
            self.settled.discard(key)

    def count(self, owner):
        return sum(key[0] == owner for key in self.used)

    @invariant()
    def is_the_same(self):
        assert set(self.flows) == set(self.used)
        assert len(self.flows) == len(self.used)
        assert (self.flows.deadline() is None) == (not self.used)
        for owner in range(4):
            assert set(self.flows.of(owner)) == {key for key in self.used if key[0] == owner}


TestAgainstAModel = AgainstAModel.TestCase


class Closed:
    def __init__(self, used=0.0):
        self.closed = False
        self.used = lambda: used

    def close(self):
        self.closed = True


@given(st.lists(st.integers(0, 200), max_size=60), st.integers(1, 30))
def test_a_guest_that_scans_pushes_out_flows_of_its_own_only(targets, places):
    table = FlowTable(Shares(places), Counts(lambda: 0.0))
    quiet = Closed()
    assert table.enter(("udp", "quiet"), "quiet", quiet, 0.0)
    for now, target in enumerate(targets):
        key = ("udp", "scanner", target)
        if table.sent(key, now / 100) is None:
            table.enter(key, "scanner", Closed(), now / 100)
    assert not quiet.closed or places == 1
    assert len(table) <= places


def test_flows_and_connections_draw_on_one_budget():
    budget = Shares(12)
    table = FlowTable(budget, Counts(lambda: 0.0))
    assert budget.take("guest", 6)
    flows = [Closed() for _ in range(20)]
    for number, flow in enumerate(flows):
        table.enter(("udp", number), "guest", flow, 0.0)
    assert budget.taken <= 12
    assert not budget.take("guest", 6)
    assert table.enter(("udp", "other"), "other", Closed(), 0.0)
    table.expire(FRESH_S)
    assert budget.taken == 6
    assert all(flow.closed for flow in flows)


def test_a_flow_that_the_core_has_used_meanwhile_stays():
    table = FlowTable(Shares(9), Counts(lambda: 0.0))
    busy, silent = Closed(used=FRESH_S - 1), Closed()
    for name, flow in (("busy", busy), ("silent", silent)):
        table.enter(("udp", name), "guest", flow, 0.0)
    table.expire(FRESH_S)
    assert (busy.closed, silent.closed) == (False, True)
    table.expire(2 * FRESH_S)
    assert busy.closed


def test_a_flow_that_the_core_has_used_is_not_the_one_to_go():
    table = FlowTable(Shares(3), Counts(lambda: 0.0))
    flows = {name: Closed(used=5.0 * (name == "busy")) for name in ("busy", "idle", "last")}
    for now, (name, flow) in enumerate(flows.items()):
        table.enter(("udp", name), "guest", flow, float(now))
    assert table.enter(("udp", "new"), "other", Closed(), 6.0)
    assert [name for name, flow in flows.items() if flow.closed] == ["idle"]


def test_when_nothing_is_left_the_fullest_owner_loses_one():
    table = FlowTable(Shares(9), Counts(lambda: 0.0))
    for owner, number in (("a", 5), ("b", 3), ("c", 1)):
        for each in range(number):
            assert table.enter((owner, each), owner, Closed(), 0.0)
    assert table.enter(("d", 0), "d", Closed(), 0.0)
    assert len(table._flows.of("a")) == 4


def test_unanswered_flows_go_first():
    flows = Flows()
    flows.add("talk", "guest", "talk", 0.0)
    flows.answered("talk", 0.0)
    flows.add("question", "guest", "question", 1.0)
    assert flows.next_to_go("guest") == "question"
