"""What a worker asks the supervisor for, and what it does with the answers."""

import os

import pytest

from forwarder.membership import Changed, Joined, Left
from forwarder.names import Policy, PortRecord
from forwarder.wire import Floods, RingRx, RingTx, WantFloods, WantRing
from workers.links import REPEAT_S, Links

MAC = bytes.fromhex("020000000007")


def port(number, epoch=10, *, born=None, policy=Policy()):  # noqa: B008 (a NamedTuple is immutable)
    return PortRecord(number, epoch, born or epoch, f"vm-{number}", "qemu", policy)


class FakeEngine:
    """Notes what it is told; ``refuse`` makes attaching fail as a stale epoch does."""

    def __init__(self):
        self.calls = []
        self.refuse = False

    def __getattr__(self, name):
        def call(*arguments):
            if name.startswith("attach") and self.refuse:
                raise OSError("stale")
            self.calls.append((name, *arguments))

        return call

    def took(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


class Bench:
    def __init__(self):
        self.engine = FakeEngine()
        self.sent = []
        self.links = Links(self.engine, port(1), self.sent.append)

    def descriptors(self, count):
        made = []
        for _ in range(count):
            read, write = os.pipe()
            os.close(write)
            made.append(read)
        return tuple(made)


@pytest.fixture
def bench():
    return Bench()


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


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
    bench.links.receive(Floods(((2, 10),)), fds)
    assert bench.engine.took("attach_flood") == [(2, 10, fd)]
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


def test_a_wanted_ring_is_asked_for_once_then_given_up_for_a_while_and_asked_for_again(bench):
    bench.links.apply(Joined(port(2)))
    bench.links.tick(now=0.0)
    bench.links.want([2], now=1.0)
    bench.links.want([2], now=1.1)
    assert bench.sent[1:] == [WantRing(2, 10)]
    bench.links.receive(Floods(((2, 10),)), bench.descriptors(1))
    bench.links.tick(now=1.0 + REPEAT_S)
    assert bench.engine.took("give_up_ring") == [(2,)]
    assert bench.sent[2:] == [WantRing(2, 10)]
    bench.links.receive(RingTx(2, 10), bench.descriptors(2))
    assert len(bench.engine.took("attach_tx")) == 1
    assert bench.links.deadline() == float("inf")


def test_nobody_asks_for_a_ring_to_a_port_that_is_no_member(bench):
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
def test_descriptors_are_closed_whatever_becomes_of_them(bench, refuse):
    bench.engine.refuse = refuse
    bench.links.apply(Joined(port(2)))
    received = []
    for message, count in ((Floods(((2, 10),)), 1), (RingTx(2, 10), 2), (RingRx(2, 10), 1)):
        fds = bench.descriptors(count)
        bench.links.receive(message, fds)
        received += fds
    duplicates = [call[3] for call in bench.engine.took("attach_tx")]
    assert not any(is_open(fd) for fd in received if fd not in duplicates)
    for fd in duplicates:
        os.close(fd)


def test_rings_of_a_past_epoch_are_not_attached(bench):
    bench.links.apply(Joined(port(2, epoch=12)))
    bench.links.receive(Floods(((2, 10),)), bench.descriptors(1))
    assert bench.engine.took("attach_flood") == []
