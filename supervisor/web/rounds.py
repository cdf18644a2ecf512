"""Ask the switch for the page: a round of questions each second.

Theory of operation
-------------------
``Rounds.ask`` is called once a second and returns news as (name, data):

    live       each second: a row for each port with its rates, the pairs of ports that talk, the gateway
    ports      names, addresses, settings, processes: after the switch has reported a change, and
               now and then, since addresses are learned and processes grow without a change
    happened   new events
    away       the switch does not answer, and the reason

Cheap questions are asked often. ``stats`` reads each worker's process, 0.15 ms each, so it is asked every
``STATS_S``, and less often with many ports.

A switch that was restarted has another epoch. Its counters are not compared with earlier ones, and its events
are read from the beginning (``happened`` then has ``anew``).

Example, two VMs: live, live with ports (a VM has come), live and happened, live, …, away, away, live with
ports and all events.

Runs in one thread; ``question`` may block while the switch hangs.
"""

from collections.abc import Callable
from typing import Any

from forwarder.errors import BulkheadError
from supervisor.console.facts import leases
from supervisor.web.weighing import Weighing

Json = dict[str, Any]
Ask = Callable[..., Any]
Update = tuple[str, Json]

STATUS_S = 10.0
STATS_S = 10.0
STATS_PER_PORT_S = 0.15
"""At 0.15 ms for a process, 0.1 % of a core."""
KEPT = ("port", "name", "transport", "since_s", "macs", "addresses", "settings", "notes")
"""Of a port's ``status``."""
RATES = ("rx_bytes", "tx_bytes", "rx_frames", "tx_frames")


class Rounds:
    """The questions to one switch, and its last answers."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._weighing = Weighing()
        self._epoch = ""
        self._sequence = -1
        self._then: tuple[float, dict[int, Json]] = (0.0, {})
        """The switch's time of the last ``live``, and its rows by port."""
        self._after = 0
        self._status_at = self._stats_at = 0.0
        self._processes: dict[int, Json] = {}
        self._gateway: Json | None = None
        """The port's counters at that time."""

    def ask(self, now: float) -> list[Update]:
        """Ask the questions that are due at ``now`` (monotonic seconds); return the news."""
        try:
            return list(self._round(now))
        except BulkheadError as error:
            self._epoch = ""
            return [("away", {"error": str(error)})]
        except (KeyError, TypeError, ValueError):
            self._epoch = ""
            return [("away", {"error": "the switch is of another version than this page"})]

    def _round(self, now: float) -> list[Update]:
        live = self._ask("live")
        anew = live["epoch"] != self._epoch
        if anew:
            self._epoch, self._sequence, self._after = live["epoch"], -1, 0
            self._then, self._status_at, self._stats_at = (0.0, {}), 0.0, 0.0
        found = []
        if live["sequence"] != self._sequence or now >= self._status_at:
            self._sequence, self._status_at = live["sequence"], now + STATUS_S
            found.append(("ports", self._ports(now)))
        found.append(("live", self._rates(live)))
        events = self._events()
        if events or anew:
            found.append(("happened", {"anew": anew, "events": events}))
        return found

    def _rates(self, live: Json) -> Json:
        rows = [dict(zip(live["columns"], row, strict=True)) for row in live["ports"]]
        then, before = self._then
        passed = live["uptime_s"] - then
        for row in rows:
            past = before.get(row["port"], row)
            row["drops_s"] = _rate(sum(row["drops"].values()), sum(past["drops"].values()), passed)
            row["rates"] = [_rate(row[name], past[name], passed) for name in RATES]
        self._then = live["uptime_s"], {row["port"]: row for row in rows}
        kept = ("port", "state", "stalled", "rates", "queue", "drops", "drops_s")
        shown = [[row[name] for name in kept] for row in rows]
        return {key: live[key] for key in ("uptime_s", "talks", "gateway")} | {"ports": shown}

    def _ports(self, now: float) -> Json:
        status = self._ask("status")
        if now >= self._stats_at:
            stats = self._weighing.stats(self._ask)
            self._stats_at = now + max(STATS_S, STATS_PER_PORT_S * len(stats["ports"]))
            self._processes = {row["port"]: row["worker"] for row in stats["ports"]}
            self._gateway = stats["gateway"]
        gateway = status["gateway"]
        known = leases(self._ask) if gateway is not None and gateway["state"] == "live" else []
        ports = [
            {key: row[key] for key in KEPT} | {"worker": self._processes.get(row["port"], {}) | row["worker"]}
            for row in status["ports"]
        ]
        head = {key: status[key] for key in ("name", "version", "uptime_s", "listeners")}
        return head | {"ports": ports, "leases": known, "gateway": self._gateway}

    def _events(self) -> list[Json]:
        events: list[Json] = []
        while more := self._ask("events", after=self._after)["events"]:
            events += more
            self._after = more[-1]["sequence"]
        return events


def _rate(now: int, before: int, passed: float) -> int:
    """Return the growth per second; 0 if the counter has begun again."""
    return round((now - before) / passed) if passed > 0 and now > before else 0
