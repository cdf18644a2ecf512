"""The table of inbound forwards: from an address of the host to a port of a guest; pure.

A forward is written ``tcp:HOST:PORT:GUEST:PORT``, ``udp:…`` or ``unix:PATH:GUEST:PORT``; an IPv6 address
stands in brackets. Port 0 of the host lets the kernel choose, and the table then holds what it chose. The
table knows what the settings forbid; what only the kernel knows (a port that another program has) is found
by the supervisor, which makes the listeners. An entry is made after its listener, so that the table never
promises what is not there; meanwhile its place is ``begun``.

Bounds: ``MAX_FORWARDS`` entries, begun ones included, each of which is a descriptor.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from typing import NamedTuple

from forwarder.errors import LocalError, UsageError
from forwarder.socket_address import port_number
from gateway.relay.policy import Address, OutboundPolicy, is_guest

MAX_FORWARDS = 1024
"""Several for each possible VM, and few compared with the descriptors of connections."""

LONGEST_PATH = 107
"""Longest path of a unix socket on Linux, in bytes."""

_NOBODY = IPv4Address(0)

FORMS = "tcp:HOST:PORT:GUEST:PORT, udp:HOST:PORT:GUEST:PORT or unix:PATH:GUEST:PORT"


class Forward(NamedTuple):
    """One forward. ``host`` and ``port`` are for tcp and udp, ``path`` for unix."""

    kind: str
    guest: Address
    guest_port: int
    host: Address = IPv4Address(0)
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Forward":
        """Read a forward in the form of ``str``. Raises UsageError, which quotes the text and the mistake."""
        kind, _, rest = text.partition(":")
        words = _words(rest)
        if kind == "unix" and len(words) >= 3:
            path = ":".join(words[:-2])
            if not path.startswith("/") or "\0" in path or len(path.encode()) > LONGEST_PATH:
                raise UsageError(
                    f"forward {text!r}: give an absolute path of at most {LONGEST_PATH} bytes for the socket"
                )
            return cls(kind, _address(text, words[-2]), _port(text, words[-1], 1), path=path)
        if kind in ("tcp", "udp") and len(words) == 4:
            host, port = _address(text, words[0] or "127.0.0.1"), _port(text, words[1], 0)
            return cls(kind, _address(text, words[2]), _port(text, words[3], 1), host, port)
        raise UsageError(f"forward {text!r} is not of the form {FORMS}")

    def __str__(self) -> str:
        return f"{self.near}:{_bracketed(self.guest)}:{self.guest_port}"

    @property
    def near(self) -> str:
        """The host's address: it identifies a forward, since only one listener can have it."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"{self.kind}:{_bracketed(self.host)}:{self.port}"


def canonical(near: str) -> str:
    """Return where the host listens as ``Forward.near`` writes it; unchanged if that cannot be read."""
    try:
        return Forward.parse(f"{near}:{_NOBODY}:1").near
    except LocalError:
        return near


class Forwards:
    """The table, in the order in which entries were made."""

    def __init__(self, policy: OutboundPolicy) -> None:
        self._policy = policy
        self._entries: dict[str, Forward] = {}
        self._begun: list[Forward] = []
        """Those that have no listener yet."""

    def __iter__(self) -> Iterator[Forward]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, forward: Forward) -> None:
        """Raise LocalError, with cause and remedy, if ``forward`` cannot be added."""
        try:
            check_guest(self._policy, forward.guest)
        except LocalError as error:
            raise LocalError(f"forward {forward}: {error}") from None
        begun = next((each for each in self._begun if each.near == forward.near), None)
        any_port = forward.kind != "unix" and forward.port == 0
        there = None if any_port else self._entries.get(forward.near, begun)
        if there is not None:
            raise LocalError(
                f"forward {forward}: {forward.near} leads to {_guest(there)} already; remove it first"
            )
        if len(self._entries) + len(self._begun) >= MAX_FORWARDS:
            raise LocalError(
                f"forward {forward}: there are {MAX_FORWARDS} forwards already; remove one first"
            )

    def begin(self, forward: Forward) -> None:
        """Keep a place for a forward whose listener is being made. Raises LocalError like ``check``."""
        self.check(forward)
        self._begun.append(forward)

    def end(self, forward: Forward) -> None:
        """Give the place back that was kept for a forward, which is added now or not at all."""
        self._begun.remove(forward)

    def add(self, forward: Forward) -> None:
        """Add a forward whose listener exists. Raises LocalError like ``check``."""
        self.check(forward)
        self._entries[forward.near] = forward

    def remove(self, forward: Forward) -> None:
        """Forget ``forward``. Raises LocalError if exactly this one is not in the table."""
        there = self._entries.get(forward.near)
        if there is None:
            raise LocalError(f"there is no forward at {forward.near}; `supervisor forward list` shows all")
        if there != forward:
            raise LocalError(f"{forward.near} leads to {_guest(there)}, not to {_guest(forward)}")
        del self._entries[forward.near]


def check_guest(policy: OutboundPolicy, guest: Address) -> None:
    """Raise LocalError, with cause and remedy, if no guest can have that address."""
    network = policy.subnet if guest.version == 4 else policy.prefix
    if guest not in network:
        raise LocalError(
            f"{guest} is outside of the gateway's {network}; "
            "name a guest's address, or choose another --subnet"
        )
    if not is_guest(policy, guest):
        raise LocalError(f"{guest} is the gateway's own address or a group's, not a guest's")


def _guest(forward: Forward) -> str:
    return f"{_bracketed(forward.guest)}:{forward.guest_port}"


def _bracketed(address: Address) -> str:
    return str(address) if address.version == 4 else f"[{address}]"


def _words(text: str) -> list[str]:
    """Split at the colons that are not in brackets, and drop the brackets around a whole word."""
    words, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == ":" and depth == 0:
            words.append("")
        else:
            words[-1] += letter
    return words


def _address(text: str, word: str) -> Address:
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    try:
        address = ip_address(bare)
    except ValueError:
        raise UsageError(
            f"forward {text!r}: {word!r} is not an IP address; names are not looked up"
        ) from None
    if "%" in bare:
        raise UsageError(f"forward {text!r}: an address with a zone cannot be forwarded")
    return address


def _port(text: str, word: str, lowest: int) -> int:
    number = port_number(word)
    if number is None or number < lowest:
        raise UsageError(f"forward {text!r}: {word!r} is not a port from {lowest} to 65535")
    return number
