"""What a VM that is stuck, floods or lies costs the others, seen from outside on a real switch: nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from scripts.benchmarks.report import proc
from tests.helpers.core.model_segments import Flow
from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, StreamVM, build_frame, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.guests.watching import ask, live, name_of

StartSwitch = Callable[..., Switch]
KINDS = ("unix", "unixpacket", "unixgram")
STUCK, SENDER, ONE, OTHER = 1, 2, 3, 4
VNET_BYTES = 10
LITTLE_CPU_S = 0.5
"""Generous: a worker that spins while it is flooded uses several times as much."""


def stats(switch: Switch, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(port for port in ask(switch, "stats")["ports"] if port["name"] == name)
    return found


class Town:
    """A VM of some kind that gets stuck, one that sends to it, and two that talk."""

    def __init__(self, switch: Switch, kind: str) -> None:
        self.switch = switch
        self.vms: dict[int, FakeVM] = {STUCK: switch.connect(kind, "stuck")}
        self.vms |= {number: switch.connect("unix") for number in (SENDER, ONE, OTHER)}
        self.talk = Conversation(self.vms[ONE], mac(ONE), self.vms[OTHER], mac(OTHER))
        for number in (STUCK, SENDER):
            self.vms[number].send(build_frame(BROADCAST, mac(number)))
        live(switch, 4)
        self.talk.begin()
        # VMs that have heard a frame from it know its port.
        wait_for(lambda: self.passes(STUCK, SENDER) and self.passes(SENDER, STUCK), "two VMs to meet")
        self.names = {number: name_of(switch, mac(number)) for number in self.vms}
        self.worker = stats(switch, self.names[STUCK])["worker"]["pid"]

    def passes(self, source: int, target: int) -> bool:
        wanted = build_frame(mac(target), mac(source), 77)
        self.vms[source].send(wanted)
        with contextlib.suppress(TimeoutError):
            return bool(self.vms[target].receive_matching(lambda frame: frame == wanted, 0.5))
        return False

    def stats(self, number: int) -> dict[str, Any]:
        return stats(self.switch, self.names[number])

    def drops(self) -> dict[int, int]:
        """Frames dropped, by the port that they were for or came from."""
        return {number: sum(self.stats(number)["drops"].values()) for number in self.names}

    def fill(self) -> None:
        """Send to the stuck VM until there is no more room."""
        frames = [build_frame(mac(STUCK), mac(SENDER), 1514)] * 100
        wanted = self.stats(SENDER)["rx"]["frames"]

        def full() -> bool:
            nonlocal wanted
            self.vms[SENDER].send(*frames)
            wanted += len(frames)
            return bool(self.stats(STUCK)["drops"]["egress_full"] > 0)

        wait_for(full, "the stuck VM to be full")
        wait_for(lambda: self.stats(SENDER)["rx"]["frames"] == wanted, "all of it to be counted")

    def pour(self, *frames: bytes) -> int:
        """Send these frames for a while, and have the two talk; returns how many were sent."""
        sent = 0
        for _ in range(100):
            self.vms[SENDER].send(*frames)
            sent += len(frames)
            self.talk.run(0.01)
        self.talk.settle()
        return sent

    def cpu(self) -> float:
        """Seconds that the stuck VM's worker has used."""
        return proc.cpu_ns([self.worker]) / 1e9


@pytest.fixture(params=KINDS)
def town(request: pytest.FixtureRequest, switch: StartSwitch) -> Town:
    return Town(switch(qemu=True, bess=True, vfkit=1), request.param)


def test_a_vm_that_does_not_read_is_reported_once_and_costs_no_other_vm_anything(town: Town) -> None:
    town.fill()
    before, used = town.drops(), town.cpu()
    sent = town.pour(*[build_frame(mac(STUCK), mac(SENDER), 1514)] * 20)
    assert (town.talk.lost, town.talk.wrong) == (0, [])
    assert town.cpu() - used < LITTLE_CPU_S
    wait_for(
        lambda: town.drops() == before | {STUCK: before[STUCK] + sent},
        lambda: f"each of {sent} to be counted, there only: {before} and then {town.drops()}",
    )
    wait_for(lambda: town.stats(STUCK)["stalled"], "it to be reported stalled")
    assert not any(town.stats(number)["stalled"] for number in (SENDER, ONE, OTHER))
    # Still it is read, and what it sends arrives.
    last = build_frame(mac(ONE), mac(STUCK), 99, seed=1)
    town.vms[STUCK].send(*[build_frame(BROADCAST, mac(STUCK), 88)] * 50, last)
    town.vms[ONE].receive_matching(lambda frame: frame == last)

    def reads_again() -> bool:
        town.vms[STUCK].drain()
        return not town.stats(STUCK)["stalled"]

    wait_for(reads_again, "it to be no longer stalled")
    number = town.stats(STUCK)["port"]
    said = [line.partition(" port ")[2] for line in town.switch.log().splitlines() if "stalled" in line]
    assert [line.partition(", its VM takes no")[0] for line in said] == [
        f"{number} ({town.names[STUCK]}): stalled",
        f"{number} ({town.names[STUCK]}): no longer stalled",
    ]
    wait_for(lambda: town.vms[STUCK].drain() == [] and town.passes(SENDER, STUCK), "frames to pass again")


def test_large_frames_to_a_vm_that_does_not_read_cost_no_other_vm_anything(town: Town) -> None:
    """Each is finished and cut into 42 by the worker of its sender, which has offloads."""
    ask(town.switch, "set", target=town.names[SENDER], settings={"offload": "tso"})
    flow = Flow(bytes(60_000), 1448, options=bytes(12), destination=mac(STUCK), source=mac(SENDER))
    town.fill()
    before = town.drops()
    sent = town.pour(*[flow.unfinished()[VNET_BYTES:]] * 5)
    assert (town.talk.lost, town.talk.wrong) == (0, [])
    wait_for(
        lambda: town.drops() == before | {STUCK: before[STUCK] + sent * len(flow.finished())},
        lambda: f"each segment of {sent} to be counted, there only: {before} and then {town.drops()}",
    )


def test_floods_do_not_wake_a_worker_whose_vm_does_not_read(town: Town) -> None:
    ask(town.switch, "set", target=town.names[SENDER], settings={"limit-broadcast": "none"})
    town.fill()
    turns, used = town.stats(STUCK)["loop"]["turns"], town.cpu()
    town.pour(*[build_frame(BROADCAST, mac(SENDER), 1514)] * 20)
    assert (town.talk.lost, town.talk.wrong) == (0, [])
    assert town.cpu() - used < LITTLE_CPU_S
    # What wakes it are heartbeats, and the pauses of a socket that says it is writable and is not.
    assert town.stats(STUCK)["loop"]["turns"] - turns < 1000


def test_a_flooding_vm_still_gets_its_frames(town: Town) -> None:
    """The VM's worker reads its flood, and still writes the frames of others to it."""
    flooder = town.vms[STUCK]
    flood = build_frame(mac(SENDER), mac(STUCK), 1514)
    deadline = time.monotonic() + PATIENCE
    got: list[bytes] = []
    wanted = [build_frame(mac(STUCK), mac(SENDER), 200, seed=number) for number in range(50)]
    for each in wanted:
        town.vms[SENDER].send(each)
        seen = len(got)
        while len(got) == seen and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                flooder.send(*[flood] * 64, timeout=0.05 if not isinstance(flooder, StreamVM) else PATIENCE)
            got += [frame for frame in flooder.drain() if len(frame) == 200]
    assert got == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_newcomer_cannot_steal_an_address_in_its_first_moment(switch: StartSwitch, kind: str) -> None:
    running = switch(qemu=True, bess=True, vfkit=1)
    owner, witness = running.connect("unix"), running.connect("unixpacket")
    for number, vm in enumerate((owner, witness), 1):
        vm.send(build_frame(BROADCAST, mac(number)))
    live(running, 2)
    wait_for(lambda: len(ask(running, "macs")["macs"]) == 2, "addresses to be known")
    ask(running, "set", target=name_of(running, mac(1)), settings={"pin": [mac(1).hex(":")]})
    for number in range(5):
        spoofed, own = (build_frame(BROADCAST, mac(src), 100, seed=number) for src in (1, 100 + number))
        with running.connect(kind, "thief") as thief:
            thief.send(spoofed, own)
            seen: list[bytes] = []
            witness.receive_matching(lambda frame: seen.append(frame) or frame == own)  # type: ignore[func-returns-value] # noqa: B023
            assert spoofed not in seen
            name = name_of(running, mac(100 + number))
            wait_for(lambda: stats(running, name)["drops"]["spoofed"] == 1, "it to be counted")  # noqa: B023
        wait_for(lambda: len(ask(running)["ports"]) == 2, "the thief's port to go")
