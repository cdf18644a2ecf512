"""The core against its oracle: random traffic, membership and policy over a switch of real engines.

``Switching`` lets every burst arrive before the next, so that each VM must receive exactly what the model
says. A station that moves announces itself, as real ones do; a port that has not heard of the move uses its
old entry, on any learning bridge. ``Overload`` never waits: there every frame must be received or counted.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.helpers.core.mini_switch import BROADCAST, KINDS, LENGTHS, LONGEST, MiniSwitch, frame, mac
from tests.helpers.core.model_switch import PERIOD_S, ModelSwitch

PORTS = range(1, 6)
STATIONS = [mac(number) for number in range(1, 10)]
GROUPS = [BROADCAST, bytes.fromhex("01005e000001"), bytes.fromhex("333300000001")]
NOBODY = [mac(500), mac(501)]
SIZES = (24, 42, 60, 1514, 9014)


def numbered(dst: bytes, src: bytes, number: int, size: int) -> bytes:
    return frame(dst, src, struct.pack("!Q", number), size)


def in_order(frames: list[bytes]) -> bool:
    """Whether the frames of each conversation (source, destination) arrived as they were sent."""
    numbers: dict[bytes, list[int]] = defaultdict(list)
    for each in frames:
        numbers[each[:12]].append(struct.unpack_from("!Q", each, 14)[0])
    return all(found == sorted(found) for found in numbers.values())


class Switching(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.switch = MiniSwitch()
        self.model = ModelSwitch()
        self.homes: dict[bytes, int] = {}
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self.number = 0

    @initialize(kinds=st.tuples(*[st.sampled_from(KINDS)] * 3))
    def start(self, kinds: tuple[str, ...]) -> None:
        for port, kind in enumerate(kinds, 1):
            self.join(port, kind)

    def join(self, port: int, kind: str) -> None:
        self.switch.add(port, kind)
        self.model.join(port)
        for pinned_to in set(self.model.pins.values()):
            self.switch.engines[port].pin(pinned_to, self.pins_of(pinned_to))
        self.switch.engines[port].age(self.model.now)

    def pins_of(self, port: int) -> list[bytes]:
        return [address for address, at in self.model.pins.items() if at == port]

    def burst(self, port: int, src: bytes, dsts: list[tuple[bytes, int]]) -> None:
        frames = []
        for dst, size in dsts:
            self.number += 1
            frames.append(numbered(dst, src, self.number, size))
        expected = self.model.burst(port, frames)
        self.switch.vms[port].send(*frames)
        self.switch.settle()
        self.sent[port] += len(frames)
        for other, vm in self.switch.vms.items():
            got = vm.received()
            self.received[other] += len(got)
            assert Counter(got) == Counter(expected[other]), (port, other)
            assert in_order(got)
        self.check_counters()

    def check_counters(self) -> None:
        for port in self.switch.engines:
            counters = self.switch.counters(port)
            assert counters["rx_frames"] == self.sent[port]
            assert counters["tx_frames"] == self.received[port]
            for reason in ("spoofed", "guarded", "hairpin", "filtered"):
                assert counters[reason] == self.model.counts[port, reason], (port, reason)
            for reason in ("runt", "oversize", "stale_ring", "refused", "egress_bytes"):
                assert counters[reason] == 0, (port, reason)
            assert self.switch.lost_towards(port) == 0

    @rule(data=st.data())
    @precondition(lambda self: self.homes)
    def speak(self, data: st.DataObject) -> None:
        src = data.draw(st.sampled_from(sorted(self.homes)))
        others = [address for address in STATIONS + GROUPS + NOBODY if address != src]
        each = st.tuples(st.sampled_from(others), st.sampled_from(SIZES))
        self.burst(self.homes[src], src, data.draw(st.lists(each, min_size=1, max_size=10)))

    @rule(data=st.data(), src=st.sampled_from(STATIONS))
    def appear(self, data: st.DataObject, src: bytes) -> None:
        """A station comes or moves; if it may not speak there, it stays where it was."""
        port = data.draw(st.sampled_from(sorted(self.model.tables)))
        if self.model.may_speak(port, src):
            self.homes[src] = port
        self.burst(port, src, [(data.draw(st.sampled_from(GROUPS)), 60)])

    @rule(data=st.data())
    def speak_from_a_group(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(sorted(self.model.tables)))
        self.burst(port, GROUPS[1], [(BROADCAST, 60), (STATIONS[0], 60)])

    @rule(data=st.data(), macs=st.lists(st.sampled_from(STATIONS), max_size=2, unique=True))
    def pin(self, data: st.DataObject, macs: list[bytes]) -> None:
        port = data.draw(st.sampled_from(sorted(self.model.tables)))
        free = [address for address in macs if self.model.pins.get(address, port) == port]
        for engine in self.switch.engines.values():
            engine.pin(port, free)
        self.model.pin(port, free)

    @rule(data=st.data(), enabled=st.booleans())
    def set_flood_unknown(self, data: st.DataObject, enabled: bool) -> None:
        port = data.draw(st.sampled_from(sorted(self.model.tables)))
        self.switch.engines[port].set_flood_unknown(enabled)
        (self.model.no_unknown.discard if enabled else self.model.no_unknown.add)(port)

    @rule(seconds=st.integers(1, 3 * PERIOD_S))
    def age(self, seconds: int) -> None:
        self.model.now += seconds
        for engine in self.switch.engines.values():
            engine.age(self.model.now)

    @rule(port=st.sampled_from(PORTS), kind=st.sampled_from(KINDS))
    def join_or_leave(self, port: int, kind: str) -> None:
        if port not in self.switch.engines:
            self.join(port, kind)
        elif len(self.switch.engines) > 2:
            self.switch.remove(port)
            self.model.leave(port)
            for gone in [address for address, at in self.homes.items() if at == port]:
                del self.homes[gone]
            for counts in (self.sent, self.received):
                del counts[port]
            for key in [key for key in self.model.counts if key[0] == port]:
                del self.model.counts[key]

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """Membership tells a new worker the policy, and nothing else needs to be told again."""
        port = data.draw(st.sampled_from(sorted(self.model.tables)))
        self.switch.restart(port)
        self.switch.engines[port].pin(port, self.pins_of(port))
        self.switch.engines[port].set_flood_unknown(port not in self.model.no_unknown)

    def teardown(self) -> None:
        self.switch.close()


Switching.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
test_switching = Switching.TestCase


ACTIONS = {"send": 8, "flood": 2, "read": 1, "sip": 4, "turn": 4, "leave": 1, "restart": 1}


class Overload:
    """VMs that read late or little, ports that leave and restart while frames wait for them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.switch = MiniSwitch()
        self.received: dict[int, list[bytes]] = defaultdict(list)
        self.expected: Counter[int] = Counter()
        self.sent: Counter[int] = Counter()
        self.number = 0
        for port in range(1, 6):
            kind = self.random.choice(KINDS)
            self.switch.add(port, kind, buffer=4096 if kind in LENGTHS else 75_000)
        for port in range(1, 6):
            self.transmit(port, BROADCAST, 60)
        self.switch.settle()

    def transmit(self, port: int, dst: bytes, size: int) -> None:
        self.number += 1
        size = min(size, LONGEST[self.switch.kinds[port]])
        self.switch.vms[port].send(numbered(dst, mac(port), self.number, size))
        self.sent[port] += 1
        for other in self.switch.engines if dst == BROADCAST else [int.from_bytes(dst[4:], "big")]:
            self.expected[other] += other != port

    def send(self, port: int) -> None:
        other = self.random.choice([other for other in self.switch.engines if other != port])
        size = self.random.choice((60, 1514, 9014, 65550))
        for _ in range(self.random.randint(1, 6)):
            self.transmit(port, mac(other), size)
            if self.random.random() < 0.5:
                self.switch.turn()
        self.switch.turn()

    def flood(self, port: int) -> None:
        for _ in range(self.random.randint(1, 12)):
            self.transmit(port, BROADCAST, self.random.choice((60, 1514, 65550)))
            self.switch.turn()

    def sip(self, port: int, most: int = 777) -> bool:
        frames = self.switch.vms[port].read(most if self.switch.kinds[port] in LENGTHS else 1 << 18)
        self.received[port] += frames or []
        return frames is not None

    def read(self, port: int) -> None:
        while self.sip(port, 1 << 18):
            pass

    def empty(self, port: int) -> None:
        """Read until nothing waits for the VM."""
        self.switch.settle()
        while self.sip(port, 1 << 18):
            self.switch.settle()

    def turn(self, _: int) -> None:
        self.switch.turn()

    def leave(self, port: int) -> None:
        if len(self.switch.engines) > 2:
            self.switch.turn()
            self.switch.remove(port)

    def restart(self, port: int) -> None:
        self.empty(port)
        self.switch.restart(port)

    def run(self, steps: int) -> None:
        for action in self.random.choices(list(ACTIONS), list(ACTIONS.values()), k=steps):
            getattr(self, action)(self.random.choice(list(self.switch.engines)))
        for port in [*self.switch.engines] * 2:
            self.empty(port)

    def check(self) -> None:
        for port, vm in self.switch.vms.items():
            counters, received = self.switch.counters(port), self.received[port]
            assert not vm.mid_frame, port
            assert in_order(received), port
            assert len(set(received)) == len(received), port
            assert counters["rx_frames"] == self.sent[port], port
            assert counters["tx_frames"] == len(received), port
            assert counters["tx_bytes"] == sum(map(len, received)), port
            lost = self.switch.lost_towards(port) + counters["stale_ring"] + counters["refused"]
            assert self.expected[port] == len(received) + lost, port


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_every_frame_is_received_or_counted(seed: int) -> None:
    play = Overload(seed)
    try:
        play.run(60)
        play.check()
    finally:
        play.switch.close()
