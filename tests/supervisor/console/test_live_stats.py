"""What ``top`` shows is as old as ``live``, and what is dear is asked seldom."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.console.live import COLUMNS
from supervisor.console.live_stats import PER_PORT_S, LiveStats
from tests.helpers.answers import answer, port


class Switch:
    """A console with a port that counts a frame in each second."""

    def __init__(self, ports: int) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.second = 0
        self.sequence = 5
        self.count = ports
        self.number = 0

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        self.asked.append((name, arguments))
        head = {"epoch": "1", "sequence": self.sequence, "uptime_s": 10.0 + self.second}
        if name == "stats":
            traffic = {"frames": self.second, "bytes": 100 * self.second}
            ports = [port(1, rx=traffic, since_s=5.0 + self.second)]
            ports += [port(n, since_s=5.0 + self.second) for n in range(2, self.count + 1)]
            return answer(*ports) | head
        self.number += 1
        row = (1, "live", True, 100 * self.second, 0, self.second, 0, 7, {"storm": self.second})
        rows = [row] if arguments["after"] else [row, *([n, *row[1:]] for n in range(2, self.count + 1))]
        return head | {"number": self.number, "event": 0, "columns": COLUMNS, "ports": rows}

    def times(self, name: str) -> int:
        return [each for each, _ in self.asked].count(name)


def test_traffic_is_of_now_and_processes_are_asked_seldom() -> None:
    switch = Switch(250)
    stats = LiveStats(switch)
    for second in range(31):
        switch.second = second
        found = stats.fetch(float(second))
        assert found["uptime_s"] == 10.0 + second
        assert len(found["ports"]) == 250
        first, other = found["ports"][:2]
        assert first["rx"] == {"frames": second, "bytes": 100 * second}
        assert other["rx"] == port(2)["rx"]
        assert {first["since_s"], other["since_s"]} == {5.0 + second}
    assert first["stalled"]
    assert first["egress_queue_bytes"] == 7
    assert first["drops"] == dict.fromkeys(port()["drops"], 0) | {"storm": 30}
    assert switch.times("stats") == pytest.approx(30 / (250 * PER_PORT_S), abs=2.1)
    weighed = [arguments["weighed"] for name, arguments in switch.asked if name == "stats"]
    assert weighed[0] is None  # all, once
    assert all(len(each) == 16 for each in weighed[1:])


def test_a_port_that_comes_is_there_at_once() -> None:
    switch = Switch(100)
    stats = LiveStats(switch)
    for second in range(3):
        stats.fetch(float(second))
    switch.count, switch.sequence = 101, 6
    assert len(stats.fetch(3.0)["ports"]) == 101


def test_of_few_ports_everything_is_of_now() -> None:
    switch = Switch(16)
    stats = LiveStats(switch)
    for second in range(5):
        stats.fetch(float(second))
    assert (switch.times("stats"), switch.times("live")) == (5, 0)
