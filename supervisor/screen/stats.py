"""``supervisor stats``: counters, then the cost of processes.

A column of zeros is left out, and so is a port without drops from the table of drops, unless ``everything``
is asked for. So every shown column means something.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from forwarder import counted
from supervisor.screen import tables
from supervisor.screen.figures import duration, exact, octets, percent
from supervisor.screen.grid import Column
from supervisor.screen.tables import Json, alarming, state, worst_first

GATEWAY = {
    "flows": counted.FLOWS,
    "refused": counted.REFUSED,
    "relayed": counted.RELAYED,
    "served": counted.SERVED,
}


class _Figure(NamedTuple):
    """One column of figures."""

    heading: str
    value: Callable[[Json], float | None]
    show: Callable[[float | None], str]
    always: bool = False
    """Whether to show it also if all figures are zero."""


def _count(value: float | None) -> str:
    return exact(None if value is None else int(value))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _traffic(way: str, what: str) -> Callable[[Json], float | None]:
    return lambda port: port[way][what]


def _of(group: str, word: str) -> Callable[[Json], float | None]:
    return lambda port: port[group][word]


_FRAMES = (
    _Figure("rx\nframes", _traffic("rx", "frames"), _count, always=True),
    _Figure("rx\nbytes", _traffic("rx", "bytes"), _count, always=True),
    _Figure("tx\nframes", _traffic("tx", "frames"), _count, always=True),
    _Figure("tx\nbytes", _traffic("tx", "bytes"), _count, always=True),
    _Figure("queue", lambda port: port["egress_queue_bytes"], octets),
    _Figure("flooded", lambda port: port["flooded"], _count),
    _Figure("filtered", _of("filtered", "filtered"), _count),
    _Figure("hairpin", _of("filtered", "hairpin"), _count),
    _Figure("eagain", _of("retries", "eagain"), _count),
    _Figure("enobufs", _of("retries", "enobufs"), _count),
)


def _memory(process: Json) -> float | None:
    pss: int | None = process["pss_bytes"]
    return process["rss_bytes"] if pss is None else pss


_PROCESSES = (
    _Figure("CPU %", lambda process: process["cpu_percent"], percent, always=True),
    _Figure("CPU s", lambda process: process["cpu_seconds"], _seconds, always=True),
    _Figure("memory", _memory, octets, always=True),
    _Figure("restarts", lambda process: process.get("restarts"), _count),
)
_MORE_OF_PROCESSES = (
    _Figure("RSS", lambda process: process["rss_bytes"], octets),
    _Figure("PSS", lambda process: process["pss_bytes"], octets),
    _Figure("threads", lambda process: process["threads"], _count),
    _Figure("fds", lambda process: process["fds"], _count),
    _Figure("switches", lambda process: process["ctx_switches"], _count),
)


def stats(answer: Json, room: int, *, everything: bool = False) -> RenderableType:
    """Draw the answer in ``room`` columns of the terminal."""
    parts: list[RenderableType] = [_head(answer, everything=everything), Text()]
    if answer["ports"]:
        parts += [*_frames(answer, room, everything=everything), Text()]
    if answer["ports"] or answer["departed"]["ports"]:
        parts += [*_drops(answer, room, everything=everything), Text()]
    if answer["gateway"] is not None:
        parts += [_gateway(answer["gateway"], everything=everything), Text()]
    return Group(*parts, *_processes(answer, room, everything=everything))


def _head(answer: Json, *, everything: bool) -> Text:
    said = tables.head(answer, everything=everything)
    since = answer.get("since_s")
    return said if since is None else said.append(f"   counted in the last {duration(since)}")


def _shown(figures: Sequence[_Figure], rows: Sequence[Json], *, everything: bool) -> list[_Figure]:
    return [
        figure for figure in figures if everything or figure.always or any(figure.value(row) for row in rows)
    ]


def _frames(answer: Json, room: int, *, everything: bool) -> list[RenderableType]:
    ports = worst_first(answer["ports"])
    figures = _shown(_FRAMES, ports, everything=everything)
    columns = [
        Column("port"),
        Column("name", False),
        Column("state", False),
        *(Column(each.heading) for each in figures),
    ]
    rows = [
        [
            str(port["port"]),
            port["name"],
            state(port),
            *(each.show(each.value(port)) for each in figures),
        ]
        for port in ports
    ]
    return tables.blocks(columns, rows, 2, room)


def _drops(answer: Json, room: int, *, everything: bool) -> list[RenderableType]:
    gone = answer["departed"]
    lost = [port for port in worst_first(answer["ports"]) if everything or any(port["drops"].values())]
    counted_rows = [port["drops"] for port in lost] + [gone["drops"]]
    reasons = [
        reason for reason in gone["drops"] if everything or any(row.get(reason) for row in counted_rows)
    ]
    if not reasons:
        return [Text("no frame was dropped")]
    columns = [Column("port"), Column("drops", False), *(Column(reason) for reason in reasons)]

    def row(number: str, name: str, drops: Json) -> list[str | Text]:
        return [
            number,
            name,
            *(alarming(drops.get(each, 0), exact(drops.get(each, 0))) for each in reasons),
        ]

    rows = [row(str(port["port"]), port["name"], port["drops"]) for port in lost]
    if gone["ports"] and (everything or any(gone["drops"].values())):
        rows.append(row("-", f"({gone['ports']} departed)", gone["drops"]))
    return tables.blocks(columns, rows, 2, room)


def _gateway(gateway: Json, *, everything: bool) -> RenderableType:
    """Return a line for each flow of the gateway, and for other counters above zero."""
    columns = (Column(f"gateway ({gateway['state']})", False), Column(""), Column("", False, "dim"))
    return tables.table(
        columns,
        [
            [
                f"{group} {word}",
                alarming(value if group == "refused" else 0, exact(value)),
                meanings.get(word, ""),
            ]
            for group, meanings in GATEWAY.items()
            for word, value in gateway.get(group, {}).items()
            if value or everything or group == "flows"
        ],
    )


def _processes(answer: Json, room: int, *, everything: bool) -> list[RenderableType]:
    processes = [("supervisor", answer["supervisor"])]
    processes += [(other["name"], other) for other in answer["others"]]
    processes += [(port["name"], port["worker"]) for port in worst_first(answer["ports"])]
    wanted = (*_PROCESSES, *_MORE_OF_PROCESSES) if everything else _PROCESSES
    figures = _shown(wanted, [process for _, process in processes], everything=everything)
    columns = [Column("process", False), Column("pid"), *(Column(each.heading) for each in figures)]
    rows = [
        [name, str(process["pid"] or "-"), *(each.show(each.value(process)) for each in figures)]
        for name, process in processes
    ]
    return tables.blocks(columns, rows, 2, room)
