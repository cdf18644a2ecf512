"""Watch all workers and their VMs: silence, stalls, hangs, misuse and deleted sockets.

What each observation means is decided in a file of its own: ``health`` and ``liveness``, ``unanswered``,
``misuse``, ``doors``. Here the observations are made: a worker's heartbeat answers a beat, and its port's
stats page is read then; the sockets of vhost-user VMs are asked for unread bytes; the directory of sockets is
read.

Example: port 3 is given to a worker (``expect``). Its heartbeats come, and its page says ``spoofed``: one
event. Its pulses stop: silent. It leaves bytes of its vhost-user VM unread for a second: it is replaced.
"""

import time
from collections.abc import Callable

from forwarder.membership import BEAT_S
from forwarder.messages import Heartbeat
from forwarder.names import Incarnation, PortRecord
from supervisor.base.allowance import Allowance
from supervisor.base.logs import say
from supervisor.console.sampler import Sampler
from supervisor.fleet.doors import Doors
from supervisor.fleet.health import Health
from supervisor.fleet.holders import Holders
from supervisor.fleet.misuse import Misuse
from supervisor.fleet.unanswered import Unanswered
from supervisor.ports.port import Port
from supervisor.ports.view import PortView
from supervisor.rings.fd_store import FdStore

HEARTBEATS, HEARTBEATS_PER_S = 10, 2.0
"""Heartbeats of a worker that are looked at, at once and in a second: each may make a line in the log. A
worker at work answers a beat in a second, and says at once that its VM is stalled."""


class Watch:
    """The watch over the workers of all ports."""

    def __init__(
        self,
        runtime_dir: str,
        holders: Holders,
        fd_store: FdStore,
        sampler: Sampler,
        name_of: Callable[[int], str],
        *,
        pulse_s: Callable[[], float],
    ) -> None:
        """``pulse_s``: the time between pulses now; it grows with the fleet."""
        self._holders = holders
        self._fd_store = fd_store
        self._sampler = sampler
        self._pulse_s = pulse_s
        self._health = Health(BEAT_S, sampler.published_at, name_of)
        self._unanswered = Unanswered()
        self._misuse = Misuse()
        self._doors = Doors(runtime_dir)
        self._looks: dict[Incarnation, Allowance] = {}
        """Of the heartbeats of each worker."""
        self.steps: tuple[Callable[[float], None], ...] = (self._look_for_silent, self._look_for_unanswered)
        """What to do in each turn; if one fails, the other goes on."""

    def expect(self, served: Incarnation) -> None:
        """Watch this worker of the port from now on, and no earlier one."""
        self._health.expect(served, time.monotonic())

    def inherit(self, served: Incarnation) -> None:
        """Watch a worker that was taken over with its port."""
        self.expect(served)
        self._misuse.inherit(served.port)

    def heard(self, served: Incarnation) -> None:
        """Note a message of a worker."""
        self._health.heard(*served, time.monotonic())

    def heartbeat(self, record: PortRecord, heartbeat: Heartbeat) -> None:
        """Note a worker's report about its VM and its cell, and read its port's page."""
        now = time.monotonic()
        looks = self._looks.get(record.incarnation)
        if looks is None:
            looks = self._looks[record.incarnation] = Allowance(HEARTBEATS, HEARTBEATS_PER_S, now)
        if not looks.take(now):
            return
        looks.spend()
        self._health.heartbeat(heartbeat, record)
        page = self._sampler.page(record.port)
        if page is not None:
            self._misuse.look(record, page, now)

    def lost(self, served: Incarnation) -> None:
        """Stop watching this worker."""
        self._looks.pop(served, None)
        self._health.lost(served)
        self._unanswered.forget(served)

    def forget(self, port: int) -> None:
        """Forget a port that has gone."""
        self._health.forget(port)
        self._misuse.forget(port)

    def view(self, port: Port) -> PortView:
        """Return a port with its health, for operators."""
        return self._health.view(port)

    def look_for_doors(self) -> None:
        """Say when the sockets of workers were deleted: in their cells they cannot make them again."""
        self._doors.look([worker.pid for worker in self._holders.all()])

    def deadline(self) -> float:
        """When a step has something to do."""
        return min(self._health.deadline(), self._unanswered.deadline())

    def _look_for_silent(self, now: float) -> None:
        self._health.every(self._pulse_s())
        self._health.tick(now)

    def _look_for_unanswered(self, now: float) -> None:
        if not self._unanswered.due(now):
            return
        for record in [each for each in self._holders.records() if each.transport == "vhost"]:
            worker = self._holders.at(record.port)
            if worker is None or worker.served != record.incarnation:
                continue
            unread = self._fd_store.unread(record.port)
            turned_at = self._sampler.published_at(record.port)
            if self._unanswered.seen(record.incarnation, unread=unread, turned_at=turned_at, now=now):
                text = f"port {record.port} ({record.name}): its worker does not answer its VM"
                say("unanswered", text, "warning", port=record.port, name=record.name)
                self._holders.replace(record.incarnation)
