"""Ask the switch for the page: a round of questions each second.

Theory of operation
-------------------
``Rounds.ask`` is called once a second and returns news as (name, data):

    live       each second: the rows of ports that have changed, with their rates (``whole``: of all ports),
               the pairs of ports that talk, the gateway
    ports      names, addresses, settings, processes: after the switch has reported a change, after an event
               (an address was learned), and now and then, since processes grow
    happened   new events
    away       the switch does not answer, and the reason

Cheap questions are asked often, and only if there may be an answer: ``live`` tells whether there is a new
event. ``stats`` reads each worker's process, 0.15 ms each, so it is asked every ``STATS_S``, and less often
with many ports.

A switch that was restarted has another epoch. Its counters are not compared with earlier ones, and its events
are read from the beginning (``happened`` then has ``anew``).

Example, two VMs: live, live with ports (a VM has come), live and happened, live, …, away, away, live with
ports and all events. A port that has stopped sending has one more row, with rates of 0.

Runs in one thread; ``question`` may block while the switch hangs.
"""

from forwarder.errors import BulkheadError
from supervisor.console.following import Ask, Following, Json, News
from supervisor.console.in_parts import leases
from supervisor.console.weighing import Weighing

Update = tuple[str, Json]

EVENT_S = 5.0
"""``status`` is asked this often at most because of events."""
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
        self._following = Following(ask)
        self._epoch = ""
        self._sequence = -1
        self._then = 0.0
        """The switch's time of the last ``live``."""
        self._rows: dict[int, Json] = {}
        """The last row of each port, with its rates."""
        self._after = 0
        self._eventful = False
        """Whether there was an event since the last ``status``."""
        self._event_at = self._stats_at = 0.0
        """When to ask ``status`` because of an event, and ``status`` and ``stats`` anyway."""
        self._processes: dict[int, Json] = {}
        self._gateway: Json | None = None
        """Its counters at that time."""

    def ask(self, now: float) -> list[Update]:
        """Ask the questions that are due at ``now`` (monotonic seconds); return the news."""
        try:
            return list(self._round(now))
        except BulkheadError as error:
            self._forget()
            return [("away", {"error": str(error)})]
        except (KeyError, TypeError, ValueError):
            self._forget()
            return [("away", {"error": "the switch is of another version than this page"})]

    def _forget(self) -> None:
        self._epoch, self._following = "", Following(self._ask)

    def _round(self, now: float) -> list[Update]:
        news = self._following.next()
        head = news.head
        anew = head["epoch"] != self._epoch
        if anew:
            self._epoch, self._sequence, self._after = head["epoch"], -1, 0
            self._then, self._rows, self._event_at, self._stats_at = 0.0, {}, 0.0, 0.0
        happened = head["event"] > self._after
        self._eventful = self._eventful or happened
        is_due = now >= (self._event_at if self._eventful else self._stats_at)
        found = []
        if head["sequence"] != self._sequence or is_due:
            self._sequence, self._eventful, self._event_at = head["sequence"], False, now + EVENT_S
            found.append(("ports", self._ports(now)))
        found.append(("live", self._rates(news)))
        if happened or anew:
            found.append(("happened", {"anew": anew, "events": self._events()}))
        return found

    def _rates(self, news: News) -> Json:
        """Return the rows that have changed, and those whose rates are over, as the page takes them."""
        passed, self._then = news.head["uptime_s"] - self._then, news.head["uptime_s"]
        before, changed = self._rows, {row["port"]: row for row in news.rows}
        if not news.whole:
            changed = {port: row for port, row in before.items() if _moves(row)} | changed
        for port, row in changed.items():
            past = before.get(port, row)
            rates = {
                "drops_s": _rate(sum(row["drops"].values()), sum(past["drops"].values()), passed),
                "rates": [_rate(row[name], past[name], passed) for name in RATES],
            }
            changed[port] = row | rates
        self._rows = changed if news.whole else before | changed
        kept = ("port", "state", "stalled", "rates", "queue", "drops", "drops_s")
        shown = [[row[name] for name in kept] for row in changed.values()]
        head = {key: news.head[key] for key in ("uptime_s", "talks", "gateway")}
        return head | {"whole": news.whole, "ports": shown}

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


def _moves(row: Json) -> bool:
    """Whether a row has a rate that is not 0."""
    return bool(row["drops_s"] or any(row["rates"]))


def _rate(now: int, before: int, passed: float) -> int:
    """Return the growth per second; 0 if the counter has begun again."""
    return round((now - before) / passed) if passed > 0 and now > before else 0
