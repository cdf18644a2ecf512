"""The table of leases: by MAC address and port, in fair shares, kept for guests that have gone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.leases.lease import DECLINE_S, LEASE_S, NEXT, OFFER_S, Lease, LeaseState
from gateway.leases.table import GREED, Leases
from gateway.ports import Port

FIRST, LAST = 3, 253
FIXED = {b"\x52\x55\0\0\0\xff": 2}
IN_USE = (LeaseState.OFFERED, LeaseState.BOUND)


def mac(number: int) -> bytes:
    return bytes((0x52, 0x54, 0, 0, number >> 8, number & 255))


def port(number: int) -> Port:
    return Port(number, number + 100)


def table(first: int = FIRST, last: int = LAST) -> Leases:
    return Leases(first, last, FIXED)


def lease(leases: Leases, address: bytes, through: Port, now: float = 0.0) -> Lease | None:
    """Ask for an address and accept the offer."""
    offered = leases.offer(address, through, 0, now)
    return None if offered is None else leases.bind(address, through, offered.address, now)


def test_when_all_addresses_are_leased_the_first_vm_to_leave_makes_room() -> None:
    leases = table()
    first = [lease(leases, mac(n), port(n)) for n in range(251)]
    assert len({each.address for each in first if each is not None}) == 251
    assert lease(leases, mac(300), port(300)) is None
    for n in range(251):
        leases.left(port(n), float(n))
    again = lease(leases, mac(7), port(400), 300.0)
    assert again is first[7]  # it is still there
    newcomer = lease(leases, mac(300), port(300), 300.0)
    assert newcomer is not None
    assert first[0] is not None
    assert newcomer.address == first[0].address


@pytest.mark.parametrize("size", [1, 2, 5, 2000, 4093])
def test_as_many_vms_as_the_pool_has_addresses_have_one_each(size: int) -> None:
    leases = table(FIRST, FIRST + size - 1)
    found = [lease(leases, mac(number), port(number)) for number in range(size)]
    assert {each.address for each in found if each is not None} == set(range(FIRST, FIRST + size))
    assert lease(leases, mac(size), port(size)) is None


def test_the_address_of_a_vm_that_has_gone_is_its_own_while_there_are_others() -> None:
    leases = table()
    one = lease(leases, mac(1), port(1))
    assert one is not None
    leases.left(port(1), 1.0)
    others = [lease(leases, mac(n), port(n), 2.0) for n in range(2, 252)]
    assert one.address not in {each.address for each in others if each is not None}
    assert lease(leases, mac(1), port(500), 3.0) is one


@pytest.mark.parametrize("let_go", ["release", "ignore the offer"])
def test_a_guest_with_ever_new_mac_addresses_takes_no_address_of_a_vm_that_has_gone(let_go: str) -> None:
    leases = table()
    one = lease(leases, mac(1), port(1))
    assert one is not None
    leases.left(port(1), 1.0)
    now = 2.0
    for number in range(2, 1000):
        got = leases.offer(mac(number), port(2), 0, now)
        assert got is not None
        if let_go == "release":
            leases.bind(mac(number), port(2), got.address, now)
            leases.release(mac(number), port(2), got.address, now)
        now += OFFER_S
    newcomer = lease(leases, mac(2000), port(3), now)
    assert newcomer is not None
    assert newcomer.address != one.address
    assert lease(leases, mac(1), port(500), now) is one


def test_clones_of_a_mac_address_behind_two_ports_have_an_address_each() -> None:
    leases = table()
    one, other = lease(leases, mac(1), port(1)), lease(leases, mac(1), port(2))
    assert one is not None
    assert other is not None
    assert one.address != other.address
    leases.release(mac(1), port(2), one.address, 1.0)
    assert one.state is LeaseState.BOUND
    assert not leases.decline(mac(1), port(2), one.address, 1.0)
    assert leases.bind(mac(1), port(2), one.address, 1.0) is None
    assert leases.bind(mac(1), port(1), one.address, 1.0) is one


def used_by(leases: Leases, **users: set[int]) -> None:
    """Let ports use addresses, by the number of the port behind "port"."""
    by_port = {port(int(name[4:])): addresses for name, addresses in users.items()}
    leases.is_used = lambda address, asker: any(
        address in addresses for each, addresses in by_port.items() if each != asker
    )


def test_an_address_that_another_vm_was_given_by_hand_is_not_offered() -> None:
    leases = table()
    used_by(leases, port1={50})
    other = leases.offer(mac(2), port(2), 50, 0.0)
    assert other is not None
    assert other.address != 50
    assert leases.bind(mac(3), port(3), 50, 0.0) is None
    own = leases.offer(mac(1), port(1), 50, 0.0)
    assert own is not None
    assert own.address == 50


def test_the_address_that_a_new_vm_would_get_is_skipped_if_another_vm_uses_it() -> None:
    alone = table().offer(mac(2), port(2), 0, 0.0)
    assert alone is not None
    leases = table()
    used_by(leases, port1={alone.address, alone.address + 1})
    got = leases.offer(mac(2), port(2), 0, 0.0)
    assert got is not None
    assert got.address == alone.address + 2


def test_a_kept_address_that_another_vm_uses_now_is_its_guests_no_longer() -> None:
    leases = table()
    one = lease(leases, mac(1), port(1))
    assert one is not None
    leases.left(port(1), 1.0)
    used_by(leases, port2={one.address})
    assert leases.bind(mac(1), port(3), one.address, 2.0) is None
    again = [leases.offer(mac(1), port(3), one.address, 2.0) for _ in range(3)]
    assert again[0] is not None
    assert again[0].address != one.address
    assert {id(each) for each in again} == {id(again[0])}
    assert leases.at(one.address) is None
    # A lease in use is not taken from its guest: the guard keeps others from its address.
    used_by(leases, port2={again[0].address})
    assert leases.bind(mac(1), port(3), again[0].address, 2.0) is again[0]
    assert leases.offer(mac(1), port(3), 0, 2.0) is again[0]


def test_claims_deny_nobody_a_lease() -> None:
    leases = table(3, 6)
    used_by(leases, port9=set(range(3, 7)))
    got = [lease(leases, mac(n), port(n)) for n in range(1, 5)]
    assert {each.address for each in got if each is not None} == {3, 4, 5, 6}
    leases.left(port(2), 1.0)
    newcomer = lease(leases, mac(6), port(6), 2.0)
    assert newcomer is not None
    assert got[1] is not None
    assert newcomer.address == got[1].address


def test_an_address_of_the_operators_own_is_given_whoever_uses_it() -> None:
    leases = table()
    used_by(leases, port9={2})
    fixed = lease(leases, next(iter(FIXED)), port(1))
    assert fixed is not None
    assert fixed.address == 2


def test_a_port_that_takes_all_it_can_leaves_most_to_the_others() -> None:
    leases = table()
    greedy = [lease(leases, mac(n), port(1)) for n in range(1000)]
    assert sum(each is not None for each in greedy) == 51
    assert sum(lease(leases, mac(2000 + n), port(2)) is not None for n in range(1000)) == 41
    assert all(lease(leases, mac(4000 + n), port(10 + n)) is not None for n in range(251 - 51 - 41))
    assert lease(leases, mac(9000), port(999)) is None


def test_to_decline_does_not_use_up_the_pool_and_ends() -> None:
    leases = table()
    declined = 0
    while (got := lease(leases, mac(1), port(1))) is not None:
        assert leases.decline(mac(1), port(1), got.address, 0.0)
        declined += 1
    assert declined == 51
    assert lease(leases, mac(2), port(2)) is not None
    assert lease(leases, mac(1), port(1), DECLINE_S + 1) is not None
    leases.left(port(1), DECLINE_S + 1)


def test_an_offer_that_is_not_taken_ends_and_so_does_a_lease_that_is_not_renewed() -> None:
    leases = table(3, 3)
    assert leases.offer(mac(1), port(1), 0, 0.0) is not None
    assert leases.offer(mac(2), port(2), 0, OFFER_S - 1) is None
    assert lease(leases, mac(2), port(2), OFFER_S) is not None
    assert leases.bind(mac(2), port(2), 3, 1000.0) is not None
    assert lease(leases, mac(1), port(1), LEASE_S + 999) is None
    assert lease(leases, mac(1), port(1), LEASE_S + 1000) is not None


def test_an_offer_to_a_guest_that_has_the_address_renews_nothing() -> None:
    leases = table()
    one = lease(leases, mac(1), port(1))
    assert one is not None
    assert leases.offer(mac(1), port(1), 0, 1000.0) is one
    assert (one.state, one.ends) == (LeaseState.BOUND, LEASE_S)


def test_a_requested_address_is_given_if_it_is_free() -> None:
    leases = table()
    assert leases.offer(mac(1), port(1), 77, 0.0).address == 77  # type: ignore[union-attr]
    assert leases.offer(mac(2), port(2), 77, 0.0).address != 77  # type: ignore[union-attr]
    for outside in (2, 254, 1, 10**9):
        assert FIRST <= leases.offer(mac(3), port(3), outside, 0.0).address <= LAST  # type: ignore[union-attr]


def test_a_lost_table_confirms_free_addresses() -> None:
    leases = table()
    assert leases.bind(mac(1), port(1), 77, 0.0) is not None
    assert leases.bind(mac(2), port(2), 77, 0.0) is None
    assert leases.bind(mac(2), port(2), 254, 0.0) is None
    for n in range(1000):
        leases.bind(mac(100 + n), port(3), FIRST + n % 251, 0.0)
    assert sum(each.port == port(3) for each in leases) <= 51  # and that is no way around a share


def test_a_fixed_address_is_for_its_mac_address_alone_and_for_one_port_of_it() -> None:
    leases = table()
    (address,) = FIXED
    assert leases.bind(mac(1), port(1), 2, 0.0) is None
    assert leases.offer(address, port(1), 99, 0.0).address == 2  # type: ignore[union-attr]
    assert leases.offer(address, port(2), 2, 0.0).address != 2  # type: ignore[union-attr]
    leases.left(port(1), 1.0)
    leases.left(port(2), 1.0)
    assert leases.offer(mac(1), port(1), 2, 2.0).address != 2  # type: ignore[union-attr]


def test_a_name_in_use_is_not_given_again() -> None:
    leases = table()
    one, other = lease(leases, mac(1), port(1)), lease(leases, mac(2), port(2))
    assert one is not None
    assert other is not None
    assert leases.call(one, "web")
    assert not leases.call(other, "web")
    assert leases.named("web") is one
    leases.left(port(1), 1.0)
    assert leases.named("web") is None
    assert leases.call(other, "web")
    assert lease(leases, mac(1), port(1), 2.0) is one
    assert one.name == ""
    assert leases.named("web") is other


def test_saved_leases_are_restored_if_possible() -> None:
    leases = table()
    for n, (address, state) in enumerate(
        ((50, LeaseState.BOUND), (51, LeaseState.KEPT), (50, LeaseState.KEPT), (1, LeaseState.KEPT))
    ):
        old = Lease(mac(n), port(n), address)
        old.name = f"name{n}"
        leases.restore(old, state, 100.0)
    assert [(each.address, each.state) for each in leases] == [(51, LeaseState.KEPT), (50, LeaseState.BOUND)]
    assert leases.named("name0") is leases.at(50)
    leases.expire(100.0)
    assert leases.at(50).state is LeaseState.KEPT  # type: ignore[union-attr]


@pytest.mark.parametrize("event", ["offer", "bind", "let go", "decline"])
def test_a_declined_lease_is_only_forgotten(event: str) -> None:
    assert (LeaseState.DECLINED, event) not in NEXT


class Machine(RuleBasedStateMachine):
    """After any requests of guests, no guest has another's address, and no port has more than its share."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(1, 12, {mac(9): 20})
        self.now = 0.0
        self.gone = 0

    MACS = st.integers(1, 9).map(mac)
    PORTS = st.integers(1, 3)

    def real(self, number: int) -> Port:
        return Port(number, self.gone)

    @rule(address=MACS, number=PORTS, asked=st.integers(0, 21))
    def offer(self, address: bytes, number: int, asked: int) -> None:
        self.leases.expire(self.now)
        before = sum(each.port == self.real(number) and each.state in IN_USE for each in self.leases)
        used = sum(each.state in IN_USE for each in self.leases)
        mine = self.leases.of(address, self.real(number))
        had = mine is not None and mine.state in IN_USE
        got = self.leases.offer(address, self.real(number), asked, self.now)
        if got is not None and not had and address != mac(9):
            assert before <= GREED * (12 - used) + 1e-9 or not before

    @rule(address=MACS, number=PORTS, wanted=st.integers(0, 21))
    def bind(self, address: bytes, number: int, wanted: int) -> None:
        self.leases.expire(self.now)
        holder = self.leases.at(wanted)
        taken = holder is not None and holder.state in IN_USE and holder.port != self.real(number)
        got = self.leases.bind(address, self.real(number), wanted, self.now)
        assert not taken or got is None
        assert got is None or (got.mac, got.port, got.address) == (address, self.real(number), wanted)

    @rule(address=MACS, number=PORTS, wanted=st.integers(0, 21))
    def release(self, address: bytes, number: int, wanted: int) -> None:
        holder = self.leases.at(wanted)
        mine = holder is not None and (holder.mac, holder.port) == (address, self.real(number))
        state = holder.state if holder is not None else None
        self.leases.release(address, self.real(number), wanted, self.now)
        assert mine or holder is None or holder.state is state

    @rule(address=MACS, number=PORTS, wanted=st.integers(0, 21))
    def decline(self, address: bytes, number: int, wanted: int) -> None:
        holder = self.leases.at(wanted)
        mine = holder is not None and (holder.mac, holder.port) == (address, self.real(number))
        assert not self.leases.decline(address, self.real(number), wanted, self.now) or mine

    @rule(number=PORTS)
    def leave(self, number: int) -> None:
        self.leases.left(self.real(number), self.now)
        assert not any(each.port == self.real(number) and each.state in IN_USE for each in self.leases)

    @rule()
    def all_leave(self) -> None:
        for number in (1, 2, 3):
            self.leases.left(self.real(number), self.now)
        self.gone += 1

    @rule(seconds=st.sampled_from((1.0, OFFER_S, DECLINE_S, LEASE_S)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(address=MACS, name=st.sampled_from("ab"))
    def call(self, address: bytes, name: str) -> None:
        for each in self.leases:
            if each.mac == address:
                self.leases.call(each, name)

    @invariant()
    def nobody_has_anothers(self) -> None:
        everyone = list(self.leases)
        assert max(Counter(each.address for each in everyone).values(), default=0) <= 1
        assert max(Counter(each.name for each in everyone if each.name).values(), default=0) <= 1
        pairs = Counter((each.mac, each.port) for each in everyone if each.state in IN_USE)
        assert max(pairs.values(), default=0) <= 1
        for each in everyone:
            assert 1 <= each.address <= 12 or (each.address, each.mac) == (20, mac(9))
            assert self.leases.at(each.address) is each
        assert len(self.leases) <= 13


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
