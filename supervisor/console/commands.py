"""The commands of operators, inside the supervisor: one method each, from plain arguments to a plain result.

Arguments come from another process, so each is checked here by name and type. A wrong one is answered as the
operator's mistake.
"""

import time
from collections.abc import Mapping
from typing import cast

from forwarder.errors import LocalError
from forwarder.messages import Reply
from forwarder.version import VERSION
from supervisor.base.logs import lost
from supervisor.console.arguments import Arguments, as_boolean, as_number, as_ports, as_text, take
from supervisor.console.changes import Changes
from supervisor.console.history import SPANS
from supervisor.console.server import Handler
from supervisor.console.surroundings import Owner, Ports

HOUR_S = 3600.0
MOST_HISTORIES = 16
"""Ports in one answer: a millisecond each."""


class Commands:
    """Handlers of all commands."""

    def __init__(self, owner: Owner, ports: Ports) -> None:
        self._owner = owner
        self._ports = ports
        self._listeners = ports.listeners
        self._changes = Changes(ports)
        self._sampler = ports.sampler
        self._gateway = ports.gateway

    def handlers(self) -> Mapping[str, Handler]:
        """Return the table of handlers for the console."""
        return {
            "status": self.status,
            "stats": self.stats,
            "live": self.live,
            "history": self.history,
            "dealings": self.dealings,
            "macs": self.macs,
            "leases": self.leases,
            "attach": self._changes.attach,
            "detach": self._changes.detach,
            "show": self._changes.show,
            "set": self._changes.set,
            "stop": self.stop,
            "forward_add": self.forward_add,
            "forward_remove": self.forward_remove,
            "forward_list": self.forward_list,
            "events": self.events,
            "gateway_policy": self.gateway_policy,
        }

    def events(self, arguments: Arguments) -> object:
        """Return the oldest ``events`` after the sequence ``after``, and the ``next`` to ask with.

        ``since``: no events older than so many seconds; null: all kept events.
        """
        after, since = take(arguments, after=0, since=None)
        seconds = None if since is None else as_number("since", since)
        events, following = self._owner.events.after(int(as_number("after", after)), seconds)
        return {"events": events, "next": following}

    def status(self, arguments: Arguments) -> object:
        """Show the ports, listeners and TAP devices."""
        take(arguments)
        addresses = self._gateway.owners.by_port()
        answer = self._sampler.status(self._owner.summary(), self._ports.views(), addresses, time.monotonic())
        listeners = [
            {"url": each.url, "transport": each.transport, "name": each.settings.name}
            for each in self._listeners
        ]
        gateway = self._gateway.inquiries.summary()
        head = {"version": VERSION, "name": self._owner.name, "lost_log_lines": lost()}
        return answer | head | {"listeners": listeners, "gateway": gateway}

    def stats(self, arguments: Arguments) -> object:
        """Show all counters; with ``sources`` also the sources of lost frames.

        ``weighed``: the ports whose worker's share of memory is wanted, which costs most; null: all ports.
        ``since``: only in so many last seconds, 3600 at most, without the gateway's figures; null: all.
        """
        sources, weighed, since = take(arguments, sources=False, weighed=None, since=None)
        span = None if since is None else as_number("since", since)
        if span is not None and not 0 < span <= HOUR_S:
            raise LocalError(f"since has to be between 0 and {HOUR_S:g} seconds: the history has an hour")
        answer = self._sampler.stats(
            self._owner.summary(),
            self._ports.views(),
            time.monotonic(),
            sources=as_boolean("sources", sources),
            weighed=None if weighed is None else as_ports("weighed", weighed),
            since_s=span,
        )
        if span is not None:
            return answer | {"gateway": None}
        figures = self._gateway.inquiries.figures()
        return figures.map(lambda each: Reply(True, answer | {"gateway": each}))

    def live(self, arguments: Arguments) -> object:
        """Return numbers that change every second: rows of ports, the pairs that talk, the gateway.

        The rows are those that have changed since the answer with the ``number`` ``after``; 0: all. ``event``
        is the sequence of the newest event.
        """
        (after,) = take(arguments, after=0)
        switch, number = self._owner.summary(), int(as_number("after", after))
        answer = self._sampler.live(switch, self._ports.views(), time.monotonic(), number)
        return answer | {"gateway": self._gateway.inquiries.summary(), "event": self._owner.events.newest}

    def dealings(self, arguments: Arguments) -> object:
        """Return what was sent from and to ``ports`` (numbers), and the neighbours that each VM asked for.

        ``unread`` has (port, bytes of the kernel's) for each VM that has not read all that was written to it.
        """
        (ports,) = take(arguments, ports=[])
        if not isinstance(ports, list):
            raise LocalError("ports has to be a list of numbers")
        numbers = {int(as_number("ports", each)) for each in ports}
        return self._sampler.dealings(numbers, time.monotonic()) | {"unread": self._ports.unread()}

    def history(self, arguments: Arguments) -> object:
        """Return what ports did in the last ``span``, which is minute or hour.

        The ports are those of a number above ``after``, a few of them, in their order.
        """
        after, span = take(arguments, after=0, span="minute")
        if span not in SPANS:
            raise LocalError(f"span has to be one of {', '.join(SPANS)}")
        least, now = as_number("after", after), time.monotonic()
        ports = sorted(view.record.port for view in self._ports.views() if view.record.port > least)
        return {"ports": [self._sampler.history(port, str(span), now) for port in ports[:MOST_HISTORIES]]}

    def macs(self, arguments: Arguments) -> object:
        """Show learned and pinned addresses."""
        take(arguments)
        return self._sampler.macs(self._owner.summary(), self._ports.views(), time.monotonic())

    def leases(self, arguments: Arguments) -> object:
        """Show a page of the gateway's leases: those of addresses above ``after``, in order."""
        after = as_text("after", take(arguments, after="0.0.0.0")[0])
        names = {(view.record.port, view.record.born): view.record.name for view in self._ports.views()}
        return self._gateway.ask("leases", {"after": after}).map(lambda reply: _with_names(reply, names))

    def forward_add(self, arguments: Arguments) -> object:
        """Begin to forward: ``forward`` as ``gateway.forwards`` reads it."""
        return self._gateway.ask("forward_add", _forward(arguments))

    def forward_remove(self, arguments: Arguments) -> object:
        """End a ``forward``, named by its whole text or by the host's address."""
        return self._gateway.ask("forward_remove", _forward(arguments))

    def forward_list(self, arguments: Arguments) -> object:
        """Return all forwards."""
        take(arguments)
        return self._gateway.ask("forward_list", {})

    def gateway_policy(self, arguments: Arguments) -> object:
        """Return the LAN of the gateway, and the reason for each of ``addresses`` that it refuses to VMs.

        ``refusals`` has the guests' ports whose last connection from the host failed.
        """
        (addresses,) = take(arguments, addresses=[])
        return self._gateway.ask("policy", {"addresses": addresses})

    def stop(self, arguments: Arguments) -> object:
        """End the switch; the answer comes before the end."""
        take(arguments)
        self._owner.stop()
        return {"pid": self._owner.summary().identity.pid}


def _with_names(reply: Reply, names: Mapping[tuple[int, int], str]) -> Reply:
    """Add the present port to each lease; None if the port has left."""
    if not reply.ok:
        return reply
    rows = []
    for row in cast(dict[str, list[Arguments]], reply.result)["leases"]:
        name = names.get((cast(int, row["port"]), cast(int, row.pop("born"))))
        port = row["port"] if name is not None else None
        rows.append(row | {"port": port, "port_name": name})
    return Reply(True, {"leases": rows})


def _forward(arguments: Arguments) -> dict[str, object]:
    return {"forward": as_text("forward", take(arguments, forward="")[0])}
