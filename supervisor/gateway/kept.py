"""Save the forwards and names that were added while a gateway ran, for the next supervisor.

Forwards of the command line or the file are in force again at the next start, even if they were removed
meanwhile. Added forwards are passed to the next gateway as ``kept-forward``. If one cannot be opened then,
since another program has its port, the gateway awaits it; the switch starts all the same. Zones are taken
over whole, unless the LAN has other addresses now.

Each change is an event that says who asked for it. The gateway reports a change with the number of the
operator's command, whose user is known here, or with the client of its HTTP API:

    forward add tcp:127.0.0.1:0:…:80, asked by 7    change 12    remember, by {"asked": 12}     by user 7
    POST /services/forwarder/expose                              remember, by {"client": …}     by that client
"""

import json
from collections.abc import Callable, Iterator, Mapping

from supervisor.base.logs import caller, log, say
from supervisor.base.saved_state import SavedState

PART = "gateway"
ONCE = ("ssh-port", "kept-forward")
"""Options that are forwards once the gateway serves, and remembered as that."""
LAN = ("subnet", "host-access")
"""Options that zones depend on: zones hold the names of the gateway and the host."""

MOST_ASKED = 64
"""The gateway answers in a millisecond; this is as many as can wait (``questions.MOST``)."""

User = dict[str, object]
"""Who asked: ``uid``, ``pid``, and ``via`` services for a client of the HTTP API."""


class KeptAdditions:
    """The additions to the gateway of one switch; they outlive the gateway's processes."""

    def __init__(self, saved: SavedState) -> None:
        self._saved = saved
        self._changes = 0
        self._asked: dict[int, User | None] = {}
        """The user of each change that an operator has asked for, the oldest first."""
        self._began_with: frozenset[str] | None = None
        """The forwards of the command line, with their real ports; None before the first gateway."""

    def restored(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return ``options`` with the additions that the supervisor before has saved."""
        return restored(options, self._saved.get(PART))

    def serves(self, result: object, options: Mapping[str, object]) -> None:
        """Note that a gateway serves.

        The ``forwards`` of the first one are the command line's; they are not saved.
        """
        forwards = result.get("forwards") if isinstance(result, dict) else None
        if self._began_with is None and isinstance(forwards, list):
            before = self._saved.get(PART)
            added = before.get("forward", []) if isinstance(before, dict) else []
            self._began_with = frozenset(forwards).difference(added)
            self.keep(options)

    def asked(self) -> int:
        """Note who asks for a change now; return the number with which the gateway is to report it."""
        self._changes += 1
        self._asked[self._changes] = caller()
        if len(self._asked) > MOST_ASKED:
            del self._asked[next(iter(self._asked))]
        return self._changes

    def say_changes(self, before: Mapping[str, object], after: Mapping[str, object], by: object) -> None:
        """Log the forwards and names that have come and gone; ``by`` is the gateway's word for the user."""
        user = self._user(by)
        was, now = (set(texts(each.get("forward"))) for each in (before, after))
        for text in sorted(now - was):
            say("forward", f"forward added: {text}", forward=text, added=True, by=user)
        for text in sorted(was - now):
            say("forward", f"forward removed: {text}", forward=text, added=False, by=user)
        for zone in _changed_zones(before, after):
            say("zone", f"names in {zone} changed", zone=zone, by=user)

    def _user(self, by: object) -> User | None:
        match by:
            case {"asked": int(number)}:
                return self._asked.pop(number, None)
            case {"client": {"uid": int(uid), "pid": int(pid)}}:
                return {"uid": uid, "pid": pid, "via": "services"}
        return None

    def keep(self, options: Mapping[str, object]) -> None:
        """Save the additions, before any client hears that they are in force."""
        if self._began_with is not None:
            self._saved.put(PART, to_keep(options, self._began_with))


def to_keep(options: Mapping[str, object], began_with: frozenset[str]) -> dict[str, object]:
    """Return what to save: the gateway's present ``options`` without those that it ``began_with``."""
    forwards = options.get("forward")
    added = [text for text in forwards if text not in began_with] if isinstance(forwards, list) else []
    return {
        "forward": added,
        "dns-zone": options.get("dns-zone"),
        "lan": [options.get(key) for key in LAN],
    }


def remembered(
    options: Mapping[str, object], told: Mapping[str, object], has_file: Callable[[str], bool]
) -> dict[str, object]:
    """Return what the next gateway is to begin with: ``options``, and what this one has ``told`` of its own.

    A guest may have taken it over, so only forwards and zones count, and of unix sockets those at which it
    listens, or was to listen from its start.
    """
    known = {*texts(options.get("forward")), *texts(options.get("kept-forward"))}
    forwards = [
        text
        for text in texts(told.get("forward"))
        if not text.startswith("unix:") or text in known or has_file(text)
    ]
    zones = {"dns-zone": texts(told["dns-zone"])} if "dns-zone" in told else {}
    lasting = {key: value for key, value in options.items() if key not in ONCE}
    return {**lasting, **zones, "forward": forwards}


def restored(options: Mapping[str, object], kept: object) -> dict[str, object]:
    """Return ``options`` with the saved ones in ``kept``."""
    if not isinstance(kept, dict):
        return dict(options)
    both = dict(options)
    forwards, zones = kept.get("forward"), kept.get("dns-zone")
    if isinstance(forwards, list):
        both["kept-forward"] = [text for text in forwards if isinstance(text, str)]
    if isinstance(zones, list):
        if kept.get("lan") == [options.get(key) for key in LAN]:
            both["dns-zone"] = zones
        else:
            log.warning("names that were added at run time are forgotten: the LAN has other addresses now")
    return both


def _changed_zones(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    """Return the domains whose names differ, from the JSON of the zones."""
    known = set(texts(before.get("dns-zone")))
    for text in texts(after.get("dns-zone")):
        if text in known:
            continue
        try:
            match json.loads(text):
                case {"Name": str(name)}:
                    yield name.rstrip(".")
        except (ValueError, RecursionError):
            continue


def texts(value: object) -> list[str]:
    """Return the texts of a list of plain data."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, (list, tuple)) else []
