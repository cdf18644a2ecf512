"""The MAC table: what it knows against a dict that never forgets, and what it may forget when it is full."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from forwarder._core import Fdb
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, frame, mac
from tests.helpers.core.model_switch import PERIOD_S
from tests.helpers.core.scribble import set_fdb_count

WAYS, BUCKETS = 5, 2048
CAPACITY = WAYS * BUCKETS
# Few enough that no bucket ever holds more than its five.
ADDRESSES = st.sampled_from([mac(number) for number in range(12)] + [bytes(6), b"\xfe" + b"\xff" * 5])
GROUPS = st.sampled_from([BROADCAST, bytes.fromhex("01005e000001"), bytes.fromhex("0300000000ff")])
NUMBERS = st.sampled_from((1, 2, 3, 1023))


class Table(RuleBasedStateMachine):
    """An entry seen in this generation or the last one is valid; a sweep takes the others."""

    def __init__(self) -> None:
        super().__init__()
        self.fdb = Fdb(0x5EC2E7)
        self.now = 0
        self.learned: dict[bytes, tuple[int, int]] = {}
        self.pins: dict[bytes, int] = {}

    def expected(self, address: bytes) -> int:
        port, seen = self.learned.get(address, (0, self.now))
        aged = self.now // PERIOD_S - seen // PERIOD_S > 1
        return self.pins.get(address, 0 if aged else port)

    @rule(address=ADDRESSES, port=NUMBERS)
    def learn(self, address: bytes, port: int) -> None:
        allowed = self.pins.get(address, port) == port
        assert self.fdb.learn(address, port) == allowed
        if allowed and address not in self.pins:
            self.learned[address] = (port, self.now)
        self.check()

    @rule(address=ADDRESSES, port=NUMBERS)
    def pin(self, address: bytes, port: int) -> None:
        allowed = self.pins.get(address, port) == port
        assert self.fdb.pin(address, port) == allowed
        if allowed:
            self.pins[address] = port
            self.learned.pop(address, None)
        self.check()

    @rule(address=GROUPS, port=NUMBERS)
    def group_addresses_are_never_learned(self, address: bytes, port: int) -> None:
        assert not self.fdb.learn(address, port)
        assert not self.fdb.pin(address, port)
        assert self.fdb.lookup(address) == 0
        self.check()

    @rule(seconds=st.integers(0, 2 * PERIOD_S))
    def age(self, seconds: int) -> None:
        self.now += seconds
        self.fdb.age(self.now)
        self.learned = {address: entry for address, entry in self.learned.items() if self.expected(address)}
        self.check()

    @rule(port=NUMBERS)
    def forget(self, port: int) -> None:
        self.fdb.forget(port)
        self.learned = {address: entry for address, entry in self.learned.items() if entry[0] != port}
        self.pins = {address: at for address, at in self.pins.items() if at != port}
        self.check()

    def check(self) -> None:
        for address in {*self.learned, *self.pins}:
            assert self.fdb.lookup(address) == self.expected(address)
        held = [port for port, _ in self.learned.values()] + [*self.pins.values()]
        for port in (1, 2, 3, 1023):
            assert self.fdb.count(port) == held.count(port)


Table.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestTable = Table.TestCase


def invented(count: int, seed: int = 1) -> list[bytes]:
    """Individual addresses as a guest may make them up."""
    chosen = random.Random(seed)
    return [bytes((chosen.randrange(128) * 2,)) + chosen.randbytes(5) for _ in range(count)]


def test_entry_ages_out_after_two_generations() -> None:
    fdb = Fdb()
    fdb.age(PERIOD_S - 1)
    fdb.learn(mac(1), 1)
    fdb.learn(mac(2), 1)
    fdb.pin(mac(3), 1)
    fdb.age(2 * PERIOD_S - 1)
    fdb.learn(mac(2), 1)
    assert fdb.lookup(mac(1)) == 1
    fdb.age(2 * PERIOD_S)
    assert [fdb.lookup(mac(n)) for n in (1, 2, 3)] == [0, 1, 1]
    assert fdb.count(1) == 2


def test_table_is_bounded() -> None:
    fdb = Fdb(7)
    for port, address in enumerate(invented(4 * CAPACITY)):
        fdb.learn(address, 1 + port % 50)
    held = sum(fdb.count(port) for port in range(51))
    assert CAPACITY * 0.99 < held <= CAPACITY


def test_flooding_port_evicts_only_its_own() -> None:
    fdb = Fdb(9)
    quiet = invented(200, seed=2)
    for address in quiet:
        fdb.learn(address, 2)
    for address in invented(4 * CAPACITY, seed=3):
        fdb.learn(address, 1)
    # More than five of the quiet ones in one bucket would have evicted each other already.
    assert [fdb.lookup(address) for address in quiet] == [2] * len(quiet)
    assert fdb.count(2) == len(quiet)


def test_newcomer_finds_room_in_a_table_that_another_port_has_filled() -> None:
    fdb = Fdb(11)
    for address in invented(4 * CAPACITY, seed=3):
        fdb.learn(address, 1)
    fresh = invented(200, seed=4)
    for address in fresh:
        assert fdb.learn(address, 2)
    assert [fdb.lookup(address) for address in fresh] == [2] * len(fresh)


def test_pinned_entries_are_never_evicted() -> None:
    fdb = Fdb(13)
    pinned = [address for address in invented(300, seed=5) if fdb.pin(address, 3)]
    for address in invented(4 * CAPACITY, seed=6):
        fdb.learn(address, 1)
    assert [fdb.lookup(address) for address in pinned] == [3] * len(pinned)


def test_pin_is_refused_where_a_bucket_is_full_of_pins() -> None:
    fdb = Fdb(15)
    results = [fdb.pin(address, 1) for address in invented(2 * CAPACITY, seed=7)]
    assert not all(results)
    assert fdb.count(1) == sum(results) <= CAPACITY


def test_secret_decides_where_addresses_collide() -> None:
    """Addresses that crowd one bucket under one secret must not do so under another."""

    def survivors(secret: int, addresses: list[bytes]) -> list[bytes]:
        fdb = Fdb(secret)
        for address in addresses:
            fdb.learn(address, 1)
        return [address for address in addresses if fdb.lookup(address)]

    addresses = invented(CAPACITY, seed=8)
    assert survivors(1, addresses) != survivors(2, addresses)


@pytest.mark.parametrize("address", [b"", b"\2" * 5, b"\2" * 7])
def test_wrong_arguments_are_refused(address: bytes) -> None:
    fdb = Fdb()
    with pytest.raises(ValueError, match="6 bytes"):
        fdb.learn(address, 1)
    with pytest.raises(ValueError, match="6 bytes"):
        fdb.lookup(address)
    with pytest.raises(ValueError, match="below MAX_PORTS"):
        fdb.learn(mac(1), 1024)


def test_stats_page_shows_the_addresses_of_a_port() -> None:
    with MiniSwitch() as switch:
        switch.add(1, "dgram")
        switch.add(2, "dgram")
        switch.engines[1].pin(1, [mac(1)])
        switch.vms[1].send(frame(BROADCAST, mac(1)))
        switch.vms[2].send(frame(BROADCAST, mac(2)), frame(BROADCAST, mac(3)), frame(BROADCAST, BROADCAST))
        switch.settle()
        assert switch.macs_behind(1, 1) == {mac(1)}
        assert switch.macs_behind(2, 2) == {mac(2), mac(3)}


def test_a_table_that_a_killed_worker_left_half_changed_is_counted_anew() -> None:
    """A worker may die between an entry and its count, and a port with count 0 is not searched for."""
    with MiniSwitch() as switch:
        for port in (1, 2):
            switch.add(port, "stream").send(frame(BROADCAST, mac(port)))
            switch.settle()
        assert switch.macs_behind(1, 2)
        set_fdb_count(switch.stats[1], 2, 0)
        set_fdb_count(switch.stats[1], 1, 7)
        switch.restart(1)
        switch.engines[1].set_limits(broadcast=0, multicast=0, unknown=0, bytes=0, macs=2)
        switch.vms[1].send(frame(BROADCAST, mac(10)))
        switch.remove(2)
        switch.settle()
        assert switch.macs_behind(1, 1) == {mac(1), mac(10)}
        assert not switch.macs_behind(1, 2)
