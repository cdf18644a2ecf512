"""Read and check the operator's DNS names: single records and zones, as pure data.

Theory of operation
-------------------
A zone is gvproxy's (``pkg/types``, ``pkg/services/dns``): a domain, addresses for names below it, and
optionally a default address for all other names below it, which do not exist otherwise. The domain's own name
is not in its zone. Zones are checked in order: the first one above a name decides, even if a later one is
nearer. A zone that is added to one of the same name precedes it: its records and its default win. A
``Record`` without a zone wins over all.

Regular expressions are refused: Go's are not Python's. gvproxy asks the host's resolver for other record
types of a zone's names; here a zone is always answered locally. A name without records that has names below
it exists (RFC 8020); gvproxy answers that it does not.

Every name and address is checked by ``domain`` or ``address`` here.
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from gateway.relay.policy import Address

MOST_RECORDS = 1024
"""Records of all zones; a zone counts as one, too. One for each possible VM, and about the size of a
message."""

LONGEST = 253
"""Letters of a name: RFC 1035, without the length bytes and the root."""


class Record(NamedTuple):
    """A name and one of its addresses."""

    name: str
    address: Address


class Zone(NamedTuple):
    """A domain; the names of its records are below it. Names are in lower case, without a dot at the end."""

    name: str
    records: tuple[Record, ...] = ()
    default: Address | None = None

    @classmethod
    def parse(cls, text: str | bytes) -> "Zone":
        """Read gvproxy's JSON. Raises ValueError with one line about the mistake."""
        try:  # UTF-8 alone, as in ``services``
            plain = json.loads(text.decode() if isinstance(text, bytes) else text)
        except (ValueError, RecursionError):
            raise ValueError("that is not JSON") from None
        zone = _fields(plain, "a zone")
        records = [] if zone.get("records") is None else zone["records"]
        if not isinstance(records, list) or len(records) > MOST_RECORDS:
            raise ValueError(f"Records has to be a list of at most {MOST_RECORDS}")
        name = domain(_text(zone, "name"))
        default = _text(zone, "defaultip")
        return _effective(
            cls(name, tuple(_record(each, name) for each in records), address(default) if default else None)
        )

    def __str__(self) -> str:
        return json.dumps(self.plain())

    def plain(self) -> dict[str, object]:
        """Return it in gvproxy's JSON."""
        return {
            "Name": f"{self.name}.",
            "Records": [{"Name": each.name, "IP": str(each.address)} for each in self.records],
            "DefaultIP": "" if self.default is None else str(self.default),
        }

    def has(self, name: str) -> bool:
        """Whether ``name`` is below this domain."""
        return name.endswith(f".{self.name}")


def added(zones: tuple[Zone, ...], zone: Zone) -> tuple[Zone, ...]:
    """Return ``zones`` with one more. Raises ValueError if there are too many records."""
    names = [each.name for each in zones]
    if zone.name in names:
        index = names.index(zone.name)
        both = _effective(zone._replace(records=(*zone.records, *zones[index].records)))
        result = (*zones[:index], both, *zones[index + 1 :])
    else:
        result = (*zones, zone)
    if sum(1 + len(each.records) for each in result) > MOST_RECORDS:
        raise ValueError(f"the zones would have more than {MOST_RECORDS} records; leave some out")
    return result


def domain(text: str) -> str:
    """Return a name of one or more labels in its canonical form. Raises ValueError."""
    name = ".".join([label(each) for each in text.removesuffix(".").split(".")])
    if len(name) > LONGEST:
        raise ValueError(f"{name[:20]}… is no name; it has more than {LONGEST} letters")
    return name


def label(text: str) -> str:
    """Return one label of a name in its canonical form. Raises ValueError."""
    plain = text.replace("-", "").replace("_", "")
    if not (0 < len(text) <= 63 and plain.isascii() and plain.isalnum() and text[0] != "-"):
        raise ValueError(f"{text!r} is no name; use up to 63 letters, digits and dashes")
    return text.lower()


def address(text: str) -> Address:
    """Return an address that a name can have. Raises ValueError."""
    try:
        found = ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None
    if isinstance(found, IPv4Address):
        return found
    if found.scope_id is not None:  # a zone may be any text for Python
        raise ValueError(f"{text!r} has a zone; a name's address is without")
    return found.ipv4_mapped or IPv6Address(int(found))


def _record(plain: object, zone: str) -> Record:
    record = _fields(plain, "a record")
    if record.get("regexp") is not None:
        raise ValueError("Regexp is not supported; give a Name for each, or the zone a DefaultIP for all")
    name = domain(_text(record, "name"))
    domain(f"{name}.{zone}")
    return Record(name, address(_text(record, "ip")))


def _effective(zone: Zone) -> Zone:
    """Leave out records that an earlier one of the same name and kind of address overrules."""
    first: dict[tuple[str, int], Record] = {}
    for record in zone.records:
        first.setdefault((record.name, record.address.version), record)
    return zone._replace(records=tuple(first.values()))


def _fields(plain: object, what: str) -> Mapping[str, object]:
    """Return the fields by their names in lower case, since Go's JSON ignores case."""
    if not isinstance(plain, dict):
        raise ValueError(f"{what} has to be a JSON object")
    return {key.lower(): value for key, value in plain.items()}


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str | None):
        raise ValueError(f"{key} has to be text")
    return value or ""
