"""``supervisor top``: rates of all ports live, one port in detail, and keys.

Theory of operation
-------------------
``screen`` and ``detail`` are pure: from an answer, its rates (``rates``) and what is wanted (``keys``) to
something to print. ``run`` is the edge: it fetches, draws, waits for keys, and draws again at once after one.

A terminal is only so high: the rows around the chosen port are shown, and the last line says which they are.
On a very low one, lines of the head give way to rows.
The traces begin with what the history of the switch knows, so they are there at once.

If the output is not a terminal, one table over one interval is printed.
"""

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from supervisor.screen import grid, keys, tables
from supervisor.screen.detail import detail
from supervisor.screen.figures import bits, duration, octets, percent, scaled
from supervisor.screen.folding import fold
from supervisor.screen.grid import Column
from supervisor.screen.keys import View
from supervisor.screen.rates import TRACE, Row, Trail, dropped, total
from supervisor.screen.tables import Json, alarming
from supervisor.screen.visible import visible

INTERVAL_S = 1.0
LEAST_ROWS = 3
HEAD_LINES = 4
"""The blank line above the table, and its headings."""
MOST_NAMES = 5
"""Stalled ports that the head names."""
KEY_BYTES = 64


def screen(
    answer: Json, rows: Sequence[Row], width: int, view: View = keys.FIRST, height: int | None = None
) -> RenderableType:
    """Draw one moment of the switch on so many columns, and on so many lines (None: any number)."""
    header = list(_header(answer, rows))
    shown = keys.ordered(view, rows)
    if not shown:
        return Group(*header, Text(), Text("no ports yet", style="dim"))
    chosen = keys.chosen(view, shown)
    if height is None:
        return Group(*header, Text(), _ports(shown, width))

    def footer(first: int, last: int) -> Text:
        order = f"by {keys.SORTS[view.sort]}{', turned round' if view.turned else ''}"
        here = f"{first + 1} to {last} of {len(shown)}, {order}"
        name = next(row.port["name"] for row in shown if row.port["port"] == chosen)
        return Text(f"{here}; chosen: {visible(name)} (Enter)   ? help   q quit", style="dim")

    room = height - HEAD_LINES - _lines(footer(len(shown), len(shown)), width)
    room -= sum(_lines(text, width) for text in header)
    while len(header) > 1 and room < min(LEAST_ROWS, len(shown)):
        room += _lines(header.pop(), width)
    first, last = _window([row.port["port"] for row in shown], chosen, max(room, 1))
    return Group(*header, Text(), _ports(shown[first:last], width), footer(first, last))


def _lines(text: Text, width: int) -> int:
    """Return how many lines a sentence takes."""
    return len(fold(text.plain, width))


def _window(numbers: Sequence[int], chosen: int, room: int) -> tuple[int, int]:
    """Return which rows are shown, of so many: the first, and the one behind the last."""
    place = numbers.index(chosen)
    first = max(0, min(place - room // 2, len(numbers) - room))
    return first, min(first + room, len(numbers))


def help_text() -> RenderableType:
    """Draw the page of ``?``."""
    lines = [
        ("j k, arrows", "choose a port"),
        ("Enter", "show the chosen port in detail; Esc goes back"),
        *((key, f"sort by {word}; again: the other way round") for key, word in keys.SORTS.items()),
        ("?", "this page"),
        ("q", "quit"),
    ]
    said = Text("`supervisor help WORD` explains the words on the screen.", style="dim")
    return Group(tables.table((Column("key", False), Column("does", False)), lines), Text(), said)


def _header(answer: Json, shown: Sequence[Row]) -> Iterator[Text]:
    stalled = [row.port["name"] for row in shown if row.port["stalled"]]
    first = Text.assemble(
        ("Bulkhead", "bold cyan"),
        f"   {len(shown)} {'port' if len(shown) == 1 else 'ports'}",
        f"   up {duration(answer['uptime_s'])}",
    )
    if stalled:
        first.append("   ")
        more = f" and {len(stalled) - MOST_NAMES} more" if len(stalled) > MOST_NAMES else ""
        names = visible(", ".join(stalled[:MOST_NAMES]))
        first.append(f" stalled: {names}{more} ", "bold white on red")
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
    (4, Column("via", False), lambda row: row.port["transport"]),
    (0, Column("state", False, whole=True), lambda row: tables.state(row.port)),
    (5, Column("in\nframes/s"), lambda row: scaled(row.rates and row.rates.frames_in)),
    (1, Column("in\nbit/s"), lambda row: scaled(row.rates and row.rates.bits_in)),
    (5, Column("out\nframes/s"), lambda row: scaled(row.rates and row.rates.frames_out)),
    (1, Column("out\nbit/s"), lambda row: scaled(row.rates and row.rates.bits_out)),
    (3, Column("traffic", False, "cyan", whole=True), lambda row: row.trace.rjust(TRACE)),
    (2, Column("drops/s"), _drop_rate),
    (3, Column("drops"), lambda row: alarming(dropped(row.port), scaled(dropped(row.port)))),
    (2, Column("queue"), lambda row: octets(row.port["egress_queue_bytes"])),
    (2, Column("CPU %"), lambda row: percent(row.port["worker"]["cpu_percent"])),
    (3, Column("memory"), lambda row: _memory(row.port["worker"])),
    (6, Column("restarts"), lambda row: str(row.port["worker"]["restarts"])),
    (6, Column("up"), lambda row: duration(row.port["since_s"])),
    (6, Column("worker"), lambda row: str(row.port["worker"]["pid"] or "-")),
)
"""Each column: its rank for removal on a narrow terminal (rank 0 stays), its heading, its contents."""


def _ports(shown: Sequence[Row], width: int) -> RenderableType:
    """Draw as many columns as fit, at least the most important ones."""
    cells = [[cell(row) for _, _, cell in COLUMNS] for row in shown]
    wanted = grid.widths([column for _, column, _ in COLUMNS], cells)
    for most in range(max(rank for rank, _, _ in COLUMNS), -1, -1):
        kept = [index for index, (rank, _, _) in enumerate(COLUMNS) if rank <= most]
        if grid.total([wanted[index] for index in kept]) <= width:
            break
    return tables.table(
        [COLUMNS[index][1] for index in kept], [[row[index] for index in kept] for row in cells]
    )


@contextmanager
def _keyboard() -> Iterator[Callable[[float], Iterable[str]]]:
    """Give a function that waits for so many seconds at most and returns the keys that came."""
    if not sys.stdin.isatty():
        never = threading.Event()

        def pause(seconds: float) -> Iterable[str]:
            never.wait(seconds)
            return ()

        yield pause
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def wait(seconds: float) -> Iterable[str]:
        if not select.select([terminal], [], [], max(0.0, seconds))[0]:
            return ()
        return tuple(keys.split(os.read(terminal, KEY_BYTES)))

    try:
        tty.setcbreak(terminal)
        yield wait
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def run(
    fetch: Callable[[], Json],
    past: Callable[[str, int | None], Sequence[Json]],
    interval: float = INTERVAL_S,
    console: Console | None = None,
) -> None:
    """Show the switch until q or Ctrl-C; where there is no terminal, once.

    ``fetch`` gives one answer of ``supervisor stats``; ``past`` the history of a span (minute, hour), of one
    port or (None) of all. What they raise ends the table and passes through.
    """
    console = console or tables.console_for()
    trail = Trail()
    trail.remember(past("minute", None))
    answer = fetch()
    rows = trail.follow(answer)
    if not console.is_terminal:
        time.sleep(interval)
        answer = fetch()
        console.print(screen(answer, trail.follow(answer), console.width))
        return
    view = View()
    with _keyboard() as wait, Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                due = time.monotonic() + interval
                while (left := due - time.monotonic()) > 0:
                    live.update(_drawn(answer, rows, console, view, past), refresh=True)
                    for key in wait(left):
                        if key in keys.QUIT:
                            return
                        view = keys.press(view, key, keys.ordered(view, rows))
                answer = fetch()
                rows = trail.follow(answer)
        except KeyboardInterrupt:
            return


def _drawn(
    answer: Json,
    rows: Sequence[Row],
    console: Console,
    view: View,
    past: Callable[[str, int | None], Sequence[Json]],
) -> RenderableType:
    """Draw what is wanted: the help, one port, or all."""
    if view.help:
        return help_text()
    row = next((row for row in rows if row.port["port"] == view.port), None) if view.detail else None
    if row is None:
        return screen(answer, rows, console.width, view, console.height)
    spans = {span: next(iter(past(span, view.port)), None) for span in ("minute", "hour")}
    return detail(row, spans, console.width)
