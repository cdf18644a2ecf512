"""A few processes are weighed with each question; the others keep their figures."""

from __future__ import annotations

from typing import Any

from supervisor.console.weighing import AT_ONCE, Weighing


class Switch:
    """Weighs what it is told to weigh."""

    def __init__(self, ports: int) -> None:
        self.ports = dict.fromkeys(range(1, ports + 1), 100)
        """The process of each."""
        self.asked: list[list[int]] = []

    def __call__(self, name: str, *, weighed: list[int]) -> Any:
        assert name == "stats"
        self.asked.append(weighed)
        return {
            "ports": [
                {"port": port, "worker": {"pid": pid, "pss_bytes": port * pid if port in weighed else None}}
                for port, pid in self.ports.items()
            ]
        }


def weights(weighing: Weighing, switch: Switch) -> dict[int, int | None]:
    return {row["port"]: row["worker"]["pss_bytes"] for row in weighing.stats(switch)["ports"]}


def test_few_are_weighed_each_time() -> None:
    switch, weighing = Switch(AT_ONCE), Weighing()
    for _ in range(3):
        assert all(weights(weighing, switch).values())


def test_many_are_weighed_in_turn() -> None:
    switch, weighing = Switch(100), Weighing()
    for _ in range(100 // AT_ONCE + 1):
        found = weights(weighing, switch)
    assert found == {port: port * 100 for port in switch.ports}
    assert max(len(asked) for asked in switch.asked) == AT_ONCE


def test_another_process_is_weighed_anew_and_one_that_has_gone_is_forgotten() -> None:
    switch, weighing = Switch(40), Weighing()
    weights(weighing, switch)
    switch.ports[3] = 200
    del switch.ports[4]
    found = weights(weighing, switch)
    assert found[3] is None
    assert found[5] == 500
    assert 4 not in found
    for _ in range(3):
        found = weights(weighing, switch)
    assert found[3] == 600


def test_a_switch_without_ports_is_asked_again() -> None:
    switch, weighing = Switch(0), Weighing()
    assert weights(weighing, switch) == {}
    switch.ports = {9: 1}
    weights(weighing, switch)
    assert weights(weighing, switch) == {9: 9}
