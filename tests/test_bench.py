"""The benchmarks: each one's smallest run works from end to end, and a table shows only what was measured."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks import attach, figures, footprint, forward, generator, iperf, isolation
from scripts.benchmarks.contenders import Bulkhead, Direct, wrap
from scripts.benchmarks.generator import Pair
from scripts.benchmarks.journal import Benchmark, Journal, MissingError, table
from tests.guests import requirements
from tests.guests.fake_vm import mac
from tests.guests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = ("bulkhead", "vde_switch", "gvproxy")
ONE, OTHER = mac(1).hex(":"), mac(2).hex(":")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory for all that a benchmark makes, with a path short enough for sockets; empty at the end."""
    path = Path(tempfile.mkdtemp(prefix="bh-"))
    try:
        yield path
        assert list(path.iterdir()) == []
    finally:
        shutil.rmtree(path)


def start(directory: Path, output: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks", *words, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def cells(text: str, benchmark: Benchmark) -> list[dict[str, str]]:
    """The rows of a table by column; columns of the same name keep the first one's place."""
    lines = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in text.splitlines()]
    assert lines[0] == list(benchmark.columns)
    assert all(len(line) == len(benchmark.columns) for line in lines)
    return [dict(zip(reversed(lines[0]), reversed(line), strict=True)) for line in lines[2:]]


def run(directory: Path, output: Path, benchmark: Benchmark, *words: str) -> list[dict[str, str]]:
    process = start(directory, output, benchmark.name, *words)
    try:
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert not list(Path("/run").glob(f"netns/bh{process.pid}-*"))
    assert process.returncode == 0, err
    document = json.loads((output / f"{benchmark.name}.json").read_text())
    assert document["runs"]
    assert document["machine"]["kernel"]
    assert (output / f"{benchmark.name}.md").read_text() == out
    return cells(out, benchmark)


def test_forward(directory: Path, tmp_path: Path) -> None:
    kinds = ("stream", "seqpacket", "dgram")
    words = [word for kind in kinds for word in ("--kind", kind)]
    rows = run(
        directory, tmp_path, forward.BENCHMARK, *words, "--size", "60", "--rounds", "1", "--seconds", "0.1"
    )
    assert [(row["frames"], row["way"]) for row in rows] == [
        (f"{kind}, 60 B", way) for kind in kinds for way in ("no switch", "bare relay", "bulkhead")
    ]
    for row in rows:
        assert float(row["M frames/s"]) > 0
        assert float(row["round trip p50 µs"].replace(",", "")) > 0
        assert row["out of order, corrupt"] == "0"
        assert (row["rate, of relay's"] != "-") == (row["way"] == "bulkhead")


def test_attach(directory: Path, tmp_path: Path) -> None:
    rows = run(directory, tmp_path, attach.BENCHMARK, "--vms", "2", "--pause", "0.1", "--kind", "dgram")
    assert [row["VMs"] for row in rows] == ["2", "2", "2"]
    for row in rows:
        assert float(row["median ms"].replace(",", "")) > 0
        assert row["not within 10 s"] == "0"


def test_footprint(directory: Path, tmp_path: Path) -> None:
    rows = run(directory, tmp_path, footprint.BENCHMARK, "--vms", "2", "--settle", "0.1", "--seconds", "0.2")
    assert rows[0]["process"] == footprint.WORKER
    assert rows[0]["how many"] == "2"
    assert rows[-1]["process"] == footprint.TOGETHER
    assert float(rows[-1]["RSS MiB"]) > 0


@pytest.mark.guest
def test_iperf(directory: Path, tmp_path: Path) -> None:
    requirements.require(requirements.NAMESPACE)
    rows = run(
        directory, tmp_path, iperf.BENCHMARK,
        "--mtu", "1500", "--streams", "2", "--rounds", "1", "--seconds", "1",
    )  # fmt: skip
    assert [row["direction"] for row in rows] == [iperf.THERE, iperf.BACK]
    for row in rows:
        assert float(row["Gbit/s"]) > 0
        assert float(row["sigma/mean %"]) >= 0


def test_isolation(directory: Path, tmp_path: Path) -> None:
    rows = run(
        directory, tmp_path, isolation.BENCHMARK,
        "--kind", "dgram", "--rounds", "1", "--seconds", "0.2", "--stuck", "2",
        "--gvproxy", str(tmp_path / "none"),
    )  # fmt: skip
    by_switch = {name: [row for row in rows if row["switch"] == name] for name in SWITCHES}
    assert all(row["VMs"] == "5" for row in rows)
    ours = by_switch["bulkhead"]
    assert [row["meanwhile"] for row in ours] == list(isolation.CASES)
    for row in ours:
        assert float(row["A→C M frames/s"]) > 0
        assert float(row["B's worker CPU %"].split()[0]) >= 0
        assert row["drops elsewhere"].replace(",", "").isdigit()
    assert [row["meanwhile"] for row in by_switch["gvproxy"]] == [
        f"not measured: {tmp_path / 'none'} is no program"
    ]
    vde = by_switch["vde_switch"]
    if shutil.which("vde_switch"):
        assert [row["meanwhile"] for row in vde] == list(isolation.CASES)
        assert all(not row["lost"].endswith(" 0") for row in vde)
    else:
        assert [row["meanwhile"] for row in vde] == [
            "not measured: vde_switch is not installed: apt-get install vde2"
        ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cleans_up_and_shows_what_it_had(
    number: signal.Signals, directory: Path, tmp_path: Path
) -> None:
    process = start(directory, tmp_path, "forward", "--rounds", "1000", "--seconds", "0.1")
    try:
        wait_for(lambda: list(directory.glob("*/run/*")), "a switch to run")
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does, which reaches the switch and the load, too
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert cells(out, forward.BENCHMARK)
    assert json.loads((tmp_path / "forward.json").read_text())["interrupted"]


@pytest.mark.parametrize(
    "words",
    [
        ["forward", "--size", "33"],
        ["forward", "--rounds", "0"],
        ["forward", "--seconds", "0"],
        ["attach", "--vms", "1023"],
        ["iperf", "--mtu", "70000"],
        ["isolation", "--stuck-rate", "-1"],
        ["unknown"],
        [],
    ],
)
def test_a_wrong_command_line_starts_nothing(words: list[str], directory: Path, tmp_path: Path) -> None:
    process = start(directory, tmp_path / "output", *words)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "error: " in err
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("words", [[], ["help"], ["-h"], ["--help"]])
def test_help_names_every_benchmark_and_sets_nothing_up(words: list[str]) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "bench", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/nonexistent"},
    )
    for benchmark in (forward, attach, footprint, iperf, isolation):
        assert f"\n  {benchmark.BENCHMARK.name} " in done.stdout


# The load generator must see what a bad path does.


@contextlib.contextmanager
def bad_path(kind: socket.SocketKind) -> Iterator[tuple[Pair, dict[str, int]]]:
    """Two VMs and a path that loses, changes and swaps messages; gives what it did."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, kind) for _ in range(2)]
        ends = [stack.enter_context(end) for pair in pairs for end in pair]
        did = {"lost": 0, "corrupt": 0, "swapped": 0}

        def carry() -> None:
            held = b""
            number = 0
            while data := ends[1].recv(1 << 16):
                number += 1
                if number % 10 == 3:
                    did["lost"] += 1
                elif number % 10 == 5:
                    did["corrupt"] += 1
                    ends[2].send(data[:-1] + bytes([data[-1] ^ 1]))
                elif number % 10 == 7:
                    held = data
                else:
                    ends[2].send(data)
                    if held:
                        did["swapped"] += 1
                        ends[2].send(held)
                        held = b""

        thread = threading.Thread(target=carry)
        thread.start()
        try:
            yield Pair(wrap("seqpacket", ends[0]), wrap("seqpacket", ends[3]), ONE, OTHER), did
        finally:
            ends[0].close()
            thread.join()


def test_generator_counts_what_a_bad_path_does() -> None:
    with bad_path(socket.SOCK_SEQPACKET) as (pair, did):
        seen = generator.flow("seqpacket", 100, 0.2, pair)
    assert all(did.values())
    # What was held back when the last frame had been sent never came.
    assert did["lost"] <= seen["lost"] <= did["lost"] + 1
    assert seen["corrupt"] == did["corrupt"]
    assert seen["reordered"] == did["swapped"]
    assert seen["received"] + seen["lost"] + seen["corrupt"] == seen["sent"]
    assert seen["smallest_window"] < seen["window"]


@pytest.mark.parametrize("kind", ["stream", "seqpacket", "dgram"])
@pytest.mark.parametrize("size", [34, 1514, 65_550])
def test_generator_loses_nothing_on_a_good_path(kind: str, size: int) -> None:
    with Direct() as way:
        way.start(kind, 2, size)
        seen = generator.flow(kind, size, 0.1, way.pair(1, 2))
        echoed = generator.echo(kind, size, 0.1, way.pair(1, 2))
    assert seen["received"] == seen["sent"] > 0
    assert not seen["corrupt"] + seen["reordered"] + seen["foreign"] + seen["stalls"]
    assert seen["smallest_window"] == seen["window"]
    assert echoed["answered"] == echoed["asked"] > 0
    assert 0 < echoed["p50_ns"] <= echoed["p99_ns"] <= echoed["p999_ns"] <= echoed["max_ns"]


def test_generator_outlives_a_path_that_delivers_nothing() -> None:
    with contextlib.ExitStack() as stack:
        one, other = (Direct() for _ in range(2))
        ends = [stack.enter_context(way).start("seqpacket", 2, 1514)[0] for way in (one, other)]
        seen = generator.flow("seqpacket", 1514, 0.5, Pair(ends[0], ends[1], ONE, OTHER))
    assert seen["sent"] > 0
    assert seen["received"] == 0
    assert seen["lost"] == seen["sent"]
    assert seen["stalls"] > 0


# Tables.


def journal(benchmark: Benchmark, **options: Any) -> Journal:
    return Journal(benchmark.name, argparse.Namespace(**options))


def test_what_is_missing_or_failed_becomes_a_row_and_the_rest_goes_on() -> None:
    book = journal(forward.BENCHMARK)
    with book.run(kind="stream", size=60, way="bare relay", round=0):
        raise MissingError("no C compiler")
    with book.run(kind="stream", size=60, way="bulkhead", round=0):
        raise RuntimeError("it broke\nin two lines")
    assert book.failed
    assert [row[1:] for row in forward.rows(book)] == [
        ("no switch", "not measured"),
        ("bare relay", "not measured: no C compiler"),
        ("bulkhead", "failed: it broke"),
    ]


def test_a_mistake_of_the_benchmark_is_not_swallowed() -> None:
    with pytest.raises(KeyError), journal(forward.BENCHMARK).run(kind="stream"):
        raise KeyError("x")


def test_an_interrupted_run_is_not_kept() -> None:
    book = journal(forward.BENCHMARK)
    with pytest.raises(KeyboardInterrupt), book.run(kind="stream"):
        raise KeyboardInterrupt
    assert book.runs == []


def test_ratios_are_within_rounds() -> None:
    assert figures.ratios([2.0, 9.0, 40.0], [1.0, 3.0, 10.0]) == "3.00 (2.00-4.00)"
    assert figures.ratios([2.0, None], [1.0, 5.0]) == "2.00"
    assert figures.ratios([2.0], []) == "-"


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 51)]
    assert figures.percentile(values, 0.99) == 50
    assert figures.percentile(values, 0.5) == 25
    assert figures.percentile([7.0], 0.99) == 7


def test_table_fills_short_rows() -> None:
    assert table(["a", "b", "c"], [["1", "why"]]) == "| a | b | c |\n| --- | --- | --- |\n| 1 | why | - |\n"


def test_a_path_that_answers_nothing_shows_as_that() -> None:
    book = journal(isolation.BENCHMARK, size=1514, vms=4)
    for case, received in ((isolation.ALONE, 1000), (isolation.STUCK, 0)):
        with book.run(kind="stream", way=Bulkhead.name, case=case, round=0) as run:
            run.update(sent=1000, received=received, lost=1000 - received, seconds=1.0)
            run["echo"] = {"p50_ns": 1000, "p99_ns": 2000} if received else {}
    rows = {row[3]: row for row in isolation.rows(book) if row[1] == Bulkhead.name}
    assert rows[isolation.STUCK][4:9] == ("0.000", "0.00", "0.00", "1,000 of 1,000", "no answer")
    assert rows[isolation.READS][4:] == ("not measured",)
