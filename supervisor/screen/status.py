"""``supervisor status``: problems first, then the ports with their addresses, then the listeners."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from supervisor.screen import tables
from supervisor.screen.figures import duration
from supervisor.screen.grid import Column
from supervisor.screen.tables import Cells, Json, alarming, state, worst_first
from supervisor.screen.visible import visible
from supervisor.screen.words import STATES

MOST_TROUBLES = 10
"""Most sentences about problems: a person does not read more."""
MOST_ADDRESSES = 4
"""Most addresses of one port; ``supervisor macs`` has all."""


def status(answer: Json, room: int, *, everything: bool = False) -> RenderableType:
    """Draw the answer in ``room`` columns of the terminal; ``everything``: also figures for bug reports."""
    title = Text(visible(answer["name"]), style="bold").append("   ")
    title.append_text(tables.head(answer, everything=everything))
    said = list(_troubles(answer))
    more = len(said) - MOST_TROUBLES
    lines = [Text(visible(sentence), style="red") for sentence in said[:MOST_TROUBLES]]
    if more > 0:
        lines.append(Text(f"and {more} more; `supervisor status --json` has all notes", style="red"))
    listeners = [
        Text(f"{each['transport']} VMs attach at {visible(each['url'])}") for each in answer["listeners"]
    ]
    ports = tables.blocks(*_ports(answer, everything=everything), 2, room) if answer["ports"] else []
    parts: list[RenderableType] = [title, *lines, Text(), *ports, Text() if ports else Text(end="")]
    return Group(*parts, *listeners, confinement(answer["supervisor"]["cell"]))


def _ports(answer: Json, *, everything: bool) -> tuple[list[Column], list[Cells]]:
    columns = [
        Column("port"),
        Column("name", False),
        Column("via", False),
        Column("state", False),
        Column("up"),
        Column("addresses", False, whole=True),
    ]
    rows: list[Cells] = []
    restarted = everything or any(port["worker"]["restarts"] for port in answer["ports"])
    for port in worst_first(answer["ports"]):
        row: list[str | Text] = [str(port["port"]), port["name"], port["transport"], state(port)]
        row += [duration(port["since_s"]), _addresses(port)]
        if restarted:
            row.append(alarming(port["worker"]["restarts"], str(port["worker"]["restarts"])))
        if everything:
            row += [str(port["worker"]["pid"] or "-"), str(port["worker"]["epoch"])]
        rows.append(row)
    columns += [Column("restarts")] if restarted else []
    columns += [Column("worker"), Column("epoch")] if everything else []
    return columns, rows


def _addresses(port: Json) -> Text:
    """Return IP addresses, then MAC addresses, a line each, as many as a person reads."""
    known = [*port["addresses"], *port["macs"]]
    lines = known[:MOST_ADDRESSES]
    if len(known) > MOST_ADDRESSES:
        lines.append(f"and {len(known) - MOST_ADDRESSES} more")
    return Text("\n".join(map(visible, lines)) or "-")


def _troubles(answer: Json) -> Iterator[str]:
    gateway = answer["gateway"]
    if gateway is not None and gateway["state"] != "live":
        yield f"the gateway is {gateway['state']}: {STATES[gateway['state']]}"
    for port in worst_first(answer["ports"]):
        word = state(port).plain
        if word != "live":
            yield f"{port['name']} is {word}: {STATES[word]}"
        for note in port["notes"]:
            yield f"{port['name']}: {note}"
    if answer["lost_log_lines"]:
        yield f"{answer['lost_log_lines']} lines of the log were lost, because nothing reads it"


def confinement(cell: Json) -> Text:
    """Say what confines workers and the other processes, and what is missing."""
    if not cell["in_force"]:
        return Text("no worker is ready yet")
    processes = {"workers": cell, **cell["others"]}
    alike: dict[tuple[str, str], list[str]] = {}
    for process, each in processes.items():
        alike.setdefault(_confined(each), []).append(process)
    lines = []
    for (parts, missing), names in alike.items():
        verb = "is" if len(names) == 1 and names != ["workers"] else "are"
        line = Text(f"{_listed(names)} {verb} confined by {parts}")
        lines.append(line.append(f"; missing: {missing}", style="yellow") if missing else line)
    return Text("\n").join(lines)


def _confined(cell: Json) -> tuple[str, str]:
    """Return the parts of a cell that are in force, and those that are missing."""
    parts = [
        f"{part} (ABI {cell['landlock_abi']})" if part == "landlock" else part for part in cell["in_force"]
    ]
    return ", ".join(parts) or "nothing", ", ".join(cell["missing"])


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
