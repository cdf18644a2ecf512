"""When the host's resolvers count as silent, from the gateway's counters."""

from __future__ import annotations

import logging

import pytest

from supervisor.gateway.resolver_watch import SILENT_S, ResolverWatch


def figures(resolved: int, unanswered: int, failed: int = 0) -> dict[str, object]:
    return {
        "served": {
            "names_resolved": resolved,
            "names_unanswered": unanswered,
            "names_failed": failed,
            "dhcp_leases": 1,
        }
    }


def states(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.fields["state"] for line in caplog.records]  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="supervisor")


def test_silence_and_its_end_are_an_event_each(caplog: pytest.LogCaptureFixture) -> None:
    watch = ResolverWatch()
    for second, told in enumerate([figures(0, 0), figures(0, 1), figures(0, 2), figures(0, 2)]):
        watch.look(told, float(second))
    assert states(caplog) == ["silent"]
    watch.look(figures(0, 2, failed=1), 4.0)  # one that refuses is there
    watch.look(figures(1, 2, failed=1), 5.0)
    assert states(caplog) == ["silent", "live"]


def test_a_name_that_cannot_be_found_in_time_is_no_silence(caplog: pytest.LogCaptureFixture) -> None:
    watch = ResolverWatch()
    watch.look(figures(1, 0), 100.0)
    watch.look(figures(1, 1), 100.0 + SILENT_S - 1)
    watch.look(figures(2, 2), 130.0)
    assert states(caplog) == []
    watch.look(figures(2, 3), 130.0 + SILENT_S)
    assert states(caplog) == ["silent"]


def test_the_next_gateway_counts_from_zero(caplog: pytest.LogCaptureFixture) -> None:
    watch = ResolverWatch()
    watch.look(figures(9, 9), 1.0)
    watch.look(figures(0, 0), 50.0)
    assert states(caplog) == []
    watch.look(figures(0, 1), 51.0)
    assert states(caplog) == ["silent"]


@pytest.mark.parametrize("told", [None, {}, {"served": []}, {"served": {"names_resolved": "9"}}])
def test_words_that_are_no_figures_change_nothing(told: object, caplog: pytest.LogCaptureFixture) -> None:
    ResolverWatch().look(told, 1.0)
    assert states(caplog) == []
