"""Draw the demo: pure functions from its state to text.

On a terminal the picture is redrawn; elsewhere each second is one line. The summary is the same for both.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from supervisor.demo.results import THRESHOLD, Evidence, complaints
from supervisor.demo.stage import CAST, Cast
from supervisor.screen import tables
from supervisor.screen.figures import exact, octets, percent, scaled
from supervisor.screen.grid import Column
from supervisor.screen.rates import Row, dropped, trace
from supervisor.screen.tables import Cells

Json = dict[str, Any]

WHAT = {
    "loop": "passes frames round with {peer}",
    "mirror": "sends them back to {peer}",
    "source": "sends frames to {peer}",
    "sink": "reads what {peer} sends",
}
"""Each role in words."""
INTRODUCTION = (
    "Four VMs on one switch, each behind a worker process of its own. dave stops reading while carol goes\n"
    "on sending to him. Watch alice and bob: they have nothing to do with it."
)


class Moment(NamedTuple):
    """The state to draw."""

    phases: Sequence[tuple[str, str]]
    """(name of the phase, its colour), in order."""
    phase: int
    """Index of the present phase; -1 before the first."""
    elapsed: float
    seconds: float
    rows: dict[str, Row]
    """Each VM's port, if it is known."""
    stuck: bool
    rate: float
    """Round trips a second between alice and bob now, and the history, with the phase of each value."""
    history: Sequence[tuple[int, float]]
    p50: float | None
    p99: float | None
    log: str


def latency(seconds: float | None) -> str:
    """Write a latency with three digits: ``180 µs``, ``1.21 ms``."""
    if seconds is None:
        return "-"
    size, unit = (seconds * 1e6, "µs") if seconds < 999.5e-6 else (seconds * 1e3, "ms")
    return f"{size:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f} {unit}"


def screen(now: Moment) -> RenderableType:
    """Draw one moment."""
    return Group(
        _title(now),
        Text(INTRODUCTION, style="dim"),
        Text(),
        _vms(now),
        Text(),
        _pair(now),
        _history(now),
        Text(),
        Text(f"the switch's log: {now.log}", style="dim", no_wrap=True, overflow="ellipsis"),
    )


def _title(now: Moment) -> Text:
    title = Text.assemble(("Bulkhead demo", "bold cyan"))
    for number, (name, colour) in enumerate(now.phases):
        done = "●" if number <= now.phase else "○"
        title.append(f"   {done} {name}", f"bold {colour}" if number == now.phase else "dim")
    return title.append(f"   {now.elapsed:.0f} of {now.seconds:.0f} s", "dim")


_COLUMNS = (
    Column("VM", False, "bold"),
    Column("via", False),
    Column("what it does", False),
    Column("state", False),
    Column("in\nbit/s"),
    Column("out\nbit/s"),
    Column("drops/s"),
    Column("drops"),
    Column("queue"),
    Column("CPU %"),
)


def _vms(now: Moment) -> RenderableType:
    return tables.table(_COLUMNS, [_vm(cast, now.rows.get(cast.name), now.stuck) for cast in CAST])


def _vm(cast: Cast, row: Row | None, stuck: bool) -> Cells:
    what = "does not read" if stuck and cast.role == "sink" else WHAT[cast.role].format(peer=cast.peer)
    first: list[str | Text] = [
        cast.name,
        cast.transport,
        Text(what, "red" if stuck and cast.role == "sink" else ""),
    ]
    if row is None:
        return [*first, "attaching", *["-"] * 6]
    port, rates = row.port, row.rates
    return [
        *first,
        tables.state(port),
        scaled(rates and rates.bits_in),
        scaled(rates and rates.bits_out),
        tables.alarming(int(rates.drops if rates else 0), scaled(rates and rates.drops)),
        tables.alarming(dropped(port), exact(dropped(port))),
        octets(port["egress_queue_bytes"]),
        percent(port["worker"]["cpu_percent"]),
    ]


def _pair(now: Moment) -> Text:
    return Text.assemble(
        ("alice ⇄ bob", "bold"),
        f"   {scaled(now.rate)} round trips/s   p50 {latency(now.p50)}   p99 {latency(now.p99)}",
    )


def _history(now: Moment) -> Text:
    highest = max((rate for _, rate in now.history), default=0.0)
    bars = Text()
    for (phase, _), bar in zip(now.history, trace([rate for _, rate in now.history], highest), strict=True):
        bars.append(bar, now.phases[phase][1] if phase >= 0 else "dim")
    return bars


def line(now: Moment) -> str:
    """Write one moment as one line."""
    name = now.phases[now.phase][0] if now.phase >= 0 else "warming up"
    dave = now.rows.get("dave")
    state = tables.state(dave.port).plain if dave else "-"
    drops = sum(dropped(row.port) for row in now.rows.values())
    others = drops - (dropped(dave.port) if dave else 0)
    return (
        f"{now.elapsed:4.0f} s  {name:<16}  alice-bob {scaled(now.rate):>6} round trips/s  "
        f"p50 {latency(now.p50):>7}  p99 {latency(now.p99):>7}  dave {state:<8} "
        f"drops: dave {exact(drops - others)}, others {exact(others)}"
    )


def summary(evidence: Evidence, sent: tuple[float, float]) -> RenderableType:
    """Draw the result. ``sent``: what carol sent each second, before and during."""
    before, during = evidence.before, evidence.during

    def pair(name: str, then: float | None, now: float | None, text: str, later: str) -> Cells:
        ratio = f"{now / then:.2f}" if then and now is not None else "-"
        return [name, text, later, ratio]

    rates = before.rate("received"), during.rate("received")
    rows: list[Cells] = [pair("alice-bob, round trips/s", *rates, scaled(rates[0]), scaled(rates[1]))]
    for name, share in (("median", 0.5), ("99th percentile", 0.99)):
        then, now = before.latency(share), during.latency(share)
        rows.append(pair(f"alice-bob, round trip, {name}", then, now, latency(then), latency(now)))
    rows.append(pair("carol to dave, frames/s sent", *sent, scaled(sent[0]), scaled(sent[1])))
    columns = (Column("", False), Column("dave reads"), Column("dave is stuck"), Column("ratio"))
    drops = ", ".join(f"{name} {exact(count)}" for name, count in evidence.drops.items())
    found = complaints(evidence)
    verdict = (
        Text(f"Only {evidence.stuck} was affected.", style="bold green")
        if not found
        else Text("Failed: " + "; ".join(found) + ".", style="bold red")
    )
    return Group(
        tables.table(columns, rows),
        Text(),
        Text(f"Frames dropped while {evidence.stuck} was stuck, by destination: {drops}."),
        Text(THRESHOLD, style="dim"),
        verdict,
    )
