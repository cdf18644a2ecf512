"""Several viewers: each gets everything first, then news, and everything again if it was late."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from supervisor.web import watch
from supervisor.web.watch import MOST_WAITING, Watch

LIVE = ("live", {"whole": True, "ports": [[1, "live", False, [5, 6, 0, 0], 0, {}, 0]]})


class Switch:
    """Rounds with answers that the test sets; they count the questions."""

    def __init__(self) -> None:
        self.says: list[tuple[str, dict[str, Any]]] = [LIVE]
        self.asked = 0

    def __call__(self, now: float) -> list[tuple[str, dict[str, Any]]]:
        self.asked += 1
        return self.says


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.001)
    monkeypatch.setattr(watch, "LINGER_S", 0.01)


def read(message: bytes) -> tuple[str, Any]:
    head, data, *_ = message.decode().split("\n")
    return head.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_a_viewer_has_everything_first_and_then_what_is_new() -> None:
    async def view() -> None:
        made = Watch(Switch())
        messages = made.messages()
        name, data = read(await anext(messages))
        assert (name, data["live"], data["events"]) == ("now", LIVE[1], [])
        assert data["history"]["1"][-1] == [5, 6]
        assert read(await anext(messages))[0] == "live"
        await messages.aclose()
        await made.close()

    asyncio.run(asyncio.wait_for(view(), 10))


def test_a_viewer_that_comes_later_has_the_rows_that_have_not_changed() -> None:
    def rows(whole: bool, *ports: int) -> tuple[str, dict[str, Any]]:
        return "live", {
            "whole": whole, "ports": [[port, "live", False, [port, 0, 0, 0], 0, {}, 0] for port in ports]
        }  # fmt: skip

    made = Watch(Switch())
    for news in (rows(True, 1, 2, 3), rows(False, 2), rows(False)):
        made._take(*news)
    _, data = read(made._now())
    assert (data["live"]["whole"], [row[0] for row in data["live"]["ports"]]) == (True, [1, 2, 3])
    assert data["history"] == {port: [[int(port), 0]] * 3 for port in "123"}
    made._take(*rows(True, 3))
    assert [row[0] for row in read(made._now())[1]["live"]["ports"]] == [3]


def test_a_viewer_that_was_late_has_everything_again() -> None:
    async def view() -> None:
        switch = Switch()
        made = Watch(switch)
        late, quick = made.messages(), made.messages()
        assert read(await anext(late))[0] == "now"
        names = [read(await anext(quick))[0] for _ in range(3 * MOST_WAITING)]
        assert names == ["now", *["live"] * (len(names) - 1)]
        assert read(await anext(late))[0] == "now"
        for each in (late, quick):
            await each.aclose()
        await made.close()

    asyncio.run(asyncio.wait_for(view(), 10))


def test_without_a_viewer_the_switch_is_asked_no_more() -> None:
    async def view() -> None:
        switch = Switch()
        made = Watch(switch)
        messages = made.messages()
        await anext(messages)
        await messages.aclose()
        assert made._task is not None
        await made._task
        asked = switch.asked
        messages = made.messages()
        assert read(await anext(messages))[0] == "now"
        assert switch.asked > asked
        await messages.aclose()
        await made.close()

    asyncio.run(asyncio.wait_for(view(), 10))


def test_events_of_another_switch_take_the_place_of_the_old() -> None:
    async def view() -> None:
        switch = Switch()
        made = Watch(switch)
        for number, anew in ((1, False), (2, True)):
            switch.says = [LIVE, ("happened", {"anew": anew, "events": [{"sequence": number}]})]
            messages = made.messages()
            while read(await anext(messages))[0] != "happened":
                pass
            await messages.aclose()
        messages = made.messages()
        assert read(await anext(messages))[1]["events"] == [{"sequence": 2}]
        await messages.aclose()
        await made.close()

    asyncio.run(asyncio.wait_for(view(), 10))
