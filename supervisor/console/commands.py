"""The operator's commands inside the supervisor: one method each, from plain arguments to a plain result.

Arguments come from another process and are checked here, each by name and type; a wrong one is the
operator's fault and answered so.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.messages import Reply
from forwarder.names import Policy, PortRecord
from forwarder.version import VERSION
from supervisor.attach.addresses import parse_any
from supervisor.attach.kept import KeptAttachments, attachment_of
from supervisor.attach.listener_common import free_name
from supervisor.attach.listeners import Listeners
from supervisor.base.events import EventLog
from supervisor.base.logs import lost, say
from supervisor.console.sampler import Sampler
from supervisor.console.server import Handler
from supervisor.console.stats import Switch
from supervisor.ports.registry import Registry
from supervisor.ports.settings import changed, check_transport, plain, shown
from supervisor.ports.view import PortView

Arguments = dict[str, object]


class Owner(Protocol):
    """The supervisor, as far as commands need it."""

    @property
    def name(self) -> str:
        """What the operator calls this switch."""

    @property
    def events(self) -> EventLog:
        """What has happened."""

    def summary(self) -> Switch:
        """Return the head of every answer."""

    def stop(self) -> None:
        """Begin to end."""


class Gateway(Protocol):
    """The gateway, as far as commands need it; there may be none."""

    def ask(self, name: str, arguments: Arguments) -> Future[Reply]:
        """Pass a command on. Raises LocalError if there is no gateway that could answer."""

    def figures(self) -> Future[Arguments | None]:
        """Return its state and what it has counted, soon; None: there is no gateway."""

    def summary(self) -> Arguments | None:
        """Return its state; None: there is no gateway."""


class Ports(Protocol):
    """The ports and what belongs to them, as far as commands need it."""

    @property
    def registry(self) -> Registry:
        """The records."""

    @property
    def listeners(self) -> Listeners:
        """What VMs can attach to."""

    @property
    def kept(self) -> KeptAttachments:
        """What was attached at run time."""

    @property
    def sampler(self) -> Sampler:
        """What was counted."""

    @property
    def gateway(self) -> Gateway:
        """The gateway, or what says that there is none."""

    def views(self) -> Iterable[PortView]:
        """Return every port as it is shown."""

    def detach(self, number: int) -> None:
        """Disconnect a VM. Raises LocalError."""

    def set_policy(self, number: int, policy: Policy) -> Future[bool]:
        """Set what applies to a port from now on; return whether its worker has it in force.

        Raises LocalError, and nothing has changed.
        """


class Commands:
    """Handlers of all commands."""

    def __init__(self, owner: Owner, ports: Ports) -> None:
        self._owner = owner
        self._ports = ports
        self._registry = ports.registry
        self._listeners = ports.listeners
        self._sampler = ports.sampler
        self._gateway = ports.gateway

    def handlers(self) -> Mapping[str, Handler]:
        """Return what the console needs."""
        return {
            "status": self.status,
            "stats": self.stats,
            "macs": self.macs,
            "leases": self.leases,
            "attach": self.attach,
            "detach": self.detach,
            "show": self.show,
            "set": self.set,
            "stop": self.stop,
            "forward_add": self.forward_add,
            "forward_remove": self.forward_remove,
            "forward_list": self.forward_list,
            "events": self.events,
            "gateway_policy": self.gateway_policy,
        }

    def events(self, arguments: Arguments) -> object:
        """Return the oldest ``events`` after the sequence ``after``, and the ``next`` to ask with.

        ``since``: none that is older than so many seconds; null: all that are kept.
        """
        after, since = _arguments(arguments, after=0, since=None)
        seconds = None if since is None else _number("since", since)
        events, following = self._owner.events.after(int(_number("after", after)), seconds)
        return {"events": events, "next": following}

    def status(self, arguments: Arguments) -> object:
        """Show the ports and what VMs can attach to."""
        _arguments(arguments)
        answer = self._sampler.status(self._owner.summary(), self._ports.views(), time.monotonic())
        listeners = [{"url": each.url, "transport": each.transport} for each in self._listeners]
        gateway = self._gateway.summary()
        head = {"version": VERSION, "name": self._owner.name, "lost_log_lines": lost()}
        return answer | head | {"listeners": listeners, "gateway": gateway}

    def stats(self, arguments: Arguments) -> object:
        """Show what was counted; ``sources``: also from whom the lost frames were."""
        (sources,) = _arguments(arguments, sources=False)
        now = time.monotonic()
        answer = self._sampler.stats(
            self._owner.summary(), self._ports.views(), now, sources=_boolean("sources", sources)
        )
        return self._gateway.figures().map(lambda figures: Reply(True, answer | {"gateway": figures}))

    def macs(self, arguments: Arguments) -> object:
        """Show learned and pinned addresses."""
        _arguments(arguments)
        return self._sampler.macs(self._owner.summary(), self._ports.views(), time.monotonic())

    def leases(self, arguments: Arguments) -> object:
        """Show the gateway's leases, some of them: those of addresses above ``after``, in their order."""
        after = _text("after", _arguments(arguments, after="0.0.0.0")[0])
        names = {(view.record.port, view.record.born): view.record.name for view in self._ports.views()}
        return self._gateway.ask("leases", {"after": after}).map(lambda reply: _with_names(reply, names))

    def attach(self, arguments: Arguments) -> object:
        """Add a listener (``transport``, ``url``) or a TAP device (``transport`` tap, ``url`` its name).

        ``settings`` are those of the ports that come from it, by name.
        """
        transport, url, name, wanted = _arguments(arguments, transport="", url="", name=None, settings={})
        words = {
            "transport": _text("transport", transport),
            "url": _text("url", url),
            "name": None if name is None else _text("name", name),
            "settings": _mapping("settings", wanted),
        }
        attachment = attachment_of(words)
        settings, policy = attachment.settings, attachment.settings.policy
        if transport != "tap":
            # A TAP is a port at once, which the registry checks; a listener may go on with a port taken over.
            self._registry.check_pins(policy, self._listeners.goes_on_with(attachment))
        taken = {port.record.name for port in self._registry}
        known = self._listeners.goes_on_with(attachment)
        next_name = settings.name if known else free_name(settings.name, taken)
        url = self._ports.kept.open(words)
        return {"url": url, "next_name": next_name, "nameless": self._nameless(policy)}

    def detach(self, arguments: Arguments) -> object:
        """Disconnect the VM of ``target``, a port's number or name; or close the listener of that URL."""
        target = parse_any(_text("target", _arguments(arguments, target="")[0]))
        if "/" in target:  # no name has that
            listener = self._listeners.find(target)
            port = self._listeners.close(target)
            self._ports.kept.save()
            if port is not None:
                self._ports.detach(port.port)
            return {"url": target if listener is None else listener.url}
        record = self._record(target)
        self._ports.detach(record.port)
        return {"port": record.port, "name": record.name}

    def show(self, arguments: Arguments) -> object:
        """Return the settings in force at ``target``, a port's number or name.

        For a listener, by name, URL or path: the settings that its ports get; ``port`` is null then.
        """
        target = parse_any(_text("target", _arguments(arguments, target="")[0]))
        record, listener = self._find(target), self._listeners.find(target)
        if record is None and listener is not None:
            name = listener.settings.name or listener.url
            settings = plain(listener.settings.policy)
            return {"port": None, "name": name, "url": listener.url, "settings": settings}
        return _settings(self._record(target))

    def set(self, arguments: Arguments) -> object:
        """Change ``settings`` of ``target``, a port's number or name: all of them, or none.

        The answer comes when they are in force. ``confirmed`` is false if the port's worker does not answer.
        """
        target, wanted = _arguments(arguments, target="", settings={})
        record = self._record(_text("target", target))
        policy = changed(record.policy, _mapping("settings", wanted))
        check_transport(record.transport, policy)
        self._listeners.check_pins(policy.pinned, port=record.id)
        confirmed = self._ports.set_policy(record.port, policy)
        policy = self._record(str(record.port)).policy
        before = shown(plain(record.policy))
        news = [pair for pair in shown(plain(policy)) if pair not in before]
        text = " ".join(f"{key}={value}" for key, value in news)
        line = f"port {record.port} ({record.name}): set {text or 'nothing new'}"
        say("set", line, port=record.port, name=record.name, settings=dict(news))
        result = _settings(record._replace(policy=policy)) | {"nameless": self._nameless(policy)}
        return confirmed.map(lambda done: Reply(True, result | {"confirmed": done}))

    def forward_add(self, arguments: Arguments) -> object:
        """Begin to forward: ``forward`` as ``gateway.forwards`` reads it."""
        return self._gateway.ask("forward_add", _forward(arguments))

    def forward_remove(self, arguments: Arguments) -> object:
        """End a ``forward``, named whole or by where the host listens."""
        return self._gateway.ask("forward_remove", _forward(arguments))

    def forward_list(self, arguments: Arguments) -> object:
        """Return all forwards."""
        _arguments(arguments)
        return self._gateway.ask("forward_list", {})

    def gateway_policy(self, arguments: Arguments) -> object:
        """Return the LAN of the gateway, and which of ``addresses`` it refuses to VMs, by what reason."""
        (addresses,) = _arguments(arguments, addresses=[])
        return self._gateway.ask("policy", {"addresses": addresses})

    def _find(self, target: str) -> PortRecord | None:
        for port in self._registry:
            if target in (str(port.record.port), port.record.name):
                return port.record
        return None

    def _record(self, target: str) -> PortRecord:
        record = self._find(target)
        if record is not None:
            return record
        listener = self._listeners.find(target)
        if listener is None:
            raise LocalError(
                f"there is no port {target!r}; `supervisor status` lists the ports and listeners"
            )
        settings = shown(plain(listener.settings.policy))
        usual = shown(plain(Policy()))
        text = " ".join(f"{key}={value}" for key, value in settings if (key, value) not in usual)
        raise LocalError(
            f"no VM is attached to {target!r} yet; its listener {listener.url} has these settings: "
            f"{text or 'the defaults'}; attach it anew to change them, or wait for the VM"
        )

    def _nameless(self, policy: Policy) -> list[str]:
        """Return the names that a port is to reach and that no port or listener has."""
        names = {port.record.name for port in self._registry} | {
            each.settings.name for each in self._listeners
        }
        return [name for name in policy.reaches if name not in names]

    def stop(self, arguments: Arguments) -> object:
        """End the switch; the answer comes before the end."""
        _arguments(arguments)
        self._owner.stop()
        return {"pid": self._owner.summary().identity.pid}


def _with_names(reply: Reply, names: Mapping[tuple[int, int], str]) -> Reply:
    """Give each lease its port as it is now; one that has gone is None."""
    if not reply.ok:
        return reply
    rows = []
    for row in cast(dict[str, list[Arguments]], reply.result)["leases"]:
        name = names.get((cast(int, row["port"]), cast(int, row.pop("born"))))
        port = row["port"] if name is not None else None
        rows.append(row | {"port": port, "port_name": name})
    return Reply(True, {"leases": rows})


def _forward(arguments: Arguments) -> dict[str, object]:
    return {"forward": _text("forward", _arguments(arguments, forward="")[0])}


def _settings(record: PortRecord) -> dict[str, object]:
    return {"port": record.port, "name": record.name, "settings": plain(record.policy)}


def _arguments(arguments: Arguments, **defaults: object) -> list[object]:
    """Return the arguments in the order of ``defaults``. Raises LocalError if there is any other."""
    unknown = sorted(arguments.keys() - defaults.keys())
    if unknown:
        raise LocalError(f"unknown argument {unknown[0]!r}; is the command of another version?")
    return [arguments.get(name, default) for name, default in defaults.items()]


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise LocalError(f"{name} has to be text, not {type(value).__name__}")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise LocalError(f"{name} has to be a number, not {value!r}")
    return value


def _mapping(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise LocalError(f"{name} has to be a mapping, not {type(value).__name__}")
    return value


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise LocalError(f"{name} has to be true or false, not {type(value).__name__}")
    return value
