"""The registry: it holds all ports (``table``) and alone decides about them.

Pure: events go in with ``now`` (monotonic seconds), actions come out, and ``deadline`` says when to call
``tick``. The caller carries out the actions in their order. Workers send reports (HELLO, HEARTBEAT, GOODBYE;
their death counts as one). A report with another epoch than the registry's is about a past worker and changes
nothing.

Invariants, each checked by the stateful test:

- A port has at most one worker, and each worker of a port has its own epoch (``numbers``). The epochs of a
  number only grow, so "newer" can be decided by comparison. A reserved port may have an earlier epoch than an
  older port: its worker is told which ports are older (``Port.older``).
- A number, a name and a pinned address belong to one port.
- ``join`` is published when a port is live for the first time, ``change`` when a later worker of it is live
  or its policy has changed, ``leave`` when it ends. A port between two workers stays a member. Its peers keep
  its MAC addresses and go on filling the dead worker's ring, where full rings drop and count, as for any slow
  port. The ``change`` with the new epoch makes them swap rings. With a leave and a join instead, every
  restart would flood the switch with unknown unicast. A parked port leaves, since its ring will not be
  emptied again. Reserved ports have words of their own (``actions.Publish``).
- ``ReleaseVm`` comes when a port's worker is gone, so that no process uses the descriptor any more. Only a
  log line may follow it.
"""

from itertools import chain

from forwarder._core import LAYOUT
from forwarder.errors import LocalError
from forwarder.names import (
    MAX_PORTS,
    TRANSPORT_KIND,
    Identity,
    Incarnation,
    Policy,
    PortRecord,
    valid_name,
)
from forwarder.restart_budget import Budget, Losses
from supervisor.ports.actions import (
    Action,
    AssignWorker,
    EndWorker,
    Log,
    Publish,
    ReleaseVm,
)
from supervisor.ports.lifecycle import HAS_WORKER, PROHIBITED, TRANSITIONS, PortEvent, PortState, resumable
from supervisor.ports.numbers import Numbers
from supervisor.ports.port import Port
from supervisor.ports.reserve import Reserve
from supervisor.ports.table import PortTable

NO_POLICY = Policy()
DEFAULT_BUDGET = Budget()


class Registry(PortTable):
    """All ports of one switch, and what becomes of them."""

    def __init__(self, budget: Budget = DEFAULT_BUDGET, first_epoch: int = 1) -> None:
        """``first_epoch`` must be greater than every epoch of an earlier supervisor."""
        super().__init__()
        self._budget = budget
        self._numbers = Numbers(first_epoch)
        self.reserve = Reserve(self._numbers)
        """The ports that are known before their VM."""
        self._stopping = False

    def reserved(self, wanted: Incarnation) -> PortRecord | None:
        """Return the record of a reserved port, until its first worker forwards."""
        port = self._ports.get(wanted.port)
        record = self.reserve.get(wanted.port)
        if port is not None and port.reserved and port.record.epoch == port.record.born:
            record = port.record
        return record if record is not None and record.incarnation == wanted else None

    def attach(
        self, transport: str, now: float, name: str | None = None, policy: Policy = NO_POLICY
    ) -> tuple[PortRecord, list[Action]]:
        """Make a port for a VM.

        Raises LocalError if there is no room, a name or address is taken, or the switch stops; the VM is to
        be refused then.
        """
        if self._stopping:
            raise LocalError("the switch is stopping; attach to it when it runs again")
        if name is not None and not valid_name(name):
            raise LocalError(f"{name!r} cannot name a port; use up to 63 letters, digits and ._:@+-")
        if name in self.names():
            raise LocalError(f"a port is named {name!r} already; choose another name")
        self.check_pins(policy)
        number = self._free_number(transport, name)
        reserved = self.reserve.take(number, now)
        if reserved is None:
            self._numbers.use(number)
        record = PortRecord(number, 0, 0, name or f"{transport}-{number}", transport, policy)
        cancelled: list[Action] = []
        if reserved is not None and self._deals_as_reserved(record):
            epoch = reserved.epoch
        else:
            epoch = self._numbers.next_epoch()
            cancelled = [] if reserved is None else [Publish("cancel", reserved)]
        record = record._replace(epoch=epoch, born=epoch)
        port = Port(record, PortState.PENDING, Losses(self._budget), now)
        port.reserved = reserved is not None and not cancelled
        port.older = max([epoch, *(each.record.epoch for each in self._ports.values())])
        self._ports[number] = port
        return record, [*cancelled, AssignWorker(record)]

    def assigned(self, number: int, epoch: int, identity: Identity) -> list[Action]:
        """Note that a worker has got the port. Raises LocalError if the port did not wait for one."""
        port = self._ports.get(number)
        if port is None or port.record.epoch != epoch:
            raise LocalError(f"port {number} does not wait for a worker of epoch {epoch}")
        self._move(port, PortEvent.ASSIGNED)
        port.identity = identity
        return []

    def hello(self, number: int, epoch: int) -> list[Action]:
        """Note a worker's report that it forwards; ignored if the worker is to end."""
        port = self._ports.get(number)
        if port is None or port.record.epoch != epoch or port.state is not PortState.STARTING:
            return []
        self._move(port, PortEvent.HELLO)
        return self._publish(port)

    def worker_lost(
        self, number: int, epoch: int, how: str, now: float, *, position_known: bool = False
    ) -> list[Action]:
        """Note that the port's worker has ended or, while it is pending, that none could be started.

        ``position_known``: whether the link is known to stand between two frames, both ways.
        """
        port = self._ports.get(number)
        if port is None or port.record.epoch != epoch:
            return []
        if port.state is PortState.ENDING:
            return self._gone(port, PortEvent.LOST_CLOSE, port.reason)
        if port.state not in (PortState.PENDING, PortState.STARTING, PortState.LIVE):
            return []
        kind = TRANSPORT_KIND[port.record.transport]
        if port.state is not PortState.PENDING and not resumable(kind, position_known=position_known):
            reason = f"its worker was lost ({how}) inside of a frame, so the stream cannot go on"
            return self._gone(port, PortEvent.LOST_CLOSE, reason)
        retry_at = port.losses.lost(now)
        if retry_at is None:
            self._move(port, PortEvent.LOST_PARK)
            port.reason = f"it lost {self._budget.attempts + 1} workers in {self._budget.window_s:g} s"
            text = f"{_label(port)}: parked, {port.reason} ({how}); detach it to free the VM"
            return [*self._leave(port), Log("error", text, "parked", port.record, how)]
        self._move(port, PortEvent.LOST_RETRY)
        port.retry_at = retry_at
        text = f"{_label(port)}: worker lost ({how}), the next one starts in {retry_at - now:.2g} s"
        return [Log("warning", text, "restart", port.record, how)]

    def goodbye(self, number: int, epoch: int, reason: str) -> list[Action]:
        """Note a worker's report that its VM's link is over, or that it obeys an order to end.

        It also counts after the worker's death, as long as no later worker has the port: report and death
        arrive on different channels, and a VM that is gone needs no other worker.
        """
        port = self._ports.get(number)
        if port is None or port.record.epoch != epoch:
            return []
        return self._end(port, reason)

    def vm_gone(self, number: int, born: int, reason: str) -> list[Action]:
        """Note that the VM has hung up; its listener reports it, by the port's attachment."""
        port = self._ports.get(number)
        if port is None or port.record.born != born:
            return []
        return self._end(port, reason)

    def detach(self, number: int) -> list[Action]:
        """Disconnect a VM. Raises LocalError if there is no such port."""
        return self._end(self.known(number), "detached by the operator")

    def set_policy(self, number: int, policy: Policy) -> list[Action]:
        """Change the policy of a port.

        Raises LocalError if there is no such port or an address is taken; nothing has changed then.
        """
        port = self.known(number)
        self.check_pins(policy, number)
        if port.record.policy == policy:
            return []
        parts = policy.isolated and not port.record.policy.isolated
        port.record = port.record._replace(policy=policy)
        changed: list[Action] = [Publish("change", port.record)] if port.joined else []
        return [*changed, *self._reserve_anew()] if parts else changed

    def check_pins(self, policy: Policy, number: int = 0) -> None:
        """Raise LocalError if a port other than ``number`` has an address that ``policy`` pins."""
        why = self.pin_taken(policy, number)
        if why:
            raise LocalError(why)

    def adopt(self, record: PortRecord, identity: Identity, layout: int, now: float) -> list[Action]:
        """Take over a port with its worker, which has outlived its supervisor.

        If that is impossible, the worker is told to end, and its VM connects again.
        """
        number, epoch = record.port, record.epoch
        why = ""
        if self._stopping:
            why = "the switch is stopping"
        elif layout != LAYOUT:
            why = f"its worker's shared memory has layout {layout}, not {LAYOUT}"
        elif number in self._ports:
            why = f"number {number} belongs to {self._ports[number].record.name}"
        elif record.name in self.names():
            why = f"another port is named {record.name}"
        else:
            why = self.pin_taken(record.policy)
        if why:
            text = f"port {number} ({record.name}): not taken over, {why}"
            return [Log("warning", text, "refused", record, why)]
        port = Port(record, PortState.LIVE, Losses(self._budget), now)
        port.identity = identity
        self._ports[number] = port
        self._numbers.adopt(number, epoch)
        text = f"{_label(port)}: taken over with its worker {identity.pid}"
        return [*self._publish(port), Log("info", text, "taken-over", port.record)]

    def shutdown(self) -> list[Action]:
        """End every port; nothing more is published. The registry is empty when the last worker is lost."""
        self._stopping = True
        return [action for port in self for action in self._end(port, "the switch stops")]

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for port in self:
            if port.state is PortState.WAITING and port.retry_at <= now:
                self._move(port, PortEvent.RETRY_DUE)
                port.older = self._numbers.next_epoch()
                port.record = port.record._replace(epoch=port.older)
                port.restarts += 1
                actions.append(AssignWorker(port.record))
        if now >= self._reserve_at():
            actions += [Publish("reserve", record) for record in self.reserve.more(self._ports, now)]
        return actions

    def deadline(self) -> float:
        """When ``tick`` has something to do; infinity if nothing is due."""
        waiting = [port.retry_at for port in self._ports.values() if port.state is PortState.WAITING]
        return min([*waiting, self._reserve_at()])

    def _reserve_at(self) -> float:
        """When to reserve the next ports: not while a port is on its way to its first frame."""
        due = self.reserve.deadline()
        if due < float("inf") and (self._stopping or self._is_introducing()):
            return float("inf")
        return due

    def _is_introducing(self) -> bool:
        return any(port.state in (PortState.PENDING, PortState.STARTING) for port in self._ports.values())

    def _reserve_anew(self) -> list[Action]:
        cancelled, reserved = self.reserve.anew()
        return [
            *(Publish("cancel", record) for record in cancelled),
            *(Publish("reserve", record) for record in reserved),
        ]

    def _deals_as_reserved(self, record: PortRecord) -> bool:
        """Whether all others may do with this port what they may do with a reserved one."""
        return not (record.policy.isolated or record.policy.pinned) and all(
            record.name not in port.record.policy.reaches for port in self._ports.values()
        )

    def _free_number(self, transport: str, name: str | None) -> int:
        names = self.names()
        for number in chain(self.reserve, self._numbers):
            if number not in self._ports and (name or f"{transport}-{number}") not in names:
                return number
        raise LocalError(f"all {MAX_PORTS - 1} ports are in use; detach one, or run a second switch")

    def _move(self, port: Port, event: PortEvent) -> None:
        state = TRANSITIONS.get((port.state, event))
        if state is None:
            raise LocalError(
                f"{_label(port)}: {event.name} while {port.state.value}: {PROHIBITED[port.state, event]}"
            )
        port.state = state
        if state not in HAS_WORKER:
            port.identity = None

    def _publish(self, port: Port) -> list[Action]:
        change = "change" if port.joined else "join"
        if self.reserved(port.record.incarnation) and self._deals_as_reserved(port.record):
            change = "arrive"
        port.joined, port.reserved = True, False
        return [Publish(change, port.record)]

    def _leave(self, port: Port) -> list[Action]:
        published = (port.joined or port.reserved) and not self._stopping
        port.joined = port.reserved = False
        return [Publish("leave", port.record)] if published else []

    def _end(self, port: Port, reason: str) -> list[Action]:
        if port.state not in HAS_WORKER:
            return self._gone(port, PortEvent.END, reason)
        already = port.state is PortState.ENDING
        self._move(port, PortEvent.END)
        if already:
            return []
        port.reason = reason
        assert port.identity is not None
        return [*self._leave(port), EndWorker(port.record.port, port.record.epoch, port.identity)]

    def _gone(self, port: Port, event: PortEvent, reason: str) -> list[Action]:
        self._move(port, event)
        del self._ports[port.record.port]
        text = f"{_label(port)}: gone, {reason}"
        return [
            *self._leave(port),
            ReleaseVm(port.record, reason),
            Log("info", text, "gone", port.record, reason),
        ]


def _label(port: Port) -> str:
    return f"port {port.record.port} ({port.record.name})"
