"""Sample the ports' stats pages; ``stats`` and ``live`` make the answers.

Theory of operation
-------------------
The stats pages of all ports are looked at once a second for the history, and for each answer; processes are
sampled for a question only (``process_sampler``). No worker has to answer: its page is shared memory. So a
worker that hangs is as visible as any other.

A page that has published nothing since the last look is not read (``port_page``): of 250 idle ports some 50
pulse in a second, and each look costs the time of 250 comparisons.

``arrive`` maps a port's stats page; ``depart`` reads it for the last time and folds it into ``Departed``. The
port has readings only between the two. A restarted worker keeps the page.
"""

import time
from collections import deque
from collections.abc import Collection, Container, Iterable, Mapping
from ipaddress import IPv6Address

from forwarder import _core
from forwarder.names import Identity, PortId
from supervisor.console import live, stats
from supervisor.console.history import FIGURES, NAMES, SPANS, History, flood_lost
from supervisor.console.lost_frames import Departed, LostFrames, egress_full
from supervisor.console.port_page import PortPage
from supervisor.console.process_sampler import ProcessSampler
from supervisor.console.readings import Reading, Switch
from supervisor.console.stats import Json
from supervisor.ports.view import PortView

LOOK_S = 1.0
"""Between two looks at all pages for the history."""
MOST_LEFT = 1024
"""Ports that have left and are known one by one, for the last hour."""


def address(packed: bytes) -> str:
    """Return 16 bytes of a page as an IP address; nothing if they are all zero."""
    found = IPv6Address(packed)
    return "" if not any(packed) else str(found.ipv4_mapped or found)


class Sampler:
    """The operator's view of the switch, sampled for each question."""

    def __init__(self, history: History) -> None:
        self._pages: dict[int, PortPage] = {}
        self._due_notes: dict[int, float] = {}
        """When to note a port in the history: at once if it has counted something, and for its minute."""
        self._processes = ProcessSampler()
        self._departed = Departed()
        self._rows = live.Rows()
        self._talks = live.Talks()
        self._history = history
        self._due = 0.0
        self._lost_frames = LostFrames()
        self._left: deque[tuple[float, Reading, int]] = deque(maxlen=MOST_LEFT)
        """When a port has left, and what it had counted."""

    def arrive(self, port: int, born: int, stats: int) -> None:
        """Map the stats page of a port that has joined or was taken back. The caller closes the descriptor.

        Raises OSError if the page cannot be mapped, ValueError if it is of another version.
        """
        self._pages[port] = PortPage(born, _core.StatsPage(stats))
        self._history.arrive(port, born)

    def depart(self, port: int, *, of_gateway: bool = False) -> None:
        """Keep the counters of a leaving port and unmap its page. An unknown port is ignored."""
        if port in self._pages:
            readings = self._readings()
            full = egress_full(port, readings, self._departed)
            self._left.append((time.monotonic(), readings[port], full))
            self._departed.fold(port, readings, of_gateway=of_gateway)
            del self._pages[port]
            self._due_notes.pop(port, None)
            self._history.depart(port)
            self._lost_frames.depart(port)

    def tick(self, now: float) -> None:
        """Note in the history what ports have counted since the last look."""
        if now < self._due:
            return
        self._due = now + LOOK_S
        self._look(now)
        for port in [port for port, due in self._due_notes.items() if due <= now]:
            page = self._pages[port]
            again_at = self._history.note(port, page.counters, page.full, now)
            if again_at is None:
                del self._due_notes[port]
            else:
                self._due_notes[port] = again_at

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._due if self._pages else float("inf")

    def meet(self, identity: Identity, proc: tuple[int, ...]) -> None:
        """Keep a worker's descriptors of its own /proc."""
        self._processes.meet(identity, proc)

    def part(self, identity: Identity) -> None:
        """Close the kept descriptors of a worker that has ended."""
        self._processes.part(identity)

    def page(self, port: int) -> _core.StatsPage | None:
        """Return the stats page of a port, to read at once and not to keep; None if it has none."""
        known = self._pages.get(port)
        return known.page if known else None

    def published_at(self, port: int) -> float:
        """Return when the port's worker last published, in monotonic seconds; 0.0 if it has no page."""
        known = self._pages.get(port)
        return known.page.published_at() if known else 0.0

    def stats(
        self,
        switch: Switch,
        views: Iterable[PortView],
        now: float,
        *,
        sources: bool = False,
        weighed: Container[int] | None = None,
        since_s: float | None = None,
    ) -> Json:
        """``supervisor stats``; ``weighed``: the ports whose worker's PSS is wanted, None: all.

        With ``since_s`` what was counted in so many last seconds.
        """
        views = list(views)
        identities = [view.identity for view in views if view.identity] + [switch.identity]
        identities += [identity for _, identity in switch.others]
        heavy = None
        if weighed is not None:
            heavy = {view.identity for view in views if view.identity and view.record.port in weighed}
            heavy.add(switch.identity)
        usage = self._processes.sample(identities, now, heavy)
        answer = stats.stats(switch, views, self._readings(), usage, self._departed, now=now, sources=sources)
        return answer if since_s is None else self._only_since(answer, since_s, now)

    def _only_since(self, answer: Json, since_s: float, now: float) -> Json:
        when = now - since_s
        for row in answer["ports"]:
            then = self._history.at(row["port"], when)
            if then is not None:
                stats.subtract(row, dict(zip(NAMES, then.counters, strict=True)), then.full)
        left = [(reading, full) for at, reading, full in self._left if at >= when]
        return answer | {"since_s": since_s, "departed": stats.departed(left)}

    def dealings(self, ports: Collection[int], now: float) -> Json:
        """Return ``sent`` from and to some ports, and the ``questions`` of all VMs, as numbers and text."""
        sent = [
            {
                "source": port,
                "target": peer,
                "frames": frames,
                "age_s": now - at,
                "longest": longest,
                "data_age_s": now - data if data else None,
            }
            for port, each in self._pages.items()
            for peer, attachment, frames, at, longest, data in each.page.dealings()
            if peer in self._pages and self._pages[peer].born == attachment
            if port in ports or peer in ports
        ]
        questions = [
            {
                "port": port,
                "sender": address(sender),
                "target": address(target),
                "times": times,
                "age_s": now - last,
                "vlan": vlan,
            }
            for port, each in self._pages.items()
            for sender, target, _, last, times, vlan in each.page.questions()
        ]
        return {"sent": sent, "questions": questions}

    def in_use(self) -> list[tuple[PortId, tuple[int, ...]]]:
        """Return the IPv4 addresses with which VMs ask, of ports that have asked since the last call."""
        asked = [(port, each) for port, each in self._pages.items() if each.has_flooded]
        for _, each in asked:
            each.has_flooded = False
        return [(PortId(port, each.born), each.askers()) for port, each in asked]

    def history(self, port: int, span: str, now: float) -> Json:
        """Return what a port did in the last minute or hour: its figures in each step, the newest last.

        ``seconds``: of a step. A figure is null where nothing is known.
        """
        columns = {name: self._history.values(port, span, now, pick) for name, pick in FIGURES.items()}
        return {"port": port, "seconds": SPANS[span], **columns}

    def status(
        self, switch: Switch, views: Iterable[PortView], addresses: Mapping[int, list[str]], now: float
    ) -> Json:
        """Answer ``supervisor status``; reads no process.

        ``addresses``: IP addresses by number of the port.
        """
        return stats.status(switch, views, self._readings(macs=True), addresses, now)

    def macs(self, switch: Switch, views: Iterable[PortView], now: float) -> Json:
        """Answer ``supervisor macs``; reads no process."""
        return stats.macs(switch, views, self._readings(macs=True), now)

    def live(self, switch: Switch, views: Iterable[PortView], now: float, after: int = 0) -> Json:
        """``live``: the rows that have changed since the answer ``after``; reads no process."""
        self._look(now)
        readings = {port: page.read() for port, page in self._pages.items()}
        self._rows.update(views, readings, {port: page.full for port, page in self._pages.items()})
        return stats.head(switch, now) | {
            "number": self._rows.number,
            "columns": live.COLUMNS,
            "ports": self._rows.after(after),
            "talks": self._talks.rates({port: page.sent for port, page in self._pages.items()}, now),
        }

    def addresses(self, views: Iterable[PortView]) -> Json:
        """Answer the gateway: the port of each MAC address."""
        return stats.addresses(views, self._readings(macs=True))

    def traffic(self, views: Iterable[PortView]) -> Json:
        """Answer the gateway: traffic of all VMs and of the gateway."""
        return stats.traffic(views, self._readings(), self._departed)

    def _look(self, now: float) -> None:
        """Look at all pages."""
        times = [page.page.published_at() for page in self._pages.values()]
        moved = [
            (port, page)
            for (port, page), time in zip(self._pages.items(), times, strict=True)
            if time != page.published_at and page.look(time)
        ]
        for port, page in moved:
            self._due_notes[port] = now
            self._lost_frames.told(port, page.page.losses())
        if not moved:
            return  # what was lost towards a port is counted by others
        for port, page in self._pages.items():
            key = port, page.born
            full = (
                self._lost_frames.towards(*key)
                + self._departed.towards.get(key, 0)
                + flood_lost(page.counters)
            )
            if full != page.full:
                page.full, self._due_notes[port] = full, now

    def _readings(self, *, macs: bool = False) -> dict[int, Reading]:
        """Read all stats pages whole; their MAC tables, which may be long, only if asked for."""
        return {
            port: Reading(
                each.born, each.page.counters(), each.page.losses(), each.page.macs(port) if macs else ()
            )
            for port, each in self._pages.items()
        }
