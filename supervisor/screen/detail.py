"""One port in ``supervisor top``: its rates, its last minute and hour as bars, and what was counted of it."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from supervisor.screen import tables
from supervisor.screen.figures import bits, duration, exact, octets, percent, scaled
from supervisor.screen.grid import Column
from supervisor.screen.rates import Row, trace
from supervisor.screen.tables import Json, state
from supervisor.screen.visible import visible

LABEL = 20
"""Columns in front of the bars."""
UNKNOWN = "·"


def detail(row: Row, spans: Mapping[str, Json | None], width: int) -> RenderableType:
    """Draw a port; ``spans``: what the history says of its last minute and hour, None where nothing."""
    port, rates = row.port, row.rates
    head = Text.assemble((visible(port["name"]), "bold"), f"   port {port['port']}, {port['transport']}, ")
    head.append_text(state(port)).append(f"   up {duration(port['since_s'])}")
    now = Text(
        f"in {scaled(rates and rates.frames_in)} frames/s, {bits(rates and rates.bits_in)}   "
        f"out {scaled(rates and rates.frames_out)} frames/s, {bits(rates and rates.bits_out)}   "
        f"drops {scaled(rates and rates.drops)}/s"
    )
    worker = port["worker"]
    cost = Text(
        f"queue {octets(port['egress_queue_bytes'])}   worker {worker['pid'] or '-'}, "
        f"{percent(worker['cpu_percent'])} % CPU, {octets(worker['rss_bytes'])} RSS, "
        f"{worker['restarts']} restarts",
        style="dim",
    )
    bars = [line for span, known in spans.items() if known is not None for line in _bars(span, known, width)]
    back = Text("Esc all ports   ? help   q quit", style="dim")
    return Group(head, now, cost, Text(), *bars, Text(), _counted(port), Text(), back)


def _bars(span: str, known: Json, width: int) -> list[Text]:
    """Return a line for each way and one for drops, each to a scale of its own."""
    lines = []
    for label, figure, factor, show in (
        ("in", "rx_bytes", 8, bits),
        ("out", "tx_bytes", 8, bits),
        ("drops", "drops", 1, scaled),
    ):
        values = [None if each is None else each * factor / known["seconds"] for each in known[figure]]
        highest = max((each for each in values if each is not None), default=0.0)
        room = max(1, width - LABEL - len("  1.05 Mbit/s"))
        line = Text(f"{label}, last {span}".ljust(LABEL)).append(_bar(values[-room:], highest), "cyan")
        lines.append(line.append(f"  {show(highest)}", "dim"))
    return lines


def _bar(values: Sequence[float | None], highest: float) -> str:
    return "".join(UNKNOWN if each is None else trace([each], highest) for each in values)


def _counted(port: Json) -> RenderableType:
    """Return what is not zero, two columns."""
    rows = [(f"{way} {what}", port[way][what]) for way in ("rx", "tx") for what in ("frames", "bytes")]
    rows += [("flooded", port["flooded"])]
    rows += [(f"drops {word}", count) for word, count in port["drops"].items()]
    rows += [(word, count) for group in ("filtered", "retries") for word, count in port[group].items()]
    cells = [[word, exact(count)] for word, count in rows if count]
    columns = (Column("counted", False), Column(""))
    return tables.table(columns, cells) if cells else Text("nothing was counted")
