"""The benchmarks' parts: a table shows only what was measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks import (
    fairness,
    forward,
    iperf,
    iperf_report,
    isolation,
    isolation_table,
    stacks,
)
from scripts.benchmarks.lab import generator, host_and_vm, two_vms
from scripts.benchmarks.lab.sockets import Bulkhead
from scripts.benchmarks.lab.switches import Gvproxy
from scripts.benchmarks.report import figures, proc
from scripts.benchmarks.report.journal import Benchmark, Journal, MissingError, table

# Answers as gvproxy does on its API socket, and floods every frame; run with gvproxy's flags.
FAKE_GVPROXY = """#!{python}
import socket, sys, threading
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert flags["-listen-qemu"].startswith("unix://") and flags["-ssh-port"] == "-1", flags
listener = socket.socket(socket.AF_UNIX)
listener.bind(flags["-listen"].removeprefix("unix://"))
listener.listen()
vms = []

def serve(vm):
    request = b""
    while not request.endswith(b"\\r\\n\\r\\n"):
        request += vm.recv(1)
    assert request.startswith(b"POST /connect HTTP/1.1\\r\\n"), request
    vms.append(vm)
    stream = vm.makefile("rb")
    while length := stream.read(4):
        frame = length + stream.read(int.from_bytes(length, "big"))
        for other in vms:
            if other is not vm:
                other.sendall(frame)

while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def test_gvproxy_is_started_and_plugged_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "gvproxy"
    program.write_text(FAKE_GVPROXY.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(Gvproxy, "binary", program)
    with Gvproxy() as way:
        way.start("stream", 3, 1514)
        way.meet(1, 3)
        assert generator.flow("stream", 1514, 0.5, way.pair(1, 3))["received"] > 0
        (pid,) = way.forwarders()
        assert proc.cpu_ns([pid]) > 0
    assert not Path(f"/proc/{pid}").exists()


def journal(benchmark: Benchmark, **options: Any) -> Journal:
    return Journal(benchmark.name, argparse.Namespace(**options))


def test_a_missing_or_failed_part_becomes_a_row_and_the_rest_goes_on() -> None:
    book = journal(forward.BENCHMARK, gvproxy=None)
    with book.run(kind="stream", size=60, way="bare relay", round=0):
        raise MissingError("no C compiler")
    with book.run(kind="stream", size=60, way="bulkhead", round=0):
        raise RuntimeError("it broke\nin two lines")
    assert book.failed
    assert [row[1:] for row in forward.rows(book)] == [
        ("no switch", "not measured"),
        ("bare relay", "not measured: no C compiler"),
        ("bulkhead", "failed: it broke"),
        ("vde_switch", "not measured"),
    ]


def test_a_mistake_of_the_benchmark_is_not_swallowed() -> None:
    with pytest.raises(KeyError), journal(forward.BENCHMARK, gvproxy=None).run(kind="stream"):
        raise KeyError("x")


def test_an_interrupted_run_is_not_kept() -> None:
    book = journal(forward.BENCHMARK, gvproxy=None)
    with pytest.raises(KeyboardInterrupt), book.run(kind="stream"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), book.run(kind="stream"):
        clear_away_in_vain()
    assert book.runs == []


def clear_away_in_vain() -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise OSError("the directory is not empty")


def test_ratios_are_within_rounds() -> None:
    assert figures.ratios([2.0, 9.0, 40.0], [1.0, 3.0, 10.0]) == "3.00 (2.00-4.00)"
    assert figures.ratios([2.0, None], [1.0, 5.0]) == "2.00"
    assert figures.ratios([2.0], []) == "-"


def test_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1, 51)]
    assert figures.percentile(values, 0.99) == 50
    assert figures.percentile(values, 0.5) == 25
    assert figures.percentile([7.0], 0.99) == 7


PERF_SCRIPT = """\
 101
\tffffffff8168c485 _raw_spin_lock ([kernel.kallsyms])
\tffffffff820c9bae alloc_skb_with_frags ([kernel.kallsyms])
\tffffffff820c9bae unix_stream_sendmsg ([kernel.kallsyms])
\t          10ac4d __libc_sendmsg (/usr/lib/libc.so.6)

 102
\t          10ac4d ring_put (/x/forwarder/_core.abi3.so)
\t          101829 [unknown] (/usr/bin/python3.11)

 102
\tffffffff8168c485 do_syscall_64 ([kernel.kallsyms])
\t          101829 syscall (/usr/lib/libc.so.6)
"""


def test_a_sample_belongs_to_its_category() -> None:
    samples = list(stacks.read_perf(PERF_SCRIPT.splitlines()))
    assert [(sample.pid, stacks.category(sample.stack)) for sample in samples] == [
        (101, stacks.MEMORY),
        (102, stacks.CORE),
        (102, stacks.ENTRY),
    ]
    assert [sample.function for sample in samples] == [
        "_raw_spin_lock", "ring_put (_core.abi3.so)", "do_syscall_64"
    ]  # fmt: skip


CALLGRIND_LISTING = """\
Ir
1,718,075 (100.0%)  PROGRAM TOTALS

1,213,220 (70.62%)  ./string/../multiarch/memmove-vec.S:__memcpy_avx [/usr/lib/libc.so.6]
   10,528 ( 0.61%)  forwarder/_core/common.h:engine_run
-- Auto-annotated source: forwarder/_core/ring.c
   10,528 ( 0.61%)  forwarder/_core/common.h:engine_run
"""


def test_instructions_are_counted_by_function() -> None:
    counted = list(stacks.read_callgrind(CALLGRIND_LISTING.splitlines()))
    assert [(count, stacks.category([(name, file)])) for count, name, file in counted] == [
        (1_213_220, stacks.MEMCPY),
        (10_528, stacks.CORE),
    ]


def test_a_switch_that_is_missing_everywhere_has_one_row() -> None:
    book = journal(forward.BENCHMARK, gvproxy=None)
    for size in (60, 128):
        with book.run(kind="stream", size=size, way="vde_switch", round=0):
            raise MissingError("no stream sockets")
    rows = [row for row in forward.rows(book) if row[1] == "vde_switch"]
    assert rows == [("stream, any size", "vde_switch", "not measured: no stream sockets")]


def test_table_fills_short_rows() -> None:
    assert table(["a", "b", "c"], [["1", "why"]]) == "| a | b | c |\n| --- | --- | --- |\n| 1 | why | - |\n"


def isolated(*ratios: float, trips: float = 1.0, elsewhere: int = 0, cpu: float = 0.1) -> Journal:
    """What ``isolation`` has measured in rounds in which being stuck had these consequences."""
    book = journal(isolation.BENCHMARK, size=1514, stuck=1)
    what = {"row": isolation_table.ONE, "kind": "stream", "way": Bulkhead.name, "vms": 5}
    for number, ratio in enumerate(ratios):
        for case in isolation_table.ROWS[isolation_table.ONE].cases:
            stuck = case == isolation_table.STUCK
            with book.run(**what, case=case, round=number) as run:
                run.update(sent=1000, received=1000 * (ratio if stuck else 1), lost=0, seconds=1.0)
                run["echo"] = {"p50_ns": 1000, "p99_ns": 2000 * (trips if stuck else 1)} if trips else {}
                run["disturbance"] = {"b_cpu": cpu}
                run["drops"] = {"3": elsewhere, "5": 77 if stuck else 0}
                run["b_ports"], run["d_port"] = ["5"], "4"
    return book


@pytest.mark.parametrize(
    ("book", "held"),
    [
        (isolated(0.2, 0.96, 1.5), "held"),
        (isolated(0.94), "not held: rate 0.94, 0.94 of 'B reads'"),
        (isolated(1.0, trips=1.51), "not held: p99 1.51"),
        (isolated(1.0, trips=0.0), "not held: p50 no answer; p99 no answer"),
        (isolated(1.0, cpu=5.0), "not held: CPU 5.0 %"),
        (isolated(1.0, 1.0, elsewhere=2), "not held: 4 drops elsewhere"),
    ],
)
def test_isolation_is_judged_by_its_bounds(book: Journal, held: str) -> None:
    rows = {row[4]: row for row in isolation_table.rows(book)}
    assert rows[isolation_table.STUCK][-1] == held
    assert rows[isolation_table.READS][-1] == "-"


def test_a_path_that_answers_nothing_shows_as_that() -> None:
    book = isolated(0.0)
    for run in book.of(case=isolation_table.STUCK):
        run["echo"] = {}
        run["lost"] = 1000
    rows = {row[4]: row for row in isolation_table.rows(book)}
    stuck = rows[isolation_table.STUCK]
    assert stuck[5:10] == ("0.000", "0.00", "0.00", "1,000 of 1,000", "no answer")
    book.runs = book.of(case=isolation_table.SILENT)
    assert [row[5:] for row in isolation_table.rows(book)][1:] == [("not measured",)] * 2


def test_streams_are_distinguished_by_their_sender() -> None:
    def stream(by_client: bool, rate: float) -> dict[str, Any]:
        return {"sender": {"retransmits": 3}, "receiver": {"sender": by_client, "bits_per_second": rate}}

    def second(by_client: bool, rate: float) -> dict[str, Any]:
        return {"sender": by_client, "bits_per_second": rate, "end": 1.0}

    report = {
        "end": {"streams": [stream(True, 2e9), stream(False, 1e9)]},
        "intervals": [{"streams": [second(True, 2.1e9), second(False, 1.1e9)]}],
    }
    test = host_and_vm.plan(8)[2]
    assert (test.client, test.title) == (host_and_vm.VM, "1 stream, both ways")
    seen = iperf_report.directions(report, test)
    assert seen == {
        host_and_vm.TO_HOST: {
            "per_stream": [2e9],
            "retransmits": 3,
            "times": [1.0],
            "series": [[2_100_000_000]],
        },
        host_and_vm.TO_VM: {
            "per_stream": [1e9],
            "retransmits": 3,
            "times": [1.0],
            "series": [[1_100_000_000]],
        },
    }


def test_retransmits_are_shown_for_each_gigabyte_that_arrived() -> None:
    book = Journal(iperf.BENCHMARK.name, argparse.Namespace())
    way = {"per_stream": [2e9, 2e9], "retransmits": 30, "times": [1.0, 2.0], "series": [[], []]}
    book.runs = [
        {
            "mtu": 1500, "test": "2 streams", "words": "", "client": "left", "way": "ours", "partner": "ours",
            "round": 0, "directions": {two_vms.THERE: way}, "dropped_by_switch": 1, "dropped_before": 0,
            "cpu_percent": 50.0, "wrong_sums": 0,
        }
    ]  # fmt: skip
    (row,) = iperf_report.rows(book)
    shown = dict(zip(iperf_report.COLUMNS, row, strict=True))
    assert (shown["Gbit/s"], shown["retransmits"], shown["a GB"]) == ("4.00", "30", "30")


def test_unevenness_is_that_of_rates() -> None:
    assert fairness.unevenness({"bytes_from": [90, 110], "seconds": 2.0}) == pytest.approx(10.0)
    assert fairness.unevenness({"bytes_from": [0, 0], "seconds": 2.0}) is None
