"""``supervisor top``: two answers of ``supervisor stats`` become rates, rates become a table.

Theory of operation
-------------------
``Trail`` takes one answer after another and keeps the only state: the answer before and, for each port, the
last ``TRACE`` rates for its chart. ``changes`` and ``screen`` are pure. ``run`` does the I/O: it fetches,
draws and waits for a key.

Rates are measured between the supervisor's own time stamps, so a slow answer does not distort them. A port is
the same in both answers if it is older than the time between them. Any other port (a new one with an old
number, or of another supervisor) has no rate yet, which is not a rate of zero.

If the output is not a terminal, one table over one interval is printed.
"""

import select
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from supervisor.screen import tables
from supervisor.screen.figures import bits, duration, octets, percent, scaled
from supervisor.screen.tables import Column, Json, alarming

INTERVAL_S = 1.0
TRACE = 16
"""Rates kept for each port: one for each column of its chart."""
_BARS = "▁▂▃▄▅▆▇█"
_QUIT_KEYS = frozenset("qQ\x03\x04")


class Rates(NamedTuple):
    """The rates of one port between two answers."""

    frames_in: float
    bits_in: float
    frames_out: float
    bits_out: float
    drops: float


class Row(NamedTuple):
    """One port at one moment."""

    port: Json
    rates: Rates | None
    trace: str
    """The last rates as bars, all ports to one scale."""


def changes(previous: Json | None, current: Json) -> list[tuple[Json, Rates | None]]:
    """Pair each port of ``current`` with its rates since ``previous``; None if there are none yet."""
    before: dict[int, Json] = {}
    elapsed = 0.0
    if previous is not None and previous["epoch"] == current["epoch"]:
        elapsed = current["uptime_s"] - previous["uptime_s"]
        before = {port["port"]: port for port in previous["ports"]}
    paired: list[tuple[Json, Rates | None]] = []
    for port in current["ports"]:
        then = before.get(port["port"])
        same = then is not None and 0 < elapsed <= port["since_s"]
        paired.append((port, _rates(then, port, elapsed) if then is not None and same else None))
    return paired


def _rates(then: Json, now: Json, elapsed: float) -> Rates:
    def per_second(way: str, what: str) -> float:
        difference: int = now[way][what] - then[way][what]
        return difference / elapsed

    return Rates(
        frames_in=per_second("rx", "frames"),
        bits_in=8 * per_second("rx", "bytes"),
        frames_out=per_second("tx", "frames"),
        bits_out=8 * per_second("tx", "bytes"),
        drops=(dropped(now) - dropped(then)) / elapsed,
    )


def dropped(port: Json) -> int:
    """Sum all drops of a port."""
    return sum(port["drops"].values())


def total(rates: Sequence[Rates | None]) -> Rates:
    """Add up the known values."""
    known = [each for each in rates if each is not None]
    return Rates(*map(sum, zip(*known, strict=True))) if known else Rates(0, 0, 0, 0, 0)


class Trail:
    """The answers so far: the last one, and each port's last rates (bounded by the ports)."""

    def __init__(self) -> None:
        self._previous: Json | None = None
        self._traces: dict[int, deque[float]] = {}

    def follow(self, current: Json) -> list[Row]:
        """Take the next answer; return the rows to draw."""
        changed = changes(self._previous, current)
        traces: dict[int, deque[float]] = {}
        for port, rates in changed:
            kept: deque[float] = deque(maxlen=TRACE)
            if rates is not None:
                kept = self._traces.get(port["port"], kept)
                kept.append(rates.bits_in + rates.bits_out)
            traces[port["port"]] = kept
        self._previous, self._traces = current, traces
        highest = max((value for kept in traces.values() for value in kept), default=0.0)
        return [Row(port, rates, trace(traces[port["port"]], highest)) for port, rates in changed]


def trace(values: Iterable[float], highest: float) -> str:
    """Draw rates as bars; ``highest`` is a full bar, and only zero traffic is an empty column."""
    steps = len(_BARS) - 1
    return "".join(_BARS[round(steps * value / highest)] if value else " " for value in values)


def screen(answer: Json, shown: Sequence[Row], width: int) -> RenderableType:
    """Draw one moment of the switch in ``columns`` columns."""
    table = _ports(shown, width) if shown else Text("no ports yet", style="dim")
    return Group(*_header(answer, shown), Text(), table)


def _header(answer: Json, shown: Sequence[Row]) -> Iterator[Text]:
    stalled = [row.port["name"] for row in shown if row.port["stalled"]]
    first = Text.assemble(
        ("Bulkhead", "bold cyan"),
        f"   {len(shown)} {'port' if len(shown) == 1 else 'ports'}",
        f"   up {duration(answer['uptime_s'])}",
    )
    if stalled:
        first.append("   ")
        first.append(f" stalled: {', '.join(stalled)} ", "bold white on red")
    yield first
    sums = total([row.rates for row in shown])
    lost = sum(dropped(row.port) for row in shown) + sum(answer["departed"]["drops"].values())
    supervisor = answer["supervisor"]
    yield Text(
        f"in {scaled(sums.frames_in)} frames/s, {bits(sums.bits_in)}   "
        f"out {scaled(sums.frames_out)} frames/s, {bits(sums.bits_out)}"
    )
    yield Text(f"drops {scaled(sums.drops)}/s, {scaled(lost)} in all", style="red" if sums.drops else "")
    yield Text(
        f"supervisor {percent(supervisor['cpu_percent'])} % CPU, {_memory(supervisor)}",
        style="dim",
    )


def _memory(process: Json) -> str:
    """Return a process's memory: its share of shared pages, if the kernel tells it."""
    return octets(process["rss_bytes"] if process["pss_bytes"] is None else process["pss_bytes"])


def _drop_rate(row: Row) -> Text:
    lost = row.rates and row.rates.drops
    return Text(scaled(lost), style="bold red" if lost else "")


COLUMNS: tuple[tuple[int, Column, Callable[[Row], str | Text]], ...] = (
    (0, Column("port"), lambda row: str(row.port["port"])),
    (0, Column("name", False, "bold"), lambda row: row.port["name"]),
    (2, Column("via", False), lambda row: row.port["transport"]),
    (0, Column("state", False), lambda row: tables.state(row.port)),
    (3, Column("in\nframes/s"), lambda row: scaled(row.rates and row.rates.frames_in)),
    (0, Column("in\nbit/s"), lambda row: scaled(row.rates and row.rates.bits_in)),
    (3, Column("out\nframes/s"), lambda row: scaled(row.rates and row.rates.frames_out)),
    (0, Column("out\nbit/s"), lambda row: scaled(row.rates and row.rates.bits_out)),
    (1, Column("traffic", False, "cyan"), lambda row: row.trace.rjust(TRACE)),
    (0, Column("drops/s"), _drop_rate),
    (1, Column("drops"), lambda row: alarming(dropped(row.port), scaled(dropped(row.port)))),
    (0, Column("queue"), lambda row: octets(row.port["egress_queue_bytes"])),
    (0, Column("CPU %"), lambda row: percent(row.port["worker"]["cpu_percent"])),
    (1, Column("memory"), lambda row: _memory(row.port["worker"])),
    (4, Column("restarts"), lambda row: str(row.port["worker"]["restarts"])),
    (4, Column("up"), lambda row: duration(row.port["since_s"])),
    (4, Column("worker"), lambda row: str(row.port["worker"]["pid"] or "-")),
)
"""Each column: its heading, its rank for removal on a narrow terminal, its contents."""


def _ports(shown: Sequence[Row], width: int) -> RenderableType:
    """Draw as many columns as fit, at least the most important ones."""
    for rank in range(max(rank for rank, _, _ in COLUMNS), -1, -1):
        columns = [column for each, column, _ in COLUMNS if each <= rank]
        cells = [[cell(row) for each, _, cell in COLUMNS if each <= rank] for row in shown]
        if tables.width(columns, cells) <= width:
            break
    return tables.table(columns, cells)


@contextmanager
def _keyboard() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for some seconds and returns whether a key to quit came meanwhile."""
    if not sys.stdin.isatty():
        yield threading.Event().wait  # never set
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def wait(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0] and sys.stdin.read(1) in _QUIT_KEYS:
                return True
        return False

    try:
        tty.setcbreak(terminal)
        yield wait
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def run(fetch: Callable[[], Json], interval: float = INTERVAL_S, console: Console | None = None) -> None:
    """Show the switch until q or Ctrl-C; once, if there is no terminal.

    ``fetch`` gives one answer of ``supervisor stats``; what it raises ends the table and passes through.
    """
    console = console or tables.console_for()
    trail = Trail()
    answer = fetch()
    shown = trail.follow(answer)
    if not console.is_terminal:
        time.sleep(interval)
        answer = fetch()
        console.print(screen(answer, trail.follow(answer), console.width))
        return
    with _keyboard() as quit_within, Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(screen(answer, shown, console.width), refresh=True)
                if quit_within(interval):
                    return
                answer = fetch()
                shown = trail.follow(answer)
        except KeyboardInterrupt:
            return
