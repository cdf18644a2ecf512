"""What the keys of ``supervisor top`` do: pure, from what is shown and a key to what is shown next.

    ? help    Enter one port in detail    Esc back    j k or arrows choose a port
    p n i o d u c  sort by port, name, in, out, drops, queue, CPU; the same key again turns the order round

Keys come from a terminal as bytes: an arrow is three of them, and what is no key of ours does nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from supervisor.screen.rates import Row, dropped

QUIT = frozenset({"q", "Q", "\x03", "\x04"})
BACK = "\x1b"
ENTER = frozenset({"\r", "\n"})
UP, DOWN = frozenset({"\x1b[A", "\x1bOA", "k"}), frozenset({"\x1b[B", "\x1bOB", "j"})
HELP = "?"

SORTS = {
    "w": "what is wrong",
    "p": "port",
    "n": "name",
    "i": "in",
    "o": "out",
    "d": "drops",
    "u": "queue",
    "c": "CPU",
}
"""By key: what rows are sorted by. The first is how ``top`` begins."""
FALLING = frozenset("iodcu")
"""Keys of figures of which the greatest comes first."""


class View(NamedTuple):
    """What is shown."""

    sort: str = "w"
    turned: bool = False
    """Whether the order is the other way round."""
    port: int = 0
    """The chosen port; 0: the first row."""
    detail: bool = False
    help: bool = False


FIRST = View()
"""How ``top`` begins."""


def press(view: View, key: str, shown: Sequence[Row]) -> View:
    """Return what is shown after a key; ``shown`` are the rows in their order."""
    if view.help or key == HELP:
        view = view._replace(help=not view.help)
    elif key == BACK:
        view = view._replace(detail=False)
    elif key in ENTER:
        view = view._replace(port=chosen(view, shown), detail=not view.detail and bool(shown))
    elif key in UP or key in DOWN:
        view = view._replace(port=_step(view, shown, -1 if key in UP else 1))
    elif key in SORTS:
        view = view._replace(sort=key, turned=key == view.sort and not view.turned)
    return view


def chosen(view: View, shown: Sequence[Row]) -> int:
    """Return the number of the port that is chosen; 0: there is none."""
    numbers = [row.port["port"] for row in shown]
    return view.port if view.port in numbers else numbers[0] if numbers else 0


def _step(view: View, shown: Sequence[Row], by: int) -> int:
    numbers = [row.port["port"] for row in shown]
    if not numbers:
        return 0
    place = numbers.index(chosen(view, shown)) + by
    return int(numbers[min(max(place, 0), len(numbers) - 1)])


def ordered(view: View, rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order that is wanted; equal ones by number."""
    by_number = sorted(rows, key=_FIGURES["p"])
    return sorted(by_number, key=_FIGURES[view.sort], reverse=(view.sort in FALLING) != view.turned)


_FIGURES: dict[str, Callable[[Row], Any]] = {
    "w": lambda row: row.port["state"] == "live" and not row.port["stalled"],
    "p": lambda row: row.port["port"],
    "n": lambda row: row.port["name"],
    "i": lambda row: row.rates.bits_in if row.rates else 0.0,
    "o": lambda row: row.rates.bits_out if row.rates else 0.0,
    "d": lambda row: dropped(row.port),
    "u": lambda row: row.port["egress_queue_bytes"],
    "c": lambda row: row.port["worker"]["cpu_percent"] or 0.0,
}
"""By key: what rows are compared by."""


def split(data: bytes) -> Iterator[str]:
    """Yield the keys that a terminal has sent."""
    text = data.decode("ascii", "ignore")
    while text:
        size = 3 if text[:2] in ("\x1b[", "\x1bO") else 1
        yield text[:size]
        text = text[size:]
