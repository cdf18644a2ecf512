"""Two answers of ``supervisor stats`` become rates, and rates over time become bars.

Theory of operation
-------------------
``Trail`` takes one answer after another and is the only thing with a memory: the answer before and, for each
port, the last ``TRACE`` rates for its trace. It begins with what the history of the switch knows. ``changes``
is pure.

Rates are measured between the supervisor's own time stamps, so a slow answer does not distort them. A port
is the same port in both answers if it is older than the time between them; anything else (a new port under an
old number, another supervisor) has no rate yet, and no rate is not a rate of zero.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from supervisor.screen.tables import Json

TRACE = 16
"""Rates kept of each port: as many as the trace has columns."""
_BARS = "▁▂▃▄▅▆▇█"


class Rates(NamedTuple):
    """What passed in one second between two answers."""

    frames_in: float
    bits_in: float
    frames_out: float
    bits_out: float
    drops: float


NOTHING = Rates(0.0, 0.0, 0.0, 0.0, 0.0)


class Row(NamedTuple):
    """One port at one moment."""

    port: Json
    rates: Rates | None
    trace: str
    """The last rates as bars, all ports to one scale."""


def changes(previous: Json | None, current: Json) -> list[tuple[Json, Rates | None]]:
    """Pair each port of ``current`` with its rates since ``previous``, None where there are none yet."""
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
    if all(then[what] is now[what] for what in ("rx", "tx", "drops")):  # nothing has been counted
        return NOTHING

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
    """Add up what is known."""
    known = [each for each in rates if each is not None]
    return Rates(*map(sum, zip(*known, strict=True))) if known else Rates(0, 0, 0, 0, 0)


class Trail:
    """What has been seen so far: the answer before, and each port's last rates (bounded by its ports)."""

    def __init__(self) -> None:
        self._previous: Json | None = None
        self._traces: dict[int, deque[float]] = {}

    def remember(self, past: Iterable[Json]) -> None:
        """Begin with what the history of each port says of the last minute."""
        for port in past:
            pairs = zip(port["rx_bytes"], port["tx_bytes"], strict=True)
            known = [8 * (rx + tx) / port["seconds"] for rx, tx in pairs if rx is not None and tx is not None]
            self._traces[port["port"]] = deque(known, maxlen=TRACE)

    def follow(self, current: Json) -> list[Row]:
        """Take the next answer and say what it means."""
        changed = changes(self._previous, current)
        traces: dict[int, deque[float]] = {}
        for port, rates in changed:
            kept: deque[float] = deque(maxlen=TRACE)
            if rates is not None or self._previous is None:
                kept = self._traces.get(port["port"], kept)
            if rates is not None:
                kept.append(rates.bits_in + rates.bits_out)
            traces[port["port"]] = kept
        self._previous, self._traces = current, traces
        highest = max((value for kept in traces.values() for value in kept), default=0.0)
        return [Row(port, rates, trace(traces[port["port"]], highest)) for port, rates in changed]


def trace(values: Collection[float], highest: float) -> str:
    """Draw rates as bars; ``highest`` is a full one, and only no traffic at all is an empty column."""
    if not any(values):
        return " " * len(values)
    steps = len(_BARS) - 1
    return "".join(_BARS[round(steps * value / highest)] if value else " " for value in values)
