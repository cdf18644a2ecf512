"""Say what becomes of leases: the gateway's records, checked and put into words.

The gateway reads what guests send, so a record may be a lie of one that was taken over. It has one of the
words of ``SENTENCES`` and addresses that are addresses. A record that is none raises PeerError, which ends
the gateway.

    {"word": "given", "port": 3, "born": 1, "mac": "52:54:00:00:00:0a", "address": "192.168.127.5", …}
    event ``lease``: port 3 (web): 52:54:00:00:00:0a has the address 192.168.127.5, state given
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from forwarder.errors import PeerError
from forwarder.names import PortId, format_mac, valid_name
from supervisor.base.logs import say


class _Sentence(NamedTuple):
    event: str
    text: str
    level: str
    fields: Mapping[str, str]


def _lease(text: str, level: str = "info", **fields: str) -> _Sentence:
    return _Sentence("lease", text, level, fields)


def _ended(text: str, reason: str, level: str = "info") -> _Sentence:
    return _lease(f"no longer has the address {{address}}: {text}", level, state="ended", reason=reason)


def _refused(text: str, reason: str, level: str = "warning") -> _Sentence:
    return _Sentence("lease-refused", text, level, {"reason": reason})


SENTENCES = {
    "given": _lease("has the address {address}", state="given"),
    "renewed": _lease("has renewed its lease of {address}; later renewals are no events", state="renewed"),
    "left": _ended("its VM has left", "left"),
    "released": _ended("it gave the lease back", "released"),
    "expired": _ended("it did not renew the lease in time", "expired"),
    "other-server": _ended("it took the offer of another DHCP server", "other-server", "warning"),
    "no-address": _refused("gets no lease: no address is left, or the port has its share", "no-address"),
    "in-use": _refused("gets no lease of {address}, which another VM has", "in-use"),
    "not-offered": _refused("asked for {address}, which was not offered to it", "not-offered", "info"),
    "declined": _refused("has found another station with the address {address}", "declined"),
}
"""For each word of the gateway: the event, its sentence, level and fields."""

_MAC_BYTES = 6
NameOf = Callable[[PortId], str | None]


def say_lease(record: Mapping[str, object], lost: int, name_of: NameOf) -> None:
    """Log a record of the gateway as an event, which stands for ``lost`` ones before it, too.

    Raises PeerError if it is none.
    """
    match record:
        case {
            "word": str(word),
            "port": int(number),
            "born": int(born),
            "mac": str(mac),
            "address": str(address),
            "host": str(host),
            "more": int(more),
        }:
            pass
        case _:
            raise PeerError(f"a malformed record of a lease: {dict(record)!r:.200}")
    try:
        sentence = SENTENCES[word]
        mac = format_mac(_mac(mac))
        address = str(IPv4Address(address)) if address else ""
    except (KeyError, ValueError) as error:
        raise PeerError(f"a malformed record of a lease: {error}") from None
    name = name_of(PortId(number, born))
    port = f"port {number}" if name is None else f"port {number} ({name})"
    text = f"{port}: {mac} {sentence.text.format(address=address)}"
    more = max(more, 0) + lost
    if more:
        text += f", and {more} more events of its leases"
    say(
        sentence.event,
        text,
        sentence.level,
        port=number,
        name=name,
        mac=mac,
        address=address or None,
        host=host if valid_name(host) else None,
        more=more or None,
        **sentence.fields,
    )


def _mac(text: str) -> bytes:
    """Return the six bytes of an address, which need not be one that a station should have."""
    mac = bytes.fromhex(text.replace(":", ""))
    if len(mac) != _MAC_BYTES:
        raise ValueError(f"{text!r} is no MAC address")
    return mac
