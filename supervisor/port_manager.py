"""Take ports from arrival to release: receive events, ask the registry, and carry out its actions.

Theory of operation
-------------------
Listeners, the fleet and the gateway report events by calling a method of ``PortManager`` (``arrive``,
``gone``, ``adopted``…). It asks the registry, which holds every port's record and decides. ``do`` carries out
the registry's actions in their order; an action that leads to further ones appends them. The other parts keep
numbers of ports and ask for the record when they need it.

Each part has ``tick`` and ``deadline``; ``tick`` calls them in turn. If a part fails, that is logged and the
others go on: the failure must not affect VMs that talk.

Example: a VM connects to a listener. ``arrive``: the registry makes port 3 and asks for a worker; the pool
gives one at its next tick (``Fleet.give``), which gets the VM's descriptor over its channel and says Hello
(``hello``); the registry publishes the port, and the rollout sends its record to one worker after the other.

Runs in the thread of the loop, like all of the supervisor.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from forwarder.acceptor import Pauses
from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.membership import MembershipLog
from forwarder.names import Policy, PortId, PortRecord
from supervisor.attach.addresses import PortOptions
from supervisor.attach.kept import KeptAttachments
from supervisor.attach.listener_common import free_name
from supervisor.attach.listeners import Listeners
from supervisor.base.cells import CellPolicy
from supervisor.base.logs import log, say
from supervisor.base.runtime_dir import RuntimeDir
from supervisor.base.saved_state import SavedState
from supervisor.base.zmq_sockets import Context
from supervisor.console.history import History
from supervisor.console.sampler import Sampler
from supervisor.first_processes import FirstProcesses
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.surroundings import FleetParts
from supervisor.gateway.facts import facts
from supervisor.gateway.process import GatewayProcess
from supervisor.ports import actions
from supervisor.ports.in_force import NOTHING, Missing, is_wide
from supervisor.ports.registry import Registry
from supervisor.ports.view import PortView
from supervisor.rings.fd_store import FdStore


class PortManager:
    """All ports of one switch and all parts that know them."""

    def __init__(
        self,
        loop: Loop,
        context: Context,
        directory: RuntimeDir,
        gateway_options: Mapping[str, object] | None,
        *,
        cell_required: bool,
        saved: SavedState,
        history: History,
        first: FirstProcesses,
    ) -> None:
        """``first``: the processes that have been started already."""
        self.registry = Registry(first_epoch=directory.first_epoch)
        self.sampler = Sampler(history)
        self.pauses = Pauses(time.monotonic)
        self.listeners = Listeners(loop, self.pauses, self, saved)
        known = facts(self.sampler, self.views)
        self._has_gateway = gateway_options is not None
        cells = CellPolicy(required=cell_required)
        self.gateway = GatewayProcess(
            loop,
            self,
            directory.path,
            gateway_options or {},
            known,
            in_use=self.sampler.in_use,
            saved=saved,
            cells=cells,
            child=first.gateway,
        )
        self.kept = KeptAttachments(self.listeners, saved)
        self._fd_store = FdStore()
        self._actions: deque[actions.Action] = deque()
        self._acting = False
        self.fleet = Fleet(
            loop,
            context,
            MembershipLog(directory.epoch),
            self,
            FleetParts(
                directory.path, self.registry, self._fd_store, self.sampler, self.listeners, first.template
            ),
            cells=cells,
        )
        self._steps: tuple[Callable[[float], object], ...] = (
            *self.fleet.steps,
            lambda now: self.do(self.registry.tick(now)),
            self.listeners.tick,
            self.sampler.tick,
            self.pauses.tick,
            self.gateway.tick,
            saved.tick,
        )
        self._parts = (self.registry, self.fleet, self.listeners, self.sampler, self.gateway, saved)
        self.failed = False
        """Whether a part failed in the last ``tick``."""

    @property
    def orphans(self) -> bool:
        """Whether there are workers with a port, which a stop would leave behind."""
        return self.fleet.serves

    @property
    def ended(self) -> bool:
        """Whether no port, no worker and no gateway is left."""
        return self.gateway.ended and not len(self.fleet) and not len(self.registry)

    def tick(self, now: float) -> bool:
        """Do what is due and handle messages that have arrived; return whether there may be more."""
        more = self.failed = False
        for step in self._steps:
            try:
                more = bool(step(now)) or more
            except Exception:
                log.exception("a part of the supervisor failed; the others go on")
                self.failed = True
        return more

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        resume_at = self.pauses.deadline()
        return min([part.deadline() for part in self._parts] + ([] if resume_at is None else [resume_at]))

    def stop(self, now: float) -> None:
        """Begin to end: listeners first, then the gateway and the ports, then idle workers."""
        self.listeners.close_all()
        self.gateway.stop()
        self.do(self.registry.shutdown())
        self.fleet.stop(now)

    def close(self, *, keep: bool) -> None:
        """Close everything; workers that still serve a port, and their paths, are left to the next one.

        ``keep`` the gateway's leases, too.
        """
        if not self.orphans:
            self.listeners.close_all()
        self.gateway.close(keep=keep)
        self.fleet.close()
        self._fd_store.close()

    # For operators' commands and the gateway.

    def stats_page(self, number: int) -> int:
        """Return the descriptor of a present port's stats page."""
        held = self._fd_store.get(number)
        assert held is not None
        return held.stats

    def unread(self) -> list[tuple[int, int]]:
        """Return (port, bytes of the kernel's) of the sockets that their VMs have not read empty."""
        waiting = [(port.record.port, self._fd_store.waiting(port.record.port)) for port in self.registry]
        return [(port, count) for port, count in waiting if count]

    def own(self, owners: Mapping[str, int]) -> None:
        """Let guards know that these addresses belong to these ports."""
        self.fleet.guards.own(owners)

    def views(self) -> Iterator[PortView]:
        """Return a view of every port."""
        return (self.gateway.view(self.fleet.watch.view(port)) for port in self.registry)

    def detach(self, number: int) -> None:
        """Disconnect a VM. Raises LocalError if there is no such port."""
        port = self.registry.get(number)
        if port is not None:
            self.listeners.disconnect(port.record.id)
        self.do(self.registry.detach(number))

    def set_policy(self, number: int, policy: Policy) -> Future[Missing]:
        """Change settings of a port; return a future that says what of them is not in force.

        Raises LocalError; nothing has changed then.
        """
        port = self.registry.get(number)
        before = policy if port is None else port.record.policy
        policy = self._guarded(policy)
        decided = self.registry.set_policy(number, policy)
        self.do(decided)
        if decided and self.registry.forwards(number):
            return self.fleet.confirmed(number, everywhere=is_wide(before, policy))
        in_force: Future[Missing] = Future()
        in_force.set_result(NOTHING)
        return in_force

    def gateway_heard(self) -> Future[Missing] | None:
        """Return a future: when the workers of all ports know the gateway's; None: it has no worker yet."""
        number = next((port.record.port for port in self.registry if port.record.is_gateway), 0)
        return self.fleet.confirmed(number, everywhere=True) if self.registry.forwards(number) else None

    def guard_all(self) -> None:
        """Guard the ports that a supervisor without a gateway has made, since there is one now."""
        for port in list(self.registry):
            policy = port.record.policy
            if not policy.guard and not port.record.is_gateway:
                self.do(self.registry.set_policy(port.record.port, policy._replace(guard=True)))

    # Events of listeners.

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        """Make a port of a VM's descriptor. Raises LocalError if this VM is to be refused."""
        now = time.monotonic()
        taken = {port.record.name for port in self.registry}
        policy = self._guarded(settings.policy)
        record, decided = self.registry.attach(transport, now, free_name(settings.name, taken), policy)
        try:
            self._fd_store.take(record.port, vm)
        except LocalError:
            self.do([*decided, *self.registry.detach(record.port)])
            raise
        text = f"port {record.port} ({record.name}): attached by {url}"
        say("attach", text, port=record.port, name=record.name, transport=transport, url=url)
        self._watch_block(record.id)
        self.gateway.joined(record)
        self.do(decided)
        return record

    def gone(self, port: PortId, reason: str) -> None:
        """Note that a VM has gone, which its worker may not have seen."""
        self.do(self.registry.vm_gone(*port, reason))

    def current(self, port: PortId) -> PortRecord | None:
        """Return a port as it is now; None if it has left."""
        found = self.registry.get(port.port)
        return None if found is None or found.record.id != port else found.record

    def port_count(self) -> int:
        """Return how many ports there are."""
        return len(self.registry)

    # Events of the fleet.

    def adopted(self, record: PortRecord) -> None:
        """Note that a port was taken over with its worker."""
        self._watch_block(record.id)
        self.gateway.joined(record)

    def do(self, decided: list[actions.Action]) -> None:
        """Carry out actions, and those that they lead to, in their order."""
        self._actions.extend(decided)
        if self._acting:
            return
        self._acting = True
        try:
            while self._actions:
                self._carry_out(self._actions.popleft())
        finally:
            self._acting = False

    # Private to this file.

    def _guarded(self, policy: Policy) -> Policy:
        """Set the guard of a port whose setting is ``auto``."""
        return policy if policy.guard is not None else policy._replace(guard=self._has_gateway)

    def _watch_block(self, port: PortId) -> None:
        try:
            self.sampler.arrive(*port, self.stats_page(port.port))
        except (OSError, ValueError) as error:
            log.error("port %d: its counters cannot be read: %s", port.port, error)

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.AssignWorker(record):
                self.fleet.want(record.incarnation)
            case actions.Publish(change, record):
                self.fleet.publish(change, record)
            case actions.EndWorker(port, _, identity):
                self.fleet.end_worker(port, identity)
            case actions.ReleaseVm(record, reason):
                self._release(record, reason)
            case actions.Log(level, text, event, record, reason):
                say(event, text, level, port=record.port, name=record.name, reason=reason)

    def _release(self, record: PortRecord, reason: str) -> None:
        number = record.port
        self.sampler.depart(number, of_gateway=record.is_gateway)
        self.fleet.release(number)
        self._fd_store.release(number)
        self.listeners.released(record.id, reason)
        self.kept.save()
        self.gateway.released(record)
