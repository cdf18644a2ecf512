"""The times of questions, and the news from two answers, with a switch whose answers the test sets."""

from __future__ import annotations

from typing import Any

import pytest

from forwarder.errors import LocalError
from supervisor.console.live import COLUMNS
from supervisor.web.rounds import EVENT_S, STATS_PER_PORT_S, STATS_S, Rounds


class Switch:
    """A console with answers that the test sets."""

    def __init__(self, ports: int = 1) -> None:
        self.asked: list[str] = []
        self.epoch, self.sequence, self.uptime = "1", 5, 10.0
        self.silent = False
        self.number = 0
        self.told: dict[str, Any] = {}
        self.count = ports
        self.row: dict[str, Any] = dict(zip(COLUMNS, (1, "live", False, 0, 0, 0, 0, 0, {}), strict=True))
        self.events = [{"sequence": 1, "event": "attach"}]

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        self.asked.append(name)
        if self.silent:
            raise LocalError("no supervisor runs there")
        head = {"epoch": self.epoch, "sequence": self.sequence, "uptime_s": self.uptime}
        numbers = range(1, self.count + 1)
        if name == "live":
            self.number += 1
            rows = [[n, *(self.row[column] for column in COLUMNS[1:])] for n in numbers]
            changed = rows if arguments["after"] == 0 or self.row != self.told else []
            self.told = dict(self.row)
            numbered = {"number": self.number, "event": self.events[-1]["sequence"]}
            return head | numbered | {
                "columns": COLUMNS, "ports": changed, "talks": [[1, 2, 9]], "gateway": None
            }  # fmt: skip
        if name == "status":
            known = {
                "name": "vm",
                "transport": "qemu",
                "since_s": 1.0,
                "macs": [],
                "addresses": [],
                "settings": {},
                "notes": [],
            }
            rows = [known | {"port": n, "worker": {"pid": 7, "restarts": 0}} for n in numbers]
            return head | {"name": "lab", "version": "1", "listeners": [], "gateway": None, "ports": rows}
        if name == "stats":
            return {
                "ports": [
                    {"port": n, "worker": {"cpu_percent": 3.0, "pid": 7, "pss_bytes": None}} for n in numbers
                ],
                "gateway": None,
            }
        assert name == "events"
        return {"events": [each for each in self.events if each["sequence"] > arguments["after"]]}


def ask(rounds: Rounds, now: float) -> dict[str, Any]:
    return dict(rounds.ask(now))


def test_a_rate_is_between_two_answers_and_zero_for_what_begins_again() -> None:
    switch = Switch()
    rounds = Rounds(switch)
    switch.row |= {"rx_bytes": 1000, "drops": {"spoofed": 3}}
    assert ask(rounds, 0.0)["live"]["ports"] == [[1, "live", False, [0, 0, 0, 0], 0, {"spoofed": 3}, 0]]
    switch.uptime += 2
    switch.row |= {"rx_bytes": 5000, "tx_frames": 8, "queue": 7, "drops": {"spoofed": 3, "storm": 4}}
    live = ask(rounds, 2.0)["live"]
    assert live["ports"] == [[1, "live", False, [2000, 0, 0, 4], 7, {"spoofed": 3, "storm": 4}, 2]]
    assert live["talks"] == [[1, 2, 9]]
    switch.uptime += 1
    switch.row |= {"rx_bytes": 10}
    assert ask(rounds, 3.0)["live"]["ports"][0][3] == [0, 0, 0, 0]


def test_only_changed_rows_are_told_and_one_more_with_no_rate_when_a_port_rests() -> None:
    switch = Switch(ports=3)
    rounds = Rounds(switch)
    first = ask(rounds, 0.0)["live"]
    assert (first["whole"], len(first["ports"])) == (True, 3)
    assert ask(rounds, 1.0)["live"] == first | {"whole": False, "ports": []}
    switch.uptime += 2
    switch.row |= {"rx_bytes": 5000}
    assert [row[3][0] for row in ask(rounds, 2.0)["live"]["ports"]] == [2500] * 3
    assert [row[3][0] for row in ask(rounds, 3.0)["live"]["ports"]] == [0] * 3
    assert ask(rounds, 4.0)["live"]["ports"] == []
    switch.count, switch.sequence = 2, 6
    left = ask(rounds, 5.0)["live"]
    assert (left["whole"], [row[0] for row in left["ports"]]) == (True, [1, 2])


def test_what_is_dear_is_asked_seldom() -> None:
    switch = Switch(ports=250)
    rounds = Rounds(switch)
    for second in range(121):
        switch.uptime += 1
        rounds.ask(float(second))
    assert switch.asked.count("live") == 121
    assert STATS_PER_PORT_S * 250 > STATS_S
    assert switch.asked.count("stats") == pytest.approx(120 / (STATS_PER_PORT_S * 250), abs=1.1)
    assert switch.asked.count("status") == switch.asked.count("stats")
    assert switch.asked.count("events") == 2  # the first event, and that there is no other


def test_addresses_are_asked_for_after_an_event_and_seldom_after_many() -> None:
    switch = Switch(ports=250)
    rounds = Rounds(switch)
    for second in range(1, 31):
        switch.events.append({"sequence": 1 + second, "event": "mac-new"})
        rounds.ask(float(second))
    assert switch.asked.count("status") == pytest.approx(30 / EVENT_S, abs=1.1)


def test_a_change_is_told_at_once() -> None:
    switch = Switch()
    rounds = Rounds(switch)
    assert list(ask(rounds, 0.0)) == ["ports", "live", "happened"]
    assert list(ask(rounds, 1.0)) == ["live"]
    switch.sequence += 1
    switch.events.append({"sequence": 2, "event": "set"})
    told = ask(rounds, 2.0)
    assert list(told) == ["ports", "live", "happened"]
    assert told["happened"] == {"anew": False, "events": [{"sequence": 2, "event": "set"}]}
    assert told["ports"]["ports"][0]["worker"] == {
        "cpu_percent": 3.0, "pid": 7, "restarts": 0, "pss_bytes": None
    }  # fmt: skip


def test_a_switch_that_comes_back_is_another_one() -> None:
    switch = Switch()
    rounds = Rounds(switch)
    switch.row |= {"rx_bytes": 1000}
    ask(rounds, 0.0)
    switch.silent = True
    assert ask(rounds, 1.0) == {"away": {"error": "no supervisor runs there"}}
    switch.silent = False
    switch.epoch, switch.uptime = "2", 11.0
    switch.row |= {"rx_bytes": 9000}
    told = ask(rounds, 2.0)
    assert told["live"]["ports"][0][3] == [0, 0, 0, 0]
    assert told["happened"] == {"anew": True, "events": switch.events}


def test_answers_of_another_version_are_reported() -> None:
    assert Rounds(lambda name, **_: {"epoch": "1"}).ask(0.0) == [
        ("away", {"error": "the switch is of another version than this page"})
    ]
