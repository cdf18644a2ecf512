"""``supervisor stats`` on 80 columns: every figure whole, and no column of zeros."""

import pytest
from rich.console import Console

from forwarder import counted
from supervisor.screen.stats import stats
from tests.helpers.answers import answer, port, text

QUIET = {
    "flooded": 0,
    "retries": {"eagain": 0, "enobufs": 0},
    "filtered": {"hairpin": 0, "filtered": 0},
    "drops": dict.fromkeys(port()["drops"], 0),
}
FIGURES = ("10", "1,514", "11", "987,654", *map(str, (21, 22, *range(31, 40), 41, 42)))


def shown(*ports, everything=False, room=80, **changes):
    return text(stats(answer(*ports, **changes), room, everything=everything))


@pytest.mark.parametrize("everything", [False, True])
def test_every_figure_that_is_not_zero_is_shown(everything):
    said = shown(port(), everything=everything).replace("\n", " \n")
    for figure in FIGURES:
        assert f" {figure} " in said, figure
    assert "departed" not in said


def test_columns_of_zeros_are_hidden_unless_everything_is_wanted():
    words = ("flooded", "filtered", "hairpin", "eagain", "enobufs", "spoofed", "restarts", "threads")
    quiet = shown(port(**QUIET))
    assert "no frame was dropped" in quiet
    assert not [word for word in words if word in quiet]
    everything = shown(port(**QUIET), everything=True)
    assert [word for word in words if word in everything] == list(words)
    for reason in port()["drops"]:
        assert reason in everything


def test_only_ports_with_drops_are_in_the_table_of_drops():
    said = shown(port(**QUIET, number=7), port(2, "db"))
    drops = said[said.index("drops") :].split("\n\n")[0]
    assert "db" in drops
    assert "qemu-1" not in drops


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("figure", [0, 1, 10**12, 2**64 - 1])
def test_eighty_columns_never_cut_a_figure(figure, everything):
    traffic = {"frames": figure, "bytes": figure}
    drops = dict.fromkeys(port()["drops"], figure)
    ports = [
        port(1, "n" * 63, rx=traffic, tx=traffic, drops=drops, flooded=figure),
        port(2, "vm", stalled=True),
    ]
    drawn = text(stats(answer(*ports), 80, everything=everything), 80)
    assert max(map(len, drawn.splitlines())) <= 80
    assert "…" not in drawn
    assert drawn.count(f"{figure:,}") >= (4 if not figure else 4 + 11)


def test_what_departed_ports_had_lost_is_shown():
    drops = dict.fromkeys(port()["drops"], 0) | {"egress_full": 4321}
    said = shown(port(), departed={"ports": 2, "drops": drops})
    assert "(2 departed)" in said
    assert "4,321" in said


def test_unknown_figures_are_dashes():
    worker = dict.fromkeys(port()["worker"]) | {"epoch": 3, "restarts": 1}
    said = shown(port(worker=worker, state="waiting"))
    assert said.splitlines()[-1].split() == ["qemu-1", *["-"] * 4, "1"]


def test_a_switch_without_ports_has_processes():
    assert "supervisor" in shown()


def test_drops_are_red_and_zeros_are_not():
    console = Console(width=200)
    parts = list(console.render(stats(answer(port()), 80)))
    assert {str(part.style) for part in parts if part.text.strip() == "31"} == {"red"}
    assert {str(part.style) for part in parts if part.text.strip() == "10"} != {"red"}


def test_a_gateway_has_its_flows_and_its_refusals_with_their_meaning():
    gateway = {"state": "silent"} | counted.in_order(
        {"connections": 3, "denied": 7, "timed_out": 2, "odd": 1}
    )
    said = shown(gateway=gateway, everything=True)
    assert "gateway (silent)" in said
    lines = {" ".join(line.split()[:2]): line.split()[2:] for line in said.splitlines() if line.strip()}
    assert lines["flows tcp"][0] == "3"
    assert lines["refused denied"][:2] == ["7", "to"]
    assert lines["refused not_carried"][0] == "0"
    assert lines["relayed timed_out"][0] == "2"
    assert lines["relayed odd"] == ["1"]
    brief = shown(gateway=gateway)
    assert "refused denied" in brief
    assert "refused not_carried" not in brief


def test_counters_of_a_span_say_so():
    assert "counted in the last 10:00" in shown(port(), since_s=600.0)
