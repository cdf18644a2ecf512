"""A worker that follows a killed one reads the floods that came in between, from where that has stopped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.core.mini_switch import BROADCAST, FLOOD_BYTES, MiniSwitch, Vm, frame, mac

SPEAKER, KILLED, NEWCOMER = 1, 2, 3


class Scene:
    """A VM that broadcasts, and one whose engine is taken away."""

    def __init__(self, switch: MiniSwitch) -> None:
        self.switch = switch
        self.speaker = switch.add(SPEAKER, "stream")
        self.listener = switch.add(KILLED, "seqpacket", buffer=1 << 21)
        self.sent = 0
        switch.settle()

    def say(self, count: int, vm: Vm | None = None, port: int = SPEAKER) -> list[bytes]:
        said = [frame(BROADCAST, mac(port), number.to_bytes(4, "big")) for number in self.numbers(count)]
        (vm or self.speaker).send(*said)
        self.switch.settle()
        return said

    def numbers(self, count: int) -> range:
        self.sent += count
        return range(self.sent - count, self.sent)

    def kill(self) -> None:
        """End the engine as a kill does: what it has read and written stays, and nothing is said."""
        self.switch.settle()
        self.dead = self.switch.engines.pop(KILLED)

    def follow(self) -> list[bytes]:
        """Return what the VM hears when the next engine has started."""
        self.switch.engines[KILLED] = self.dead
        self.switch.restart(KILLED)
        self.switch.settle()
        return self.listener.received()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with MiniSwitch() as switch:
        yield Scene(switch)


@pytest.mark.parametrize("before", [0, 1, 100])
@pytest.mark.parametrize("between", [0, 1, 100])
def test_floods_of_the_time_between_are_heard_once(scene: Scene, before: int, between: int) -> None:
    first = scene.say(before)
    assert scene.listener.received() == first
    scene.kill()
    missed = scene.say(between)
    assert scene.follow() == missed
    assert scene.say(3) == scene.listener.received()
    assert scene.switch.counters(KILLED)["flood_lost"] == 0


def test_the_floods_of_a_vm_that_has_come_meanwhile_are_heard_from_the_first(scene: Scene) -> None:
    scene.kill()
    newcomer = scene.switch.add(NEWCOMER, "stream")
    said = scene.say(5, newcomer, NEWCOMER)
    assert scene.follow() == said


def test_the_floods_of_a_worker_that_has_been_replaced_meanwhile_are_heard_from_its_first(
    scene: Scene,
) -> None:
    scene.say(2)
    scene.listener.received()
    scene.kill()
    scene.switch.restart(SPEAKER)
    said = scene.say(5)
    assert scene.follow() == said


def test_who_was_lapped_goes_on_with_what_comes_next(scene: Scene) -> None:
    scene.say(1)
    scene.listener.received()
    scene.kill()
    long = frame(BROADCAST, mac(SPEAKER), size=1514)
    for _ in range(2 * FLOOD_BYTES // len(long) // 50):
        scene.speaker.send(*[long] * 50)
        scene.switch.settle()
    assert scene.follow() == []
    assert scene.say(3) == scene.listener.received()


def test_what_was_said_out_of_reach_is_not_heard(scene: Scene) -> None:
    engine = scene.switch.engines[KILLED]
    engine.set_reach(SPEAKER, False)
    scene.kill()
    scene.say(5)
    assert scene.follow() == []


def test_a_newcomer_that_was_out_of_reach_is_heard_from_then_on(scene: Scene) -> None:
    scene.kill()
    newcomer = scene.switch.add(NEWCOMER, "stream")
    scene.follow()
    engine = scene.switch.engines[KILLED]
    engine.set_reach(NEWCOMER, False)
    scene.say(5, newcomer, NEWCOMER)
    engine.set_reach(NEWCOMER, True)
    scene.switch.introduce(KILLED, NEWCOMER)
    assert scene.say(3, newcomer, NEWCOMER) == scene.listener.received()
