"""Watch the health of workers and VMs: log once when a worker becomes silent or a VM stalled, and its end.

It also logs that a VM leaves checksums undone that the switch does not finish. It only reports. A silent
worker is stuck or stopped; a stalled VM reads no frames. Both harm only themselves, and recover by themselves
or by the operator (``liveness`` says why).

Before a worker is called silent, its stats page is checked, which shows that its loop turns. A message
instead would wake two threads in each worker and two here.
"""

from collections.abc import Callable
from typing import Any

from forwarder.messages import Heartbeat
from forwarder.names import Incarnation, PortRecord
from supervisor.base.logs import Throttle, say
from supervisor.fleet.liveness import Liveness
from supervisor.ports import notes
from supervisor.ports.lifecycle import PortState
from supervisor.ports.port import Port
from supervisor.ports.view import PortView


class Health:
    """The health of every port that has a worker."""

    def __init__(
        self, pulse_s: float, published_at: Callable[[int], float], name_of: Callable[[int], str]
    ) -> None:
        """``published_at``: when a port's worker last published to its stats page, in monotonic seconds."""
        self._name_of = name_of
        self._liveness = Liveness(pulse_s)
        self._published_at = published_at
        self._stalled: set[int] = set()
        self._refused: dict[int, int] = {}
        """System calls that the cell of each port's worker has refused so far."""
        self._throttle = Throttle()
        self._unfinished: set[int] = set()
        self._expected: dict[int, int] = {}
        """The epoch of each watched worker."""

    def expect(self, served: Incarnation, now: float) -> None:
        """Watch this worker of the port from now on, and no earlier one."""
        self._expected[served.port] = served.epoch
        self._refused.pop(served.port, None)
        self._liveness.watch(served.port, served.epoch, now)

    def every(self, pulse_s: float) -> None:
        """Expect pulses at this interval from now on; it grows with the fleet."""
        self._liveness.every(pulse_s)

    def lost(self, served: Incarnation) -> None:
        """Stop watching this worker; the next one will report whether the VM is stalled."""
        if self._expected.get(served.port) == served.epoch:
            self.forget(served.port)

    def forget(self, port: int) -> None:
        """Stop watching the port."""
        self._expected.pop(port, None)
        self._liveness.forget(port)
        self._refused.pop(port, None)
        self._stalled.discard(port)
        self._unfinished.discard(port)

    def heard(self, port: int, epoch: int, now: float) -> None:
        """Note a sign of life."""
        silence = self._liveness.heard(port, epoch, now)
        if silence is not None:
            name = self._name_of(port)
            text = f"port {port} ({name}): its worker is heard again after {silence:.1f} s"
            say("heard", text, port=port, name=name, silent_s=round(silence, 1))

    def heartbeat(self, message: Heartbeat, record: PortRecord) -> None:
        """Note the worker's report about its VM and its cell."""
        port = record.port
        who: dict[str, Any] = {"port": port, "name": record.name}
        label = f"port {port} ({record.name})"
        refused = message.refused_calls - self._refused.get(port, 0)
        self._refused[port] = message.refused_calls
        if refused > 0:
            self._throttle.warning(
                "refused",
                f"{label}: its worker's cell has refused {refused} system calls, the last was number "
                f"{message.refused_call}; a guest may have taken the worker over",
                "cell-refused",
                **who,
                calls=refused,
                call=message.refused_call,
            )
        if message.stalled and port not in self._stalled:
            self._stalled.add(port)
            text = f"{label}: stalled, its VM takes no frames and {message.queued:,} bytes wait for it"
            say("stall", text, "warning", **who, queued_bytes=message.queued)
        elif not message.stalled and port in self._stalled:
            self._stalled.discard(port)
            say("stall-end", f"{label}: no longer stalled", **who)
        if message.unfinished and port not in self._unfinished:
            self._unfinished.add(port)
            text = f"{label}: {notes.unfinished(record)}"
            say("unfinished", text, "warning", **who)
        elif not message.unfinished:
            self._unfinished.discard(port)

    def view(self, port: Port) -> PortView:
        """Return a port with its health, for operators."""
        number, state = port.record.port, port.state.value
        if port.state is PortState.LIVE and self._liveness.is_silent(number):
            state = "silent"
        stalled = number in self._stalled
        unfinished = number in self._unfinished and port.record.policy.offload == "none"
        return PortView(port.record, state, stalled, unfinished, port.since, port.identity, port.restarts)

    def tick(self, now: float) -> None:
        """Log the workers that have become silent."""
        if now < self._liveness.deadline():
            return
        for port, epoch in self._expected.items():
            self.heard(port, epoch, min(now, self._published_at(port)))
        for port, _ in self._liveness.tick(now):
            name = self._name_of(port)
            text = f"port {port} ({name}): nothing is heard of its worker; its VM may be cut off"
            say("silent", text, "warning", port=port, name=name)

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._liveness.deadline()
