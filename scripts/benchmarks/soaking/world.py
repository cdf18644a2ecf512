"""What happens to a switch in a soak: visitors, faults and settings, at random, and a quiet moment at times.

Theory of operation. Everything happens in one thread: ``live`` lets the pairs talk and the visitors read, and
now and then lets one thing happen, drawn from ``EVENTS`` by weight. What happens needs no success: a VM may
find no free socket, a worker may be gone already. ``quiesce`` ends it all but the pairs: then, and only then,
it can be said what must be where.

Workers of the first two pairs are left alone, so that for these frames can be counted exactly; the third
pair's are killed, but not more often than a port may lose them before it is parked.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable

from forwarder.errors import BulkheadError
from scripts.benchmarks.soaking.vms import Pair, Visitor
from tests.helpers.guests.fake_vm import BROADCAST, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask

KINDS = ("unix", "tcp", "unixpacket", "unixgram")
VISITORS = 8
"""At the same time, at most."""
SLOTS = range(3, 7)
"""Datagram sockets for visitors; the first two are the pairs'."""
FIRST_VISITOR = 1000
EVERY = 0.04
"""Seconds between two events, on average."""
STOPPED_MOST = 1.5
"""Seconds for which a worker is stopped; less than makes the supervisor give it up."""
OVERRUN, OVERRUN_MOST = 8000, 0.5
"""Frames that are more than a ring and a socket hold, and how many seconds they may take."""
KILLS_A_MINUTE = 3
"""Of workers of one port; it is parked after five."""
MULTICAST = b"\x01\x00\x5e\x00\x00\x01"
SETTINGS = {
    "limit-broadcast": ("none", "10", "2000"),
    "limit-multicast": ("none", "10", "20000"),
    "limit-unknown": ("none", "10", "20000"),
    "limit-bandwidth": ("none", "1Mbit/s", "1Gbit/s"),
    "limit-macs": ("none", "1", "1024"),
    "flood-unknown": (True, False),
    "isolated": (True, False),
}


class World:
    """A switch, its pairs and its visitors."""

    def __init__(self, switch: Switch, rng: random.Random) -> None:
        self.switch = switch
        self.pairs = [
            self._pair("quiet, unix and unixpacket", 1, "unix", "unixpacket"),
            self._pair("quiet, tcp and unixgram", 3, "tcp", "unixgram", 1),
            self._pair("restless, unixpacket and unixgram", 5, "unixpacket", "unixgram", 2),
        ]
        self.quiet, self.restless = self.pairs[:2], self.pairs[2]
        self.happened: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Frames that visitors should not have got."""
        self.kept = 2 * len(self.pairs)
        """Ports of the pairs."""
        self._rng = rng
        self._visitors: list[Visitor] = []
        self._number = FIRST_VISITOR
        self._stopped: list[tuple[int, float]] = []
        self._killed: dict[str, deque[float]] = {}
        self._ports: dict[bytes, str] = {}

    def begin(self) -> None:
        """Have the pairs talk, and give each of them its address for good.

        Frames that they sent before their partner was there are not counted.
        """
        for pair in self.pairs:
            pair.begin()
            for end in pair.watched:
                end.missed = end.sent - end.partner.received
        known = {row["mac"]: row["name"] for row in ask(self.switch, "macs")["macs"]}
        for pair in self.pairs:
            for end in pair.watched:
                self._ports[end.own] = known[end.own.hex(":")]
                self._ask("set", target=self._ports[end.own], settings={"pin": [end.own.hex(":")]})

    def port(self, address: bytes) -> str:
        """Return the name of the port of a pair's end."""
        return self._ports[address]

    def live(self, seconds: float) -> None:
        """Let things happen for so long."""
        end = due = time.monotonic()
        end += seconds
        while (now := time.monotonic()) < end:
            busy = any([pair.pump() for pair in self.pairs])  # noqa: C419 - all of them
            for visitor in list(self._visitors):
                self._attend(visitor)
            self._release(now)
            if now >= due:
                due = now + self._rng.expovariate(1 / EVERY)
                name, event = self._rng.choices(*_EVENTS)[0]
                event(self)
                self.happened[name] += 1
            elif not busy:
                time.sleep(0.0005)

    def quiesce(self) -> None:
        """Have all visitors gone and everything on its way arrived. Raises TimeoutError."""
        self._release(float("inf"))
        for visitor in list(self._visitors):
            self._part(visitor)

        def alone() -> bool:
            for pair in self.pairs:
                pair.pump()
            states = [port["state"] for port in ask(self.switch)["ports"]]
            return states == ["live"] * self.kept

        wait_for(alone, lambda: f"the pairs to be alone, there are {ask(self.switch)['ports']}")
        for pair in self.pairs:
            pair.settle()

    def _pair(self, name: str, number: int, one: str, other: str, slot: int = 1) -> Pair:
        vms = [
            self.switch.connect(kind, f"vm{number + index}", slot) for index, kind in enumerate((one, other))
        ]
        return Pair(name, vms[0], mac(number), vms[1], mac(number + 1))

    def _attend(self, visitor: Visitor) -> None:
        if visitor.reads:
            visitor.receive()
        if visitor.closed:
            self._part(visitor)

    def _part(self, visitor: Visitor) -> None:
        self._visitors.remove(visitor)
        self.wrong += visitor.wrong
        visitor.die(self._rng)

    def _release(self, now: float) -> None:
        """Let workers go on whose time has come."""
        for process, until in list(self._stopped):
            if now >= until:
                self._stopped.remove((process, until))
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGCONT)
                os.close(process)

    def _ask(self, name: str, **arguments: object) -> None:
        with contextlib.suppress(BulkheadError):  # it may be gone by now
            ask(self.switch, name, **arguments)

    def _someone(self) -> Visitor | None:
        return self._rng.choice(self._visitors) if self._visitors else None

    def _victim(self) -> tuple[str, int] | None:
        """Choose a live port that is not of a quiet pair: its name and its worker."""
        quiet = {self._ports[end.own] for pair in self.quiet for end in pair.ends}
        ports = [
            (port["name"], port["worker"]["pid"])
            for port in ask(self.switch)["ports"]
            if port["state"] == "live" and port["name"] not in quiet
        ]
        return self._rng.choice(ports) if ports else None

    def arrive(self) -> None:
        """Connect another VM, which says hello."""
        kind, slot = self._rng.choice(KINDS), 0
        if kind == "unixgram":
            slot = self._rng.choice(SLOTS)
        if len(self._visitors) >= VISITORS or any(slot and each.slot == slot for each in self._visitors):
            return
        self._number += 1
        with contextlib.suppress(OSError):
            vm = self.switch.connect(kind, f"visitor{slot}", slot or 1)
            visitor = Visitor(vm, mac(self._number), kind, slot)
            self._visitors.append(visitor)
            visitor.say(BROADCAST)

    def leave(self) -> None:
        """Have one go, as VMs do and die."""
        if visitor := self._someone():
            self._part(visitor)

    def detach(self) -> None:
        """Have the operator disconnect one."""
        known = {row["mac"]: row["name"] for row in ask(self.switch, "macs")["macs"]}
        if (visitor := self._someone()) and (name := known.get(visitor.own.hex(":"))):
            self._ask("detach", target=name)

    def talk(self) -> None:
        """Let a visitor send to one VM, to all, or to an unknown address."""
        if visitor := self._someone():
            for _ in range(self._rng.randrange(1, 20)):
                visitor.say(self._address(), self._rng.randrange(1, 10))

    def flood(self) -> None:
        """Have one send more than it may."""
        if visitor := self._someone():
            visitor.say(self._rng.choice((BROADCAST, MULTICAST, mac(self._rng.randrange(1 << 30)))), 3000)

    def crowd(self) -> None:
        """Have all of them send to one VM that does read, and to one that may not."""
        for target in (self._rng.choice(self.pairs).ends[0].own, self._address()):
            for visitor in self._visitors:
                visitor.say(target, 200)

    def overrun(self) -> None:
        """Have one of a pair send more than fits on its way, while the other does not read."""
        self._rng.choice(self._rng.choice(self.pairs).watched).overrun(OVERRUN, OVERRUN_MOST)

    def spoof(self) -> None:
        """Have one send in the name of a pair's VM."""
        if visitor := self._someone():
            stolen = self._rng.choice(self._rng.choice(self.pairs).ends).own
            visitor.say(self._address(), self._rng.randrange(1, 50), stolen)

    def spoil(self) -> None:
        """Have one send what is no frame."""
        if visitor := self._someone():
            visitor.spoil(self._rng)

    def stall(self) -> None:
        """Have one stop reading, or read again."""
        if visitor := self._someone():
            visitor.reads = not visitor.reads

    def change(self) -> None:
        """Set something for a port."""
        key = self._rng.choice(list(SETTINGS))
        if victim := self._victim():
            kept = {self._ports[end.own] for end in self.restless.ends}
            if victim[0] not in kept:
                self._ask("set", target=victim[0], settings={key: self._rng.choice(SETTINGS[key])})

    def kill(self) -> None:
        """Kill a worker."""
        if victim := self._victim():
            name, pid = victim
            recent = self._killed.setdefault(name, deque())
            while recent and recent[0] < time.monotonic() - 60:
                recent.popleft()
            if len(recent) < KILLS_A_MINUTE:
                recent.append(time.monotonic())
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop a worker for a while."""
        if victim := self._victim():
            with contextlib.suppress(ProcessLookupError):
                process = os.pidfd_open(victim[1])
                signal.pidfd_send_signal(process, signal.SIGSTOP)
                self._stopped.append((process, time.monotonic() + self._rng.uniform(0, STOPPED_MOST)))

    def _address(self) -> bytes:
        """Choose a destination."""
        known = [each.own for each in self._visitors] + [end.own for pair in self.pairs for end in pair.ends]
        return self._rng.choice([*known, BROADCAST, MULTICAST, mac(self._rng.randrange(1 << 30))])


EVENTS: dict[str, tuple[Callable[[World], None], int]] = {
    "VMs came": (World.arrive, 20),
    "went": (World.leave, 6),
    "were detached": (World.detach, 2),
    "talked": (World.talk, 30),
    "flooded": (World.flood, 4),
    "crowded": (World.crowd, 4),
    "overran a pair's VM": (World.overrun, 1),
    "spoofed": (World.spoof, 8),
    "sent garbage": (World.spoil, 3),
    "stalled or not": (World.stall, 10),
    "settings changed": (World.change, 6),
    "workers killed": (World.kill, 4),
    "workers stopped": (World.stop, 3),
}
"""What may happen, as it is told afterwards, and how often compared with the rest."""
_EVENTS = (
    [(name, event) for name, (event, _) in EVENTS.items()],
    [weight for _, weight in EVENTS.values()],
)
