"""The benchmarks: each one's smallest run works from end to end, and an interrupted one cleans up."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from scripts.benchmarks import (
    attach,
    continuity,
    fairness,
    footprint,
    forward,
    gateway,
    host,
    iperf,
    isolation,
    offloads,
    profile,
    scale,
    soak,
    stacks,
)
from scripts.benchmarks.lab import host_and_vm, host_peers, two_vms
from scripts.benchmarks.lab.lab import Lab
from tests.helpers.bench_run import cells, run, start
from tests.helpers.guests import requirements
from tests.helpers.guests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]


def test_forward(bench_directory: Path, tmp_path: Path) -> None:
    kinds = ("stream", "seqpacket", "dgram")
    words = [word for kind in kinds for word in ("--kind", kind)]
    rows = run(
        bench_directory,
        tmp_path,
        forward.BENCHMARK,
        *words,
        "--size",
        "60",
        "--rounds",
        "1",
        "--seconds",
        "0.5",
    )
    ways = ("no switch", "bare relay", "bulkhead", "vde_switch")
    assert [(row["frames"], row["way"]) for row in rows] == [
        (f"{kind}, 60 B", way) for kind in kinds for way in ways
    ]
    for row in rows:
        if row["way"] == "vde_switch" and not row["frames"].startswith("dgram"):
            assert row["M frames/s"].startswith("not measured: vde_switch ")
        elif row["way"] != "vde_switch" or shutil.which("vde_switch"):
            assert float(row["M frames/s"]) >= 0
            assert row["out of order, corrupt"] == "0"
            assert (row["rate, of relay's"] != "-") == (row["way"] in {"bulkhead", "vde_switch"})
        if row["way"] != "vde_switch":
            assert float(row["round trip p50 µs"].replace(",", "")) > 0
            assert float(row["under load p50 µs"].replace(",", "")) > 0


def test_forward_between_guests(bench_directory: Path, tmp_path: Path) -> None:
    words = ("--kind", "vhost", "--size", "5000", "--rounds", "1", "--seconds", "0.5")
    rows = run(bench_directory, tmp_path, forward.BENCHMARK, *words)
    assert [row["way"] for row in rows] == ["bare relay", "bulkhead, sockets", "bulkhead", "dpdk-testpmd"]
    for row in rows[:3]:
        assert float(row["M frames/s"]) > 0
        assert row["out of order, corrupt"] == "0"
        assert float(row["CPU, of memcpy bound"].replace(",", "")) > 0
        assert float(row["VMs' CPU ns a frame"].replace(",", "")) > 0
    assert rows[2]["lost"].startswith("0 of ")


def test_attach(bench_directory: Path, tmp_path: Path) -> None:
    rows = run(bench_directory, tmp_path, attach.BENCHMARK, "--vms", "2", "--pause", "0.1", "--kind", "dgram")
    assert [row["VMs"] for row in rows] == ["2", "2", "2"]
    for row in rows:
        assert float(row["median ms"].replace(",", "")) > 0
        assert row["not within 10 s"] == "0"


@pytest.mark.parametrize("kind", ["stream", "vhost"])
def test_footprint(bench_directory: Path, tmp_path: Path, kind: str) -> None:
    rows = run(
        bench_directory, tmp_path, footprint.BENCHMARK,
        "--kind", kind, "--vms", "2", "--settle", "0.1", "--seconds", "0.2",
    )  # fmt: skip
    assert rows[0]["process"] == footprint.WORKER
    assert rows[0]["how many"] == "2"
    assert rows[-1]["process"] == footprint.TOGETHER
    assert float(rows[-1]["RSS MiB"]) > 0


def test_offloads(bench_directory: Path, tmp_path: Path) -> None:
    rows = run(bench_directory, tmp_path, offloads.BENCHMARK, "--rounds", "1", "--loops", "1")
    assert [row["what"] for row in rows[-3:]] == ["finish", "finish and cut", "verify and join"]
    assert all(float(row["ns, fastest"]) > 0 for row in rows)


@pytest.mark.guest
def test_gateway(bench_directory: Path, tmp_path: Path) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))
    attacks = ("scan", "half questions", "leases")
    words = [word for attack in attacks for word in ("--attack", attack)]
    rows = run(
        bench_directory,
        tmp_path,
        gateway.BENCHMARK,
        "--rounds",
        "1",
        "--seconds",
        "0.3",
        "--rate",
        "500",
        *words,
    )
    assert [(row["the other VM"], row["what"]) for row in rows] == [
        (attack, what) for attack in attacks for what in gateway.WANTED
    ]
    assert all(float(row["a second"].replace(",", "")) > 0 for row in rows)


@pytest.mark.guest
def test_host(bench_directory: Path, tmp_path: Path) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))
    rows = run(
        bench_directory, tmp_path, host.BENCHMARK, "--way", "bulkhead --gateway", "--rounds", "1",
        "--seconds", "0.3",
    )  # fmt: skip
    ours = [row for row in rows if row["way"] == "bulkhead --gateway"]
    assert len(ours) == 2 * 6
    for row in ours:
        what = "p50 us" if "echo" in row["test"] else "a second"
        assert float(row[what].replace(",", "")) > 0


IPERF_VMS = (two_vms.BulkheadLab, two_vms.GuestLab, two_vms.VdeLab, two_vms.KrunkitTapLab)
IPERF_HOST = (
    host_and_vm.Gateway,
    host_and_vm.KrunkitGateway,
    host_peers.Slirp,
    host_peers.Passt,
    host_peers.Gvproxy,
)
"""One contender of each kind: each takes both processors for seconds."""


def ways(*kinds: type[Lab]) -> list[str]:
    return [word for kind in kinds for word in ("--way", kind.name)]


@pytest.mark.guest
def test_iperf_between_vms(bench_directory: Path, tmp_path: Path) -> None:
    requirements.require(requirements.NAMESPACE)
    rows = run(
        bench_directory, tmp_path, iperf.BENCHMARK, "--between", "vms", *ways(*IPERF_VMS),
        "--mtu", "1500", "--streams", "2", "--rounds", "1", "--seconds", "1", "--streams-seconds", "1",
    )  # fmt: skip
    ours = [row for row in rows if row["switch"] == "bulkhead"]
    tests = ("1 stream", "1 stream, both ways", "2 streams, both ways")
    wanted = [(test, way) for test in tests for way in (two_vms.THERE, two_vms.BACK)]
    assert [(row["test"], row["direction"]) for row in ours] == wanted
    assert_measured(ours)
    guest = [row for row in rows if row["switch"] == two_vms.GuestLab.name]
    assert [(row["test"], row["direction"]) for row in guest] == wanted
    assert_measured(guest)
    krunkit = [row for row in rows if row["switch"] == two_vms.KrunkitTapLab.name]
    assert_measured(krunkit)
    assert {row["wrong sums"] for row in (*ours, *guest, *krunkit)} == {"0", "-"}
    theirs = [row for row in rows if row["switch"] == "vde_switch"]
    if shutil.which("vde_switch"):
        assert len(theirs) == len(ours)
        assert all(float(row["of bulkhead's"]) > 0 for row in theirs)
        assert_measured(theirs)
    else:
        assert [row["direction"] for row in theirs] == [
            "not measured: vde_switch is not installed: apt-get install vde2"
        ]
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "iperf.png").stat().st_size


@pytest.mark.guest
def test_iperf_with_the_host(bench_directory: Path, tmp_path: Path) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))
    rows = run(
        bench_directory, tmp_path, iperf.BENCHMARK, "--between", "host", *ways(*IPERF_HOST),
        "--gvproxy", str(tmp_path / "none"),
        "--mtu", "9000", "--streams", "2", "--rounds", "1", "--seconds", "1", "--streams-seconds", "1",
    )  # fmt: skip
    both = (host_and_vm.TO_HOST, host_and_vm.TO_VM)
    wanted = [("1 stream", host_and_vm.TO_VM), ("1 stream", host_and_vm.TO_HOST)]
    wanted += [(test, way) for test in ("1 stream, both ways", "2 streams, both ways") for way in both]
    for kind in IPERF_HOST:
        cells = [row for row in rows if row["switch"] == kind.name]
        missing = [program for program in kind.needed if not shutil.which(program)]
        if kind is host_peers.Gvproxy:
            assert [row["direction"] for row in cells] == [f"not measured: {tmp_path}/none is no program"]
        elif missing:
            assert cells[0]["direction"].startswith(f"not measured: there is no {missing[0]}")
        else:
            assert [(row["test"], row["direction"]) for row in cells] == wanted
            assert_measured(cells, idle=kind not in host_and_vm.OURS)


def assert_measured(rows: list[dict[str, str]], *, idle: bool = False) -> None:
    """What iperf3 and the kernel say is in these rows; other people's ways may stand still (``idle``)."""
    for row in rows:
        rate = float(row["Gbit/s"])
        assert rate > 0 or (idle and rate == 0)
        assert row["retransmits"].replace(",", "").isdigit()
        assert idle or (row["sigma/mean %"] == "-") == row["test"].startswith("1 ")


def test_scale(bench_directory: Path, tmp_path: Path) -> None:
    rows = run(
        bench_directory, tmp_path, scale.BENCHMARK,
        "--vms", "2", "--vms", "4", "--pause", "0.05", "--settle", "0.1", "--idle", "0.3", "--joins", "1",
        "--rounds", "1", "--seconds", "0.1", "--pairs", "1", "--broadcasts", "3",
    )  # fmt: skip
    assert [row["VMs"] for row in rows] == ["2", "4"]
    for row in rows:
        for column in ("attach median ms", "PSS MiB a worker", "descriptors a worker", "join heard by all ms",
                       "pair Gbit/s, others idle", "of alone", "newcomer heard by all ms"):  # fmt: skip
            assert float(row[column].replace(",", "")) > 0, column
    assert [row["pairs work: of alone"] == "-" for row in rows] == [True, False]
    assert [row["heard"] for row in rows] == ["3 of 3", "9 of 9"]


@pytest.mark.parametrize("tool", [profile.PERF, profile.CALLGRIND])
def test_profile(tool: str, bench_directory: Path, tmp_path: Path) -> None:
    rows = run(
        bench_directory, tmp_path, profile.BENCHMARK,
        "--kind", "stream", "--kind", "dgram", "--seconds", "0.3", "--tool", tool,
    )  # fmt: skip
    everything = {row["frames"]: row for row in rows if row["where"] == "all"}
    if not everything:  # the tool is not here, or may not be used
        assert {row["where"].partition(":")[0] for row in rows} == {"not measured"}
        return
    assert list(everything) == ["stream, 1,514 B", "dgram, 1,514 B"]
    unit = "CPU ns a frame" if tool == profile.PERF else "instructions a frame"
    for frames, whole in everything.items():
        parts = [row for row in rows if row["frames"] == frames and row is not whole]
        expected = {stacks.CORE, stacks.MEMCPY} if frames.startswith("dgram") else {stacks.CORE}
        assert expected <= {row["where"] for row in parts}  # a stream is read to where it has to be
        assert sum(float(row["share %"]) for row in parts) == pytest.approx(100, abs=0.1 * len(parts))
        assert float(whole[unit].replace(",", "")) > 0
    assert (tmp_path / "profile-stream-1514.folded").exists() == (tool == profile.PERF)


def test_continuity(bench_directory: Path, tmp_path: Path) -> None:
    rows = run(
        bench_directory, tmp_path, continuity.BENCHMARK,
        "--link", "dgram", "--link", "stream", "--workers", "2", "--in-a-row", "2", "--supervisors", "1",
    )  # fmt: skip
    assert [(row["killed"], row["times"]) for row in rows] == [
        ("worker", "2"), ("worker", "2"), ("supervisor", "1")
    ]  # fmt: skip
    assert all(row["wrong frames"] == "0" for row in rows)
    assert rows[0]["links that went on"] == "2"
    assert rows[2]["links that went on"] == "1"
    assert float(rows[2]["newcomer heard ms"].split(",")[0]) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cleans_up_and_shows_its_results(
    number: signal.Signals, bench_directory: Path, tmp_path: Path
) -> None:
    process = start(bench_directory, tmp_path, "forward", "--rounds", "1000", "--seconds", "0.1")
    try:
        wait_for(lambda: list(bench_directory.glob("*/run/*")), "a switch to run")
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
        ["iperf", "--between", "hosts"],
        ["isolation", "--stuck-rate", "-1"],
        ["scale", "--vms", "0"],
        ["profile", "--tool", "guess"],
        ["unknown"],
        [],
    ],
)
def test_a_wrong_command_line_starts_nothing(words: list[str], bench_directory: Path, tmp_path: Path) -> None:
    process = start(bench_directory, tmp_path / "output", *words)
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
    for benchmark in (
        forward,
        attach,
        footprint,
        iperf,
        isolation,
        fairness,
        continuity,
        soak,
        scale,
        profile,
    ):
        assert f"\n  {benchmark.BENCHMARK.name} " in done.stdout
