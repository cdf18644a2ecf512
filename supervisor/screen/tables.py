"""Answers of the supervisor as text for a person: pure functions from a dictionary to something to print.

Numbers stand to the right, so that their lengths can be compared. What a person looks for first, a
stalled VM and drops, is coloured; text that came from outside is never read as markup.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from forwarder import counted
from supervisor.ports.settings import shown
from supervisor.screen.figures import duration, exact, octets, percent

Json = dict[str, Any]
Cells = Sequence[str | Text]
GAP = 2
"""Blanks between two columns."""

PLAIN_WIDTH = 200
"""Columns where the output is no terminal: enough for every table, so that nothing is cut out of a file."""
STATE_STYLES = {"live": "green", "stalled": "bold white on red", "parked": "bold red", "silent": "bold red"}
"""What a state looks like; all others are on their way from one to another."""
OTHER_STATE_STYLE = "yellow"


class Column(NamedTuple):
    """One column: its heading, and whether it holds figures."""

    heading: str
    figures: bool = True
    style: str = ""


def console_for(file: TextIO | None = None) -> Console:
    """Make a console that fits a terminal and cuts nothing elsewhere."""
    file = file or sys.stdout
    width = None if file.isatty() else PLAIN_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def table(columns: Iterable[Column], rows: Iterable[Cells]) -> Table:
    """Put rows under columns: no lines but one under the headings, as every such command prints it."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column in columns:
        justify: JustifyMethod = "right" if column.figures else "left"
        made.add_column(column.heading, justify=justify, style=column.style, no_wrap=True, vertical="bottom")
    for row in rows:
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def width(columns: Sequence[Column], rows: Sequence[Cells]) -> int:
    """Say how many columns of the terminal a table takes."""
    lines = [column.heading.splitlines() or [""] for column in columns]
    headings = [max(map(cell_len, each)) for each in lines]
    cells = [[cell_len(str(row[index])) for row in rows] for index in range(len(columns))]
    return sum(max(heading, *below) for heading, below in zip(headings, cells, strict=True)) + GAP * len(
        columns
    )


def state(port: Json) -> Text:
    """Name a port's state; a stalled VM is what a person looks for first."""
    word = "stalled" if port["stalled"] else port["state"]
    return Text(word, style=STATE_STYLES.get(word, OTHER_STATE_STYLE))


def alarming(value: int | None, text: str) -> Text:
    """Redden a figure that should be zero."""
    return Text(text, style="red" if value else "")


def head(answer: Json) -> Text:
    """Write the line above every table: which switch, how far, how long."""
    return Text(
        f"epoch {answer['epoch']}   sequence {answer['sequence']}   up {duration(answer['uptime_s'])}",
        style="dim",
    )


_PORT = (Column("port"), Column("name", False), Column("via", False), Column("state", False))


def _port(port: Json) -> list[str | Text]:
    return [str(port["port"]), port["name"], port["transport"], state(port)]


def confinement(cell: Json) -> Text:
    """Say what confines workers, and what is missing."""
    parts = [
        f"{part} (ABI {cell['landlock_abi']})" if part == "landlock" else part for part in cell["in_force"]
    ]
    said = Text(
        f"workers are confined by {', '.join(parts) or 'nothing'}" if parts else "no worker is ready yet"
    )
    if parts and cell["missing"]:
        said.append(f"; missing: {', '.join(cell['missing'])}", style="yellow")
    return said


def status(answer: Json) -> RenderableType:
    """``supervisor status``."""
    columns = (
        *_PORT,
        Column("up"),
        Column("worker"),
        Column("epoch"),
        Column("restarts"),
        Column("MACs", False),
    )
    rows = [
        [
            *_port(port),
            duration(port["since_s"]),
            str(port["worker"]["pid"] or "-"),
            str(port["worker"]["epoch"]),
            alarming(port["worker"]["restarts"], str(port["worker"]["restarts"])),
            " ".join(port["macs"]) or "-",
        ]
        for port in answer["ports"]
    ]
    notes = [
        Text(f"{port['name']}: {note}", style="yellow") for port in answer["ports"] for note in port["notes"]
    ]
    listeners = [Text(f"{each['transport']} VMs attach at {each['url']}") for each in answer["listeners"]]
    return Group(
        Text(answer["name"], style="bold"),
        head(answer),
        *listeners,
        confinement(answer["supervisor"]["cell"]),
        Text(),
        table(columns, rows) if rows else Text("no ports"),
        *notes,
    )


def macs(answer: Json) -> RenderableType:
    """``supervisor macs``."""
    columns = (Column("MAC", False), Column("port"), Column("name", False), Column("age"), Column("", False))
    rows = [
        [row["mac"], str(row["port"]), row["name"], duration(row["age_s"]), "pinned" if row["pinned"] else ""]
        for row in answer["macs"]
    ]
    return table(columns, rows) if rows else Text("no MAC addresses")


def leases(answer: Json) -> RenderableType:
    """``supervisor leases``."""
    columns = (
        Column("address", False),
        Column("MAC", False),
        Column("port"),
        Column("name", False),
        Column("known as", False),
        Column("state", False),
        Column("ends in"),
    )
    rows = [
        [
            row["address"],
            row["mac"],
            str(row["port"] or "-"),
            row["port_name"] or "-",
            row["name"] or "-",
            row["state"],
            "-" if row["expires_s"] is None else duration(row["expires_s"]),
        ]
        for row in answer["leases"]
    ]
    return table(columns, rows) if rows else Text("no leases")


def settings(answer: Json) -> RenderableType:
    """``supervisor show``."""
    columns = (Column("setting", False), Column(answer["name"], False))
    return table(columns, [[key, value or "-"] for key, value in shown(answer["settings"])])


def stats(answer: Json) -> RenderableType:
    """``supervisor stats``: what was counted, then what the processes cost."""
    parts: list[RenderableType] = [head(answer), Text()]
    if answer["ports"]:
        parts += [_frames(answer), Text(), _drops(answer), Text()]
    if answer["gateway"] is not None:
        parts += [_gateway(answer["gateway"]), Text()]
    return Group(*parts, _processes(answer))


def _frames(answer: Json) -> Table:
    columns = (*_PORT, *map(Column, ("rx frames", "rx bytes", "tx frames", "tx bytes", "flooded", "queue")))
    return table(
        columns,
        [
            [
                *_port(port),
                *(exact(port[way][what]) for way in ("rx", "tx") for what in ("frames", "bytes")),
                exact(port["flooded"]),
                octets(port["egress_queue_bytes"]),
            ]
            for port in answer["ports"]
        ],
    )


def _drops(answer: Json) -> Table:
    reasons = list(answer["departed"]["drops"])
    others = [(group, name) for group in ("filtered", "retries") for name in answer["ports"][0][group]]
    columns = (
        Column("port"),
        Column("name", False),
        *map(Column, [f"drops\n{reason}" for reason in reasons]),
    )
    rows = [
        [
            str(port["port"]),
            port["name"],
            *(alarming(port["drops"][reason], exact(port["drops"][reason])) for reason in reasons),
            *(exact(port[group][name]) for group, name in others),
        ]
        for port in answer["ports"]
    ]
    gone = answer["departed"]
    if gone["ports"]:
        rows.append(
            [
                "-",
                f"({gone['ports']} departed)",
                *(alarming(gone["drops"][reason], exact(gone["drops"][reason])) for reason in reasons),
                *("-" for _ in others),
            ]
        )
    return table((*columns, *map(Column, [f"{group}\n{name}" for group, name in others])), rows)


def _gateway(gateway: Json) -> Table:
    """Write a line for each flow and refusal of the gateway, and for what else is not zero."""
    columns = (Column(f"gateway ({gateway['state']})", False), Column(""), Column("", False, "dim"))
    groups = {
        "flows": counted.FLOWS,
        "refused": counted.REFUSED,
        "relayed": counted.RELAYED,
        "served": counted.SERVED,
    }
    return table(
        columns,
        [
            [
                f"{group} {word}",
                alarming(value if group == "refused" else 0, exact(value)),
                meanings.get(word, ""),
            ]
            for group, meanings in groups.items()
            for word, value in gateway.get(group, {}).items()
            if value or group in ("flows", "refused")
        ],
    )


def _processes(answer: Json) -> Table:
    figures = ("CPU %", "CPU s", "RSS", "PSS", "threads", "fds", "switches", "restarts")
    columns = (Column("process", False), Column("pid"), *map(Column, figures))
    workers = [(port["name"], port["worker"]) for port in answer["ports"]]
    rows = [
        [
            name,
            str(process["pid"] or "-"),
            percent(process["cpu_percent"]),
            "-" if process["cpu_seconds"] is None else f"{process['cpu_seconds']:,.2f}",
            octets(process["rss_bytes"]),
            octets(process["pss_bytes"]),
            exact(process["threads"]),
            exact(process["fds"]),
            exact(process["ctx_switches"]),
            exact(process.get("restarts")),
        ]
        for name, process in [("supervisor", answer["supervisor"]), *workers]
    ]
    return table(columns, rows)
