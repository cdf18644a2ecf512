"""Any order of events leaves the registry's promises whole; the real publisher checks what it publishes."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forwarder._core import LAYOUT
from forwarder.errors import LocalError
from forwarder.membership import MembershipLog
from forwarder.names import TRANSPORT_KIND, Identity, Policy, PortRecord
from forwarder.restart_budget import Budget
from supervisor.membership.join_rollout import IN_LOG
from supervisor.ports.actions import AssignWorker, EndWorker, Log, Publish, ReleaseVm
from supervisor.ports.lifecycle import HAS_WORKER, PortState, resumable
from supervisor.ports.registry import Registry

MACS = st.lists(st.integers(1, 9).map(lambda n: bytes([2, 0, 0, 0, 0, n])), max_size=2, unique=True).map(
    tuple
)
PICK = st.integers(0, 50)


class Ports(RuleBasedStateMachine):
    """A supervisor made of nothing: it carries out actions in tables, and events are drawn."""

    @initialize()
    def start(self):
        self.now = 0.0
        self.registry = Registry(Budget(attempts=1, window_s=5.0, first_s=0.1))
        self.publisher = MembershipLog(1)
        self.stopping = False
        self.pids = itertools.count(100)
        self.open = {}  # born -> number: descriptors that the switch holds
        self.wanted = {}  # number -> record: workers to be assigned
        self.workers = {}  # (number, epoch) -> identity: processes that run
        self.ending = set()
        self.last = {}  # number -> its last epoch
        self.epochs = {}  # every epoch ever used -> born
        self.past = []  # (number, epoch) of lost workers

    def do(self, actions):
        released = set()
        for action in actions:
            match action:
                case AssignWorker(record):
                    assert record.epoch not in self.epochs
                    assert record.epoch > self.last.get(record.port, 0)
                    self.last[record.port] = record.epoch
                    assert not [key for key in self.workers if key[0] == record.port]
                    self.epochs[record.epoch] = record.born
                    self.wanted[record.port] = record
                case Publish(change, record):
                    assert not self.stopping
                    assert record.port not in released
                    known = self.publisher.get(record.port)
                    in_log = "change" if change == "join" and known else IN_LOG.get(change, change)
                    self.publisher.update(in_log, record)  # raises if the order of changes makes no sense
                case EndWorker(port, epoch, identity):
                    assert self.workers[port, epoch] == identity
                    assert (port, epoch) not in self.ending
                    self.ending.add((port, epoch))
                case ReleaseVm(record, _):
                    assert self.open.pop(record.born) == record.port
                    assert not [key for key in self.workers if key[0] == record.port]
                    self.wanted.pop(record.port, None)
                    released.add(record.port)
                case Log():
                    pass

    @property
    def pinned(self):
        return {mac for port in self.registry for mac in port.record.policy.pinned}

    def pick(self, items, index):
        items = sorted(items)
        return items[index % len(items)]

    @rule(
        transport=st.sampled_from(sorted(TRANSPORT_KIND)),
        macs=MACS,
        name=st.sampled_from([None, None, "web"]),
    )
    def attach(self, transport, macs, name):
        try:
            record, actions = self.registry.attach(transport, self.now, name, Policy(macs))
        except LocalError:
            names = {port.record.name for port in self.registry}
            assert self.stopping or name in names or self.pinned.intersection(macs)
            return
        assert record.epoch == record.born
        self.open[record.born] = record.port
        self.do(actions)

    @precondition(lambda self: self.wanted)
    @rule(index=PICK)
    def assign(self, index):
        record = self.wanted.pop(self.pick(self.wanted, index))
        identity = Identity(next(self.pids), 1)
        self.workers[record.port, record.epoch] = identity
        self.do(self.registry.assigned(record.port, record.epoch, identity))

    @precondition(lambda self: self.wanted)
    @rule(index=PICK)
    def no_worker_can_be_started(self, index):
        record = self.wanted.pop(self.pick(self.wanted, index))
        self.do(self.registry.worker_lost(record.port, record.epoch, "no memory", self.now))
        assert self.registry.get(record.port).state in (PortState.WAITING, PortState.PARKED)

    @precondition(lambda self: self.workers)
    @rule(index=PICK)
    def hello(self, index):
        number, epoch = self.pick(self.workers, index)
        self.do(self.registry.hello(number, epoch))
        assert self.registry.live(number, epoch) == ((number, epoch) not in self.ending)

    @precondition(lambda self: self.workers)
    @rule(index=PICK, known=st.booleans())
    def a_worker_dies(self, index, known):
        number, epoch = self.pick(self.workers, index)
        del self.workers[number, epoch]
        was_ending = (number, epoch) in self.ending
        self.ending.discard((number, epoch))
        self.past.append((number, epoch))
        kind = TRANSPORT_KIND[self.registry.get(number).record.transport]
        self.do(self.registry.worker_lost(number, epoch, "signal 9", self.now, position_known=known))
        over = was_ending or not resumable(kind, position_known=known)
        assert (self.registry.get(number) is None) == over

    @precondition(lambda self: self.workers)
    @rule(index=PICK)
    def a_vm_hangs_up(self, index):
        self.do(self.registry.goodbye(*self.pick(self.workers, index), "hung up"))

    @precondition(lambda self: self.open)
    @rule(index=PICK)
    def a_listener_sees_a_vm_go(self, index):
        born = self.pick(self.open, index)
        self.do(self.registry.vm_gone(self.open[born], born, "hung up"))

    @precondition(lambda self: self.open)
    @rule(index=PICK)
    def detach(self, index):
        self.do(self.registry.detach(self.open[self.pick(self.open, index)]))

    @precondition(lambda self: self.open)
    @rule(index=PICK, macs=MACS, isolated=st.booleans())
    def set_policy(self, index, macs, isolated):
        number = self.open[self.pick(self.open, index)]
        before = self.registry.get(number).record
        try:
            self.do(self.registry.set_policy(number, Policy(macs, isolated=isolated)))
        except LocalError:
            assert self.registry.get(number).record == before
            assert self.pinned.difference(before.policy.pinned).intersection(macs)

    @precondition(lambda self: self.past)
    @rule(index=PICK)
    def the_dead_speak(self, index):
        number, epoch = self.past[index % len(self.past)]
        before = [(port.record, port.state) for port in self.registry]
        self.do(self.registry.hello(number, epoch))
        self.do(self.registry.worker_lost(number, epoch, "signal 9", self.now))
        assert [(port.record, port.state) for port in self.registry] == before

    @precondition(lambda self: self.past)
    @rule(index=PICK)
    def the_last_words_of_the_dead_arrive(self, index):
        number, epoch = self.past[index % len(self.past)]
        port = self.registry.get(number)
        self.do(self.registry.goodbye(number, epoch, "hung up"))
        if port is not None and port.record.epoch == epoch:
            assert self.registry.get(number) is None  # no later worker has it yet, so the word counts
        else:
            assert self.registry.get(number) is port

    @rule()
    def the_take_over_is_over(self):
        self.registry.reserve.open = True

    @precondition(lambda self: not self.registry.reserve.open)
    @rule(number=st.integers(1, 6), ahead=st.integers(1, 3), name=st.sampled_from(["web", "old"]), macs=MACS)
    def claim(self, number, ahead, name, macs):
        epoch = max(self.epochs, default=0) + ahead
        record = PortRecord(number, epoch, epoch, name, "qemu", Policy(macs))
        identity = Identity(next(self.pids), 1)
        actions = self.registry.adopt(record, identity, LAYOUT, self.now)
        if any(isinstance(action, Publish) for action in actions):
            self.open[epoch] = number
            self.epochs[epoch] = epoch
            self.workers[number, epoch] = identity
        self.do(actions)

    @rule(seconds=st.floats(0.01, 3.0))
    def time_passes(self, seconds):
        self.now += seconds
        due = self.registry.deadline() <= self.now
        actions = self.registry.tick(self.now)
        assert bool(actions) == due
        self.do(actions)
        assert self.registry.deadline() > self.now

    @precondition(lambda self: self.now > 10.0)
    @rule()
    def shutdown(self):
        actions = self.registry.shutdown()
        self.stopping = True
        self.do(actions)

    @invariant()
    def the_registry_is_whole(self):
        ports = list(self.registry)
        assert {port.record.born: port.record.port for port in ports} == self.open
        assert len({port.record.name for port in ports}) == len(ports)
        assert len(self.pinned) == sum(len(port.record.policy.pinned) for port in ports)
        for port in ports:
            key = (port.record.port, port.record.epoch)
            assert (port.state in HAS_WORKER) == (port.identity is not None)
            assert port.identity == self.workers.get(key)
            assert (port.state is PortState.ENDING) == (key in self.ending)
            assert (port.state is PortState.PENDING) == (port.record.port in self.wanted)

    @invariant()
    def members_are_the_ports_that_have_been_live(self):
        if self.stopping:
            return
        members = {record.port: record for record in self.publisher.snapshot().records}
        for port in self.registry:
            if port.state is PortState.LIVE:
                assert members[port.record.port] == port.record
            if port.state in (PortState.PARKED, PortState.ENDING):
                assert port.record.port not in members
        reserved = {number: self.registry.reserve.get(number) for number in self.registry.reserve}
        assert members.keys() <= {port.record.port for port in self.registry} | reserved.keys()
        assert reserved.items() <= members.items()
        assert not [number for number in reserved if self.registry.get(number)]

    def teardown(self):
        if not hasattr(self, "registry"):
            return
        self.stopping = True
        self.do(self.registry.shutdown())
        for number, epoch in list(self.workers):
            del self.workers[number, epoch]
            self.do(self.registry.worker_lost(number, epoch, "exit 0", self.now))
        assert len(self.registry) == 0
        assert not self.open


TestPorts = Ports.TestCase
TestPorts.settings = settings(max_examples=100, stateful_step_count=50)
