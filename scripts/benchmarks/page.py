"""``page``: what it costs to have a switch of many idle VMs watched: in a browser, by Prometheus, by top."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import mmap
import os
import pty
import selectors
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence

from scripts.benchmarks.lab.sockets import KINDS, Bulkhead
from scripts.benchmarks.report import options as choose
from scripts.benchmarks.report import proc
from scripts.benchmarks.report.figures import spread
from scripts.benchmarks.report.journal import Benchmark, Journal
from tests.helpers.guests.switch import ROOT
from tests.helpers.web import Web

UNSEEN, ONE, CROWD, SCRAPED = "no viewer", "one viewer", "64 viewers", "Prometheus, every 15 s"
TOP = "supervisor top"
MEMORY = "no switch: a loop reads a page of memory for each VM, once a second"
WATCHED = (UNSEEN, ONE, CROWD, SCRAPED, TOP)
CASES = (MEMORY, *WATCHED)
VIEWERS = {ONE: 1, CROWD: 64}
SCRAPE_S = 15.0
BEGIN_S = 6.0
"""What a viewer or ``top`` asks at first, and never again, is over by then."""
BOUND_PERCENT = {UNSEEN: 1.0, ONE: 3.0, TOP: 3.0}
TERMINAL = (40, 120)
"""Lines and columns."""
COLUMNS = (
    "VMs", "watched by", "supervisor, % of a core", "process of the page or top, %", "together, %",
    "KiB/s to each viewer", "must hold", "held",
)  # fmt: skip


Watching = tuple[int, Callable[[], int]]
"""The process that watches the switch, and what returns the bytes that all viewers got."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be chosen."""
    parser.add_argument("--kind", choices=list(KINDS), default="stream", help="of socket (%(default)s)")
    parser.add_argument("--vms", type=choose.vms, default=250, help="idle VMs (%(default)s)")
    parser.add_argument(
        "--settle", type=choose.seconds, default=75.0, help="s of rest after the VMs attached (%(default)s)"
    )
    parser.add_argument("--seconds", type=choose.seconds, default=15.0, help="of each run (%(default)s)")
    parser.add_argument("--rounds", type=choose.count, default=1, help="alternating runs (%(default)s)")


def measure(options: argparse.Namespace, journal: Journal) -> None:
    """Watch one switch in each way, in turn.

    It rests first: for a minute after its last frame each port is noted, and its worker gives memory back.
    """
    journal.expect(options.rounds * len(CASES))
    with Bulkhead() as way:
        way.start(options.kind, options.vms, 1514)
        assert way.switch.process is not None
        supervisor = way.switch.process.pid
        time.sleep(options.settle)
        with contextlib.closing(Web(way.switch.runtime_dir)) as web:
            for number in range(options.rounds):
                with journal.run(case=MEMORY, round=number) as run:
                    run |= {"supervisor": _reading(options.vms, options.seconds), "web": 0.0, "bytes": 0.0}
                for case in WATCHED:
                    watching = _top(way.switch.runtime_dir) if case == TOP else _watching(web, case)
                    with journal.run(case=case, round=number) as run, watching as (watcher, got):
                        time.sleep(BEGIN_S)
                        pids, begun = (supervisor, watcher), time.monotonic()
                        before, had = [proc.cpu_ns([pid]) for pid in pids], got()
                        with journal.during(options.seconds, case):
                            time.sleep(options.seconds)
                        passed = time.monotonic() - begun
                        used = [proc.cpu_ns([pid]) - then for pid, then in zip(pids, before, strict=True)]
                        run["supervisor"], run["web"] = (each / passed / 1e7 for each in used)
                        run["bytes"] = (got() - had) / passed / VIEWERS.get(case, 1)


def _reading(count: int, seconds: float) -> float:
    """Return what it takes to read this many pages of memory once a second, in % of a core.

    The supervisor reads a page of each worker. In a virtual machine whose processors are idle, its host may
    have to map each of them again: 50 µs instead of 0.1.
    """
    looks, used = max(1, round(seconds)), 0
    with mmap.mmap(-1, count * mmap.PAGESIZE) as memory:
        memory.write(bytes(len(memory)))
        for _ in range(looks):
            time.sleep(1.0)
            begun = time.thread_time_ns()
            for at in range(0, len(memory), mmap.PAGESIZE):
                memory[at]
            used += time.thread_time_ns() - begun
    return used / looks / 1e7


@contextlib.contextmanager
def _top(runtime_dir: os.PathLike[str]) -> Iterator[Watching]:
    """Have ``supervisor top`` in a terminal that is read."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *TERMINAL, 0, 0))
    argv = [sys.executable, str(ROOT / "bulkhead.py"), "top", "--runtime-dir", os.fspath(runtime_dir)]
    environment = os.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, start_new_session=True, env=environment)
    os.close(theirs)
    total = [0]

    def read() -> None:
        with contextlib.suppress(OSError):  # the terminal ends with its last writer
            while True:
                total[0] += len(os.read(ours, 1 << 16))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield process.pid, lambda: total[0]
    finally:
        process.terminate()
        process.wait()
        thread.join()
        os.close(ours)


@contextlib.contextmanager
def _watching(web: Web, case: str) -> Iterator[Watching]:
    """Have viewers of the page, in a thread."""
    total, over = [0], threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_S):
            with urllib.request.urlopen(f"{web.url}metrics", timeout=10) as answer:
                total[0] += len(answer.read())

    def read(viewers: list[socket.socket]) -> None:
        with selectors.DefaultSelector() as selector:
            for viewer in viewers:
                selector.register(viewer, selectors.EVENT_READ)
            while not over.is_set():
                for key, _ in selector.select(0.1):
                    total[0] += len(key.fileobj.recv(1 << 20))  # type: ignore[union-attr]

    with contextlib.ExitStack() as stack:
        viewers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
            for _ in range(VIEWERS.get(case, 0))
        ]
        for viewer in viewers:
            viewer.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        work = {SCRAPED: scrape}.get(case, lambda: read(viewers))
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield web.process.pid, lambda: total[0]
        finally:
            over.set()
            thread.join()


def rows(journal: Journal) -> Iterable[Sequence[str]]:
    """Make a row of each way to watch."""
    for case in CASES:
        start = (f"{journal.options.vms}", case)
        trouble = journal.trouble(case=case)
        if trouble:
            yield (*start, trouble)
            continue
        runs = [run for run in journal.of(case=case) if "web" in run]
        together = sorted(run["supervisor"] + run["web"] for run in runs)
        bound = BOUND_PERCENT.get(case)
        yield (
            *start,
            spread([run["supervisor"] for run in runs], 2),
            spread([run["web"] for run in runs], 2),
            spread(together, 2),
            spread([run["bytes"] for run in runs], 1, 1 / 1024) if case in (*VIEWERS, TOP) else "",
            "" if bound is None else f"together ≤ {bound:g}",
            "" if bound is None else "held" if together[len(together) // 2] <= bound else "not held",
        )


BENCHMARK = Benchmark(
    "page",
    "what it costs to have a switch of many idle VMs watched in a browser",
    "VMs that say nothing; supervisor web beside their switch, without a viewer, with viewers that read its"
    " events, and with a Prometheus that scrapes it; supervisor top in a terminal. CPU by /proc.",
    COLUMNS,
    arguments,
    measure,
    rows,
)
