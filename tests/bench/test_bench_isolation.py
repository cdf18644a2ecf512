"""The benchmarks of isolation, of fair shares, and the soak: each one's smallest run, and how it judges."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks import fairness, isolation, isolation_table, soak
from scripts.benchmarks.report.journal import Journal
from tests.helpers.bench_run import run

SWITCHES = ("bulkhead", "vde_switch", "gvproxy")


def test_isolation(bench_directory: Path, tmp_path: Path) -> None:
    rows = run(
        bench_directory, tmp_path, isolation.BENCHMARK,
        "--kind", "dgram", "--rounds", "1", "--seconds", "0.2", "--stuck", "2", "--vms", "7",
        "--gvproxy", str(tmp_path / "none"),
    )  # fmt: skip
    by_row = {key: [row for row in rows if row["row"] == each.title.format(stuck=2)]
              for key, each in isolation_table.ROWS.items()}  # fmt: skip
    by_switch = {name: [row for row in by_row["one"] if row["switch"] == name] for name in SWITCHES}
    for key, ours in {**by_row, "one": by_switch["bulkhead"]}.items():
        promised = isolation_table.ROWS[key]
        assert [row["meanwhile"] for row in ours] == list(promised.cases)
        for row in ours:
            assert row["VMs"] == ("7" if key == "many" else "5")
            assert float(row["A→C M frames/s"]) > 0
            assert float(row["B's worker CPU %"].split()[0]) >= 0
            assert row["held"].startswith(("held", "not held: ")) == (row["meanwhile"] == promised.judged)
        if promised.drops:
            # On a busy machine a B that reads may lose some, too.
            silent, *_, stuck = [int(row["drops at B"].replace(",", "")) for row in ours]
            assert silent == 0 < stuck
            assert all(row["drops elsewhere"] == "0" for row in ours)
    assert [row["meanwhile"] for row in by_switch["gvproxy"]] == [
        f"not measured: {tmp_path / 'none'} is no program"
    ]
    vde = by_switch["vde_switch"]
    if shutil.which("vde_switch"):
        assert [row["meanwhile"] for row in vde] == list(isolation_table.ROWS["one"].cases)
        assert all(not row["lost"].endswith(" 0") for row in vde)
    else:
        assert [row["meanwhile"] for row in vde] == [
            "not measured: vde_switch is not installed: apt-get install vde2"
        ]


def test_fairness(bench_directory: Path, tmp_path: Path) -> None:
    rows = run(
        bench_directory, tmp_path, fairness.BENCHMARK,
        "--kind", "stream", "--kind", "dgram", "--senders", "3", "--rounds", "1", "--seconds", "0.2",
    )  # fmt: skip
    assert [row["frames' length"] for row in rows] == [*fairness.CASES, *fairness.CASES]
    for row in rows:
        assert 0 < float(row["slowest sender"]) <= float(row["fastest sender"])
        assert float(row["sigma/mean %"]) >= 0
        assert row["drops elsewhere"] == "0"


def test_soak(bench_directory: Path, tmp_path: Path) -> None:
    rows = run(bench_directory, tmp_path, soak.BENCHMARK, "--seconds", "6")
    figures = {row["what"]: row["figure"] for row in rows}
    promised = [row for row in rows if row["must hold"] != "-"]
    assert len(promised) == 13
    assert {row["held"] for row in promised} == {"held"}, rows
    assert figures["seconds, cycles"].endswith(", 3")
    assert "VMs came" in figures["what happened"]
    for pair in (
        "quiet, unix and unixpacket",
        "quiet, tcp and unixgram",
        "restless, unixpacket and unixgram",
    ):
        assert int(figures[f"{pair}: sent, arrived"].split(", ")[1].replace(",", "")) > 0


def soaked(**changes: Any) -> Journal:
    """What ``soak`` has seen in two cycles, the second one with these changes."""
    book = Journal("soak", argparse.Namespace(seed=1))
    end = {"sent": 50, "rx": 50, "tx": 48, "frames": 48, "arrived": 48, "counted": 2, "restarts": 0}
    for number in range(2):
        now = changes if number else {}
        memory = {soak.SUPERVISOR: now.get("supervisor", 10 << 20), "vm": now.get("worker", 5 << 20)}
        with book.run(cycle=number) as run:
            run.update(
                seconds=1.0, happened={}, wrong=now.get("wrong", []), ended=[],
                state={
                    "processes": now.get("processes", 4), "files": now.get("files", ["a"]),
                    "descriptors": {"vm": now.get("descriptors", 20)}, "memory": memory,
                },
                pairs=[{"pair": name, "ends": [end | now.get(name, {})]} for name in ("quiet", "restless")],
            )  # fmt: skip
    return book


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, []),
        ({"restless": {"counted": 0}}, []),
        ({"files": [], "processes": 3, "descriptors": 1, "worker": 1}, []),
        ({"quiet": {"counted": 1}}, ["quiet: lost 2, of those not counted"]),
        ({"quiet": {"counted": 3}}, ["quiet: lost 2, of those not counted"]),
        ({"quiet": {"rx": 49}}, ["quiet: sent and not read, to the frame"]),
        ({"quiet": {"tx": 49}}, ["quiet: written and not received"]),
        ({"wrong": ["frame 3 after 5"]}, ["wrong frames"]),
        ({"processes": 5}, ["processes more than after the first cycle"]),
        ({"files": ["b"]}, ["files more than after the first cycle"]),
        ({"descriptors": 21}, ["descriptors more than after the first cycle"]),
        ({"supervisor": 19 << 20}, ["memory of a supervisor, growth"]),
        ({"worker": 8 << 20}, ["memory of a worker, growth"]),
    ],
)
def test_a_soak_is_judged_by_its_books(changes: dict[str, Any], broken: list[str]) -> None:
    assert [what for what, _, _, held in soak.rows(soaked(**changes)) if held == "not held"] == broken
