"""Save attachments, and settings of listeners, that were made while the switch runs, for the next supervisor.

The command line and the file open their own attachments, after a restart too. An attachment of ``supervisor
attach`` is saved here while it is open, in the operator's words, with the TCP port that the kernel chose. The
next supervisor opens it again after all others. If it cannot, it logs that and forgets the attachment.
Settings that ``supervisor set`` has changed at a listener of the command line are changed again there.
"""

from collections.abc import Mapping
from typing import Any, cast

from forwarder.errors import LocalError
from forwarder.names import Policy
from supervisor.attach.addresses import SCHEMES, Attachment, PortOptions, parse_listen, parse_tap
from supervisor.attach.listeners import Listener, Listeners
from supervisor.base.logs import log
from supervisor.base.saved_state import SavedState
from supervisor.ports.settings import changed, check_transport

PART = "attachments"
CHANGES = "listener-settings"
Words = Mapping[str, Any]
"""``transport``, ``url`` (for a TAP its name), ``name`` or None, ``settings`` by name."""


def attachment_of(words: Words) -> Attachment:
    """Return the attachment in ``words``. Raises LocalError."""
    transport, url, name, settings = (words.get(key) for key in ("transport", "url", "name", "settings"))
    if not isinstance(url, str) or not isinstance(settings, dict) or not isinstance(name, str | None):
        raise LocalError(f"{dict(words)!r} is no attachment")
    if transport != "tap" and transport not in SCHEMES:
        raise LocalError(f"{transport!r} is no transport; use {', '.join(SCHEMES)} or tap")
    policy = changed(Policy(), settings)
    check_transport(str(transport), policy)
    address = parse_tap(url) if transport == "tap" else parse_listen(transport, url)
    return Attachment(address, PortOptions(name, policy).checked())


class KeptAttachments:
    """The attachments that were made at run time and are still open."""

    def __init__(self, listeners: Listeners, saved: SavedState) -> None:
        self._listeners = listeners
        self._saved = saved
        self._words: dict[str, Words] = {}
        self._changes: dict[str, dict[str, object]] = {}
        """Changed settings of listeners of the command line: URL to settings by name."""
        self._restored = False

    def open(self, words: Words) -> str:
        """Open an attachment and save it; return its real URL. Raises LocalError."""
        url = self._open(words)
        self.save()
        return url

    def _open(self, words: Words) -> str:
        url = self._listeners.open(attachment_of(words))
        self._words[url] = {**words, "url": words["url"] if words["transport"] == "tap" else url}
        return url

    def change(self, listener: Listener, settings: dict[str, object]) -> None:
        """Change the settings, by name, of a listener's future ports, and save that. Raises LocalError."""
        policy = changed(listener.settings.policy, settings)
        listener.settings = listener.settings._replace(policy=policy)
        words = self._words.get(listener.url)
        if words is None:
            self._changes[listener.url] = self._changes.get(listener.url, {}) | settings
        else:
            self._words[listener.url] = {**words, "settings": words["settings"] | settings}
        self.save()

    def save(self) -> None:
        """Save the open ones and forget the others; does nothing before ``restore``."""
        if not self._restored:
            return
        there = {each.url for each in self._listeners}
        self._words = {url: words for url, words in self._words.items() if url in there}
        self._changes = {url: settings for url, settings in self._changes.items() if url in there}
        self._saved.put(PART, list(self._words.values()))
        self._saved.put(CHANGES, dict(self._changes))

    def restore(self) -> list[str]:
        """Open the attachments that the supervisor before has saved; return the URLs."""
        opened = []
        kept = self._saved.get(PART)
        for words in kept if isinstance(kept, list) else []:
            try:
                if not isinstance(words, dict):
                    raise LocalError(f"{words!r} is no attachment")
                opened.append(self._open(cast(Words, words)))
            except LocalError as error:
                log.warning("an attachment that was made at run time cannot be restored: %s", error)
        changes = self._saved.get(CHANGES)
        for url, settings in changes.items() if isinstance(changes, dict) else ():
            self._change_again(url, settings)
        self._restored = True
        self.save()
        self._listeners.save()
        return opened

    def _change_again(self, url: str, settings: object) -> None:
        listener = self._listeners.find(url)
        try:
            if listener is None or not isinstance(settings, dict):
                raise LocalError("nothing is attached there")
            self.change(listener, settings)
        except LocalError as error:
            log.warning("settings that were changed at run time for %s cannot be restored: %s", url, error)
