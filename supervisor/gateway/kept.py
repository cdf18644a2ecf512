"""What of a gateway outlives its supervisor: forwards and names that were added while it ran.

What the command line or the file says counts again at the next start, whether it was removed meanwhile or
not. What was added is told to the next gateway as ``kept-forward``; a forward that cannot be had then is
said and left out, since another program may have its port by now, and must not keep the switch from starting.
Zones are taken over whole, unless the LAN has other addresses now.
"""

from collections.abc import Mapping

from supervisor.base.logs import log, say
from supervisor.base.saved_state import SavedState

PART = "gateway"
LAN = ("subnet", "host-access")
"""Options that zones depend on: the names of the gateway and the host are in them."""


class KeptAdditions:
    """What is added to one switch's gateway, whatever its process."""

    def __init__(self, saved: SavedState) -> None:
        self._saved = saved
        self._began_with: frozenset[str] | None = None
        """The forwards of the command line, as they turned out; None: there was no gateway yet."""

    def restored(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return ``options`` with what the supervisor before has kept."""
        return restored(options, self._saved.get(PART))

    def serves(self, result: object, options: Mapping[str, object]) -> None:
        """Note a gateway that serves: the ``forwards`` of the first one are those that need not be kept."""
        forwards = result.get("forwards") if isinstance(result, dict) else None
        if self._began_with is None and isinstance(forwards, list):
            before = self._saved.get(PART)
            added = before.get("forward", []) if isinstance(before, dict) else []
            self._began_with = frozenset(forwards).difference(added)
            self.keep(options)

    def keep(self, options: Mapping[str, object]) -> None:
        """Keep what was added, before anybody is told that it was."""
        if self._began_with is not None:
            self._saved.put(PART, to_keep(options, self._began_with))


def to_keep(options: Mapping[str, object], began_with: frozenset[str]) -> dict[str, object]:
    """Return what to keep: ``options`` as the gateway remembers them, without what it ``began_with``."""
    forwards = options.get("forward")
    added = [text for text in forwards if text not in began_with] if isinstance(forwards, list) else []
    return {
        "forward": added,
        "dns-zone": options.get("dns-zone"),
        "lan": [options.get(key) for key in LAN],
    }


def restored(options: Mapping[str, object], kept: object) -> dict[str, object]:
    """Return ``options`` with what was ``kept``."""
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


def say_forwards(before: object, after: object) -> None:
    """Say which forwards have come and gone."""
    was, now = (set(each) if isinstance(each, (list, tuple)) else set() for each in (before, after))
    for text in sorted(now - was):
        say("forward", f"forward added: {text}", forward=text, added=True)
    for text in sorted(was - now):
        say("forward", f"forward removed: {text}", forward=text, added=False)
