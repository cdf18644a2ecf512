"""Tables as operators read them, and the small ones: pure functions from an answer to text.

Theory of operation
-------------------
Numbers are aligned to the right, so that their lengths can be compared. Stalled VMs and drops, which a person
looks for first, are coloured. Text from outside is never read as markup, and its control characters are
replaced (``visible``).

A figure is never cut: a cut figure is a wrong one. ``blocks`` makes several tables of one that is too wide,
each with the columns that name the row. A name that is too long even for that is folded.

    80 columns for   port name | rx frames  rx bytes  tx frames  tx bytes | flooded  queue
    become           port name   rx frames  rx bytes  tx frames  tx bytes
                     port name   flooded  queue
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.text import Text

from supervisor.ports.settings import shown
from supervisor.screen.figures import duration
from supervisor.screen.grid import Cell, Column, Grid, total, widths
from supervisor.screen.visible import visible

Json = dict[str, Any]
Cells = Sequence[Cell]
LEAST_NAME = 12
"""A name gets a third of the terminal, or so many columns, before others go to another table."""

PLAIN_WIDTH = 200
"""Columns if the output is not a terminal: enough for every table, so that nothing is cut in a file."""
USUAL_ROOM = 80
"""Columns of the layout if the output is not a terminal."""
STATE_STYLES = {"live": "green", "stalled": "bold white on red", "parked": "bold red", "silent": "bold red"}
"""The style of each state; other states are transitions."""
OTHER_STATE_STYLE = "yellow"
MOST_DIGITS = 4
"""Of a number of columns."""


def console_for(file: TextIO | None = None) -> Console:
    """Make a console that fits the terminal, and cuts nothing if there is none."""
    file = file or sys.stdout
    width = None if file.isatty() else PLAIN_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def room(console: Console) -> int:
    """Return the number of columns for the layout."""
    if console.is_terminal:
        return console.width
    said = os.environ.get("COLUMNS", "")
    return int(said) if said.isdecimal() and len(said) <= MOST_DIGITS and int(said) else USUAL_ROOM


def table(columns: Sequence[Column], rows: Iterable[Cells], room: int | None = None) -> Grid:
    """Make a table of rows, with one line under the headings."""
    safe = [[visible(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    return Grid(columns, safe, room)


def blocks(
    columns: Sequence[Column], rows: Sequence[Cells], keys: int, available: int
) -> list[RenderableType]:
    """Return tables that take at most ``available`` columns of the terminal, a blank line between two.

    Each begins with the first ``keys`` columns.
    """
    most = max(LEAST_NAME, available // 3)
    wanted = [
        min(wide, most) if column.folds else wide
        for column, wide in zip(columns, widths(columns, rows), strict=True)
    ]
    chosen: list[list[int]] = [[]]
    for index in range(keys, len(columns)):
        wider = [*range(keys), *chosen[-1], index]
        if chosen[-1] and total([wanted[each] for each in wider]) > available:
            chosen.append([])
        chosen[-1].append(index)
    made: list[RenderableType] = []
    for each in chosen:
        picked = [*range(keys), *each]
        body = [[row[index] for index in picked] for row in rows]
        made += [table([columns[index] for index in picked], body, available), Text()]
    return made[:-1]


def stacked(columns: Sequence[Column], rows: Sequence[Cells], available: int) -> RenderableType:
    """Return one table, or several that each begin with the first column where one is too wide."""
    return Group(*blocks(columns, rows, 1, available))


def state(port: Json) -> Text:
    """Return a port's state; stalled replaces it, since a person looks for it first."""
    word = "stalled" if port["stalled"] else port["state"]
    return Text(word, style=STATE_STYLES.get(word, OTHER_STATE_STYLE))


def alarming(value: int | None, text: str) -> Text:
    """Redden a figure that should be zero."""
    return Text(text, style="red" if value else "")


def worst_first(ports: Iterable[Json]) -> list[Json]:
    """Return ports with problems first, then by number."""
    return sorted(ports, key=lambda port: (state(port).plain == "live", port["port"]))


def head(answer: Json, *, everything: bool) -> Text:
    """Return the line above every table: number of ports, their states, uptime."""
    states: dict[str, int] = {}
    for port in worst_first(answer["ports"]):
        word = state(port).plain
        states[word] = states.get(word, 0) + 1
    count = len(answer["ports"])
    made = Text(f"{count or 'no'} {'port' if count == 1 else 'ports'}")
    for index, (word, number) in enumerate(states.items()):
        made.append(", " if index else ": ").append(f"{number} ")
        made.append(word, STATE_STYLES.get(word, OTHER_STATE_STYLE))
    made.append(f"   up {duration(answer['uptime_s'])}")
    if everything:
        made.append(f"   epoch {answer['epoch']}   sequence {answer['sequence']}", "dim")
    return made


def macs(answer: Json, room: int) -> RenderableType:
    """``supervisor macs``."""
    columns = (
        Column("MAC", False, whole=True),
        Column("port"),
        Column("name", False),
        Column("age"),
        Column("", False),
    )
    rows = [
        [row["mac"], str(row["port"]), row["name"], duration(row["age_s"]), "pinned" if row["pinned"] else ""]
        for row in answer["macs"]
    ]
    return stacked(columns, rows, room) if rows else Text("no MAC addresses")


def leases(answer: Json, room: int) -> RenderableType:
    """``supervisor leases``."""
    columns = (
        Column("address", False, whole=True),
        Column("MAC", False, whole=True),
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
            "-" if row["name"] == row["mac"].replace(":", "-") else row["name"] or "-",
            row["state"],
            "-" if row["expires_s"] is None else duration(row["expires_s"]),
        ]
        for row in answer["leases"]
    ]
    return stacked(columns, rows, room) if rows else Text("no leases")


def settings(answer: Json) -> RenderableType:
    """``supervisor show``."""
    columns = (Column("setting", False), Column(visible(answer["name"]), False))
    return table(columns, [[key, value or "-"] for key, value in shown(answer["settings"])])


def running(answer: list[Json], room: int) -> RenderableType:
    """``supervisor list``."""
    columns = (
        Column("name", False),
        Column("state", False),
        Column("ports"),
        Column("up"),
        Column("directory", False),
    )
    rows = [
        [
            each["name"] or "-",
            Text(each["state"], STATE_STYLES.get(each["state"], OTHER_STATE_STYLE)),
            "-" if each["ports"] is None else str(each["ports"]),
            duration(each["uptime_s"]),
            each["runtime_dir"],
        ]
        for each in answer
    ]
    return stacked(columns, rows, room) if rows else Text("no switch of this user runs")
