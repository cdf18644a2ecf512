"""Decide which DNS questions the gateway answers itself, and how; all others go to the host's resolvers.

Pure data. ``Names.decide`` takes a name and a type. It returns records, or an empty list (the name exists
without that type), or that the name does not exist, or ``ASK`` (ask the host's resolvers). Every type of a
name of ours is decided here, so a client that asks for AAAA, HTTPS or TXT beside A never waits for a
resolver.

In this order:

1. special names: ``localhost`` and all below it are the guest itself, ``invalid`` and ``onion`` do
   not exist (RFC 6761, RFC 7686);
2. addresses (``in-addr.arpa``, ``ip6.arpa``) of the LAN, loopback and link-local (RFC 6303): a guest's name,
   the gateway's or the host's; all others do not exist;
3. the operator's records; each is a name of its own;
4. zones, in order: the first zone above the name decides, even if a later one is nearer. Its
   record, else a guest's name (in our own domain), else its default, else the name does not exist. A name
   without records that has names below it exists (RFC 8020). The domain's own name is not in its zone, but
   the names of our own domains exist;
5. a single label is looked up in our own domain; an unknown one does not exist. Only the types by which
   a guest that validates finds its keys (DS, DNSKEY) are asked for outside.

    web                      a guest's     host  the host alias   db.lab.example   as --dns-record says
    web.containers.internal  the same      com   does not exist   www.example.com  the resolvers know
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import NamedTuple

from gateway.api.names import Record as NameRecord
from gateway.api.names import Zone
from gateway.names.message import (
    AAAA,
    ANY,
    DNSKEY,
    DS,
    NAME_ERROR,
    NO_ERROR,
    PTR,
    A,
    Record,
    address,
    write_name,
)
from gateway.relay.policy import Address, OutboundPolicy
from gateway.settings import ALIASES, DOMAIN

GuestAddresses = Callable[[str], tuple[Address, ...]]
GuestName = Callable[[Address], str]

LOCALHOST = frozenset({"localhost", "localhost.localdomain"})
NOWHERE = frozenset({"invalid", "onion"})
KEYS = frozenset({DS, DNSKEY})

_LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_OWN4 = tuple(
    IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "255.255.255.255/32")
)
_NIBBLES = 32


class Decision(NamedTuple):
    """An answer."""

    code: int
    records: tuple[Record, ...] = ()


ASK = None
NOTHING = Decision(NO_ERROR)
_NO_ZONE: tuple[None, dict[str, list[Address]], frozenset[str]] = (None, {}, frozenset())
UNKNOWN = Decision(NAME_ERROR)


class Names:
    """All names that the gateway decides."""

    def __init__(
        self,
        policy: OutboundPolicy,
        records: Iterable[NameRecord],
        guests: GuestAddresses,
        guest_name: GuestName,
    ) -> None:
        """``guests`` returns the addresses of a guest's name, ``guest_name`` the name of an address or ""."""
        self._policy = policy
        self._guests = guests
        self._guest_name = guest_name
        self._own = _by_name((record.name, record.address) for record in records)
        self._zones: list[tuple[Zone, dict[str, list[Address]], frozenset[str]]] = []
        self._stations: dict[Address, str] = {
            policy.gateway4: f"gateway.{DOMAIN}",
            policy.prefix[1]: f"gateway.{DOMAIN}",
        }
        if policy.host_access:
            self._stations |= {policy.host4: f"host.{DOMAIN}", policy.host6: f"host.{DOMAIN}"}
        self._stations |= dict.fromkeys(_LOOPBACK, "localhost")

    def change_zones(self, zones: Iterable[Zone]) -> None:
        """Put these zones into force."""
        self._zones = []
        for zone in zones:
            records = _by_name((f"{record.name}.{zone.name}", record.address) for record in zone.records)
            self._zones.append((zone, records, _above(records, zone)))

    def is_configured(self, label: str) -> bool:
        """Whether the operator has defined this name, by itself or in our own domain."""
        full = f"{label}.{DOMAIN}"
        known = (label in self._own, full in self._own, *(full in records for _, records, _ in self._zones))
        return any(known)

    def decide(self, name: str, kind: int) -> Decision | None:
        """Decide the answer to a question for records of type ``kind`` of ``name``."""
        if name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return self._reverse(name, kind)
        if name in LOCALHOST or name.endswith(".localhost"):
            return _some(_LOOPBACK, kind)
        if name.rpartition(".")[2] in NOWHERE:
            return UNKNOWN
        if name in self._own:
            return _some(self._own[name], kind)
        if "." in name:
            return self._below_zones(name, kind)
        found = self._below_zones(f"{name}.{DOMAIN}", kind) if name else ASK
        return ASK if found == UNKNOWN and kind in KEYS else found

    def _below_zones(self, name: str, kind: int) -> Decision | None:
        zone, records, above = next((each for each in self._zones if each[0].has(name)), _NO_ZONE)
        if zone is None:
            return NOTHING if name in ALIASES else UNKNOWN if name.endswith(f".{DOMAIN}") else ASK
        if name in records:
            return _some(records[name], kind)
        label, _, domain = name.partition(".")
        guest = self._guests(label) if domain == DOMAIN else ()
        if guest:
            return _some(guest, kind)
        if zone.default is not None:
            return _some((zone.default,), kind)
        return NOTHING if name in above else UNKNOWN

    def _reverse(self, name: str, kind: int) -> Decision | None:
        """Decide the answer for a name below ``in-addr.arpa`` or ``ip6.arpa``."""
        labels = name.split(".")[:-2]
        is_ipv6 = name.endswith(".ip6.arpa")
        digits = _trailing(labels, _NIBBLES, _is_nibble) if is_ipv6 else _trailing(labels, 4, _is_octet)
        whole, ours = self._reversed(digits, is_ipv6=is_ipv6)
        if not ours:
            return ASK
        if len(digits) < len(labels):
            return UNKNOWN  # a name below an address or a network
        if whole is None:
            return NOTHING
        found = self._stations.get(whole)
        if found is None and (guest := self._guest_name(whole)):
            found = f"{guest}.{DOMAIN}"
        if found is None:
            return UNKNOWN
        return Decision(NO_ERROR, (Record(PTR, write_name(found)),)) if kind in (PTR, ANY) else NOTHING

    def _reversed(self, digits: list[str], *, is_ipv6: bool) -> tuple[Address | None, bool]:
        """Return the address that begins with ``digits``, if they are all of it, and whether it is ours."""
        if not is_ipv6:
            if not digits:
                return None, False
            network = IPv4Network((".".join(digits + ["0"] * (4 - len(digits))), 8 * len(digits)))
            ours = any(network.subnet_of(each) for each in (self._policy.subnet, *_OWN4))
            return network[0] if len(digits) == 4 else None, ours
        nibbles = "".join(digits)
        number = int(nibbles.ljust(_NIBBLES, "0"), 16)
        prefix = f"{int(self._policy.prefix.network_address):032x}"[:16]
        # fe80::/10 is 1111 1110 10: fe8, fe9, fea and feb.
        ours = nibbles.startswith((prefix, "fe8", "fe9", "fea", "feb", "0" * 31))
        return ip_address(number.to_bytes(16, "big")) if len(nibbles) == _NIBBLES else None, ours


def _some(addresses: Iterable[Address], kind: int) -> Decision:
    """Return the records of that type; the list may be empty."""
    wanted = {A: (4,), AAAA: (6,), ANY: (4, 6)}.get(kind, ())
    return Decision(NO_ERROR, tuple([address(each) for each in addresses if each.version in wanted]))


def _by_name(pairs: Iterable[tuple[str, Address]]) -> dict[str, list[Address]]:
    found: dict[str, list[Address]] = {}
    for name, each in pairs:
        found.setdefault(name, []).append(each)
    return found


def _above(records: Iterable[str], zone: Zone) -> frozenset[str]:
    """Return the names of a zone that have names below them."""
    found = set()
    for name in records:
        parent = name.partition(".")[2]
        while zone.has(parent):
            found.add(parent)
            parent = parent.partition(".")[2]
    return frozenset(found)


def _trailing(labels: list[str], most: int, fits: Callable[[str], bool]) -> list[str]:
    """Return the last labels of a reverse name, turned round: the beginning of an address."""
    found: list[str] = []
    for label in reversed(labels):
        if len(found) == most or not fits(label):
            break
        found.append(label)
    return found


def _is_octet(label: str) -> bool:
    return (
        label.isascii()
        and label.isdecimal()
        and len(label) <= 3
        and int(label) < 256
        and str(int(label)) == label
    )


def _is_nibble(label: str) -> bool:
    return len(label) == 1 and label in "0123456789abcdef"
