"""Attachments made while the switch runs: in an operator's words, kept for the next supervisor.

What the command line or the file says is opened by them, after a restart too. What ``supervisor attach`` has
said is kept here for as long as it is open, in the same words, with the port that the kernel chose. The next
supervisor opens it again behind all others; what cannot be opened then is said and forgotten.
"""

from collections.abc import Mapping
from typing import Any, cast

from forwarder.errors import LocalError
from forwarder.names import Policy
from supervisor.attach.addresses import SCHEMES, Attachment, PortOptions, parse_listen, parse_tap
from supervisor.attach.listeners import Listeners
from supervisor.base.logs import log
from supervisor.base.saved_state import SavedState
from supervisor.ports.settings import changed, check_transport

PART = "attachments"
Words = Mapping[str, Any]
"""``transport``, ``url`` (of a TAP its name), ``name`` or None, ``settings`` by name."""


def attachment_of(words: Words) -> Attachment:
    """Return what ``words`` say. Raises LocalError."""
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
    """What was attached at run time and is open still."""

    def __init__(self, listeners: Listeners, saved: SavedState) -> None:
        self._listeners = listeners
        self._saved = saved
        self._words: dict[str, Words] = {}
        self._restored = False

    def open(self, words: Words) -> str:
        """Open one and keep it; return its URL as it turned out. Raises LocalError."""
        url = self._open(words)
        self.save()
        return url

    def _open(self, words: Words) -> str:
        url = self._listeners.open(attachment_of(words))
        self._words[url] = {**words, "url": words["url"] if words["transport"] == "tap" else url}
        return url

    def save(self) -> None:
        """Keep those that are open, and forget the others. Before ``restore`` there is nothing to say."""
        if not self._restored:
            return
        there = {each.url for each in self._listeners}
        self._words = {url: words for url, words in self._words.items() if url in there}
        self._saved.put(PART, list(self._words.values()))

    def restore(self) -> list[str]:
        """Open what the supervisor before has kept; return the URLs."""
        opened = []
        kept = self._saved.get(PART)
        for words in kept if isinstance(kept, list) else []:
            try:
                if not isinstance(words, dict):
                    raise LocalError(f"{words!r} is no attachment")
                opened.append(self._open(cast(Words, words)))
            except LocalError as error:
                log.warning("what was attached at run time is not attached again: %s", error)
        self._restored = True
        self.save()
        return opened
