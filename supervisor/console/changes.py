"""The commands of operators that change attachments and settings: attach, detach, show, set.

A target is a port, by number or name, or a listener, by URL or path, or by the name of its ports while there
is none. A TAP device is its port. The settings of a listener are for its next VMs; attached VMs keep theirs.
"""

from collections.abc import Collection
from typing import Any

from forwarder.errors import LocalError
from forwarder.messages import Reply
from forwarder.names import Policy, PortRecord, port_called
from supervisor.attach.addresses import parse_any
from supervisor.attach.kept import attachment_of
from supervisor.attach.listener_common import free_name
from supervisor.attach.listeners import Listener
from supervisor.attach.tap import TapDevice
from supervisor.base.logs import say
from supervisor.console.arguments import Arguments, as_mapping, as_text, take
from supervisor.console.surroundings import Ports
from supervisor.ports.in_force import NOTHING, Missing
from supervisor.ports.settings import changed, check_transport, plain, shown


class Changes:
    """The commands ``attach``, ``detach``, ``show`` and ``set``."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._registry = ports.registry
        self._listeners = ports.listeners

    def attach(self, arguments: Arguments) -> object:
        """Add a listener (``transport``, ``url``) or a TAP device (``transport`` tap, ``url`` its name).

        ``settings`` are the settings of its ports, by name.
        """
        transport, url, name, wanted = take(arguments, transport="", url="", name=None, settings={})
        words = {
            "transport": as_text("transport", transport),
            "url": as_text("url", url),
            "name": None if name is None else as_text("name", name),
            "settings": as_mapping("settings", wanted),
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
        say("listener", f"attached {url}", url=url, added=True)
        return {"url": url, "next_name": next_name, "nameless": self._nameless(policy)}

    def detach(self, arguments: Arguments) -> object:
        """Disconnect the VM of ``target``, a port's number or name; or close the listener of that URL."""
        target = parse_any(as_text("target", take(arguments, target="")[0]))
        if "/" in target:  # no name has a slash
            listener = self._listeners.find(target)
            port = self._listeners.close(target)
            self._ports.kept.save()
            url = target if listener is None else listener.url
            say("listener", f"detached {url}", url=url, added=False)
            if port is not None:
                self._ports.detach(port.port)
            return {"url": url}
        record = self._find(target)
        if not isinstance(record, PortRecord):
            raise LocalError(
                f"no VM is attached to {target!r} yet; `supervisor detach {record.url}` closes its listener"
            )
        self._ports.detach(record.port)
        text = f"port {record.port} ({record.name}): to be detached"
        say("detach", text, port=record.port, name=record.name)
        return {"port": record.port, "name": record.name}

    def show(self, arguments: Arguments) -> object:
        """Return the settings in force at ``target``; ``port`` is null for a listener."""
        return _settings(self._find(as_text("target", take(arguments, target="")[0])))

    def set(self, arguments: Arguments) -> object:
        """Change ``settings`` of ``target``: all of them, or none.

        The answer comes when they are in force; ``confirmed`` is false if some worker does not answer in
        time. ``unconfirmed`` has the names of the ports whose workers have not confirmed them, and
        ``unmoved`` of those whose floods may still be heard by a port that is out of reach now.
        """
        target, wanted = take(arguments, target="", settings={})
        settings = as_mapping("settings", wanted)
        found = self._find(as_text("target", target))
        if not isinstance(found, PortRecord):
            return self._set_listener(found, settings)
        policy = changed(found.policy, settings)
        check_transport(found.transport, policy)
        self._listeners.check_pins(policy.pinned, port=found.id)
        missing = self._ports.set_policy(found.port, policy)
        record = self._of(found.port)
        label = {"port": found.port, "name": found.name}
        _say(f"port {found.port} ({found.name})", found.policy, record.policy, label)
        result = _settings(record) | {"nameless": self._nameless(record.policy)}
        return missing.map(lambda what: Reply(True, result | self._confirmed(what)))

    def _set_listener(self, listener: Listener, settings: dict[str, object]) -> object:
        before = listener.settings.policy
        policy = changed(before, settings)
        check_transport(listener.transport, policy)
        self._registry.check_pins(policy, 0 if listener.port is None else listener.port.port)
        self._listeners.check_pins(policy.pinned, url=listener.url)
        self._ports.kept.change(listener, settings)
        _say(listener.url, before, policy, {"url": listener.url})
        return _settings(listener) | {"nameless": self._nameless(policy), **self._confirmed(NOTHING)}

    def _confirmed(self, missing: Missing) -> dict[str, object]:
        return {
            "confirmed": missing == NOTHING,
            "unconfirmed": self._names(missing.workers),
            "unmoved": self._names(missing.floods),
        }

    def _names(self, ports: Collection[int]) -> list[str]:
        return [port.record.name for port in self._registry if port.record.port in ports]

    def _find(self, said: str) -> PortRecord | Listener:
        """Return the port or listener that ``said`` names. Raises LocalError."""
        target = parse_any(said)
        found = port_called(target, (port.record for port in self._registry))
        if found is not None:
            return found
        listener = self._listeners.find(target)
        if isinstance(listener, TapDevice) and listener.port is not None:
            return self._of(listener.port.port)
        if listener is None:
            raise LocalError(f"there is no port {said!r}; `supervisor status` lists the ports and listeners")
        return listener

    def _of(self, number: int) -> PortRecord:
        """Return the present record of an existing port."""
        port = self._registry.get(number)
        assert port is not None
        return port.record

    def _nameless(self, policy: Policy) -> list[str]:
        """Return the names in a port's reach that no port or listener has."""
        names = {port.record.name for port in self._registry} | {
            each.settings.name for each in self._listeners
        }
        return [name for name in policy.reaches if name not in names]


def _say(whose: str, before: Policy, after: Policy, fields: dict[str, Any]) -> None:
    """Log the change, and the user that asked for it."""
    known = shown(plain(before))
    news = [pair for pair in shown(plain(after)) if pair not in known]
    text = " ".join(f"{key}={value}" for key, value in news)
    say("set", f"{whose}: set {text or 'nothing new'}", **fields, settings=dict(news))


def _settings(found: PortRecord | Listener) -> dict[str, object]:
    """Return the settings of a port, or of a listener's future ports."""
    if isinstance(found, PortRecord):
        return {"port": found.port, "name": found.name, "settings": plain(found.policy)}
    name = found.settings.name or found.url
    return {"port": None, "name": name, "url": found.url, "settings": plain(found.settings.policy)}
