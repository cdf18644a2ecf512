"""Do the addresses of two ends fit together? Subnets, families, VLANs, and addresses that two VMs use.

Theory of operation
-------------------
The switch sees no netmask. It sees the addresses that VMs ask and answer with (ARP and neighbour discovery)
and the leases (``dealings.used_by``), and the VLAN tag of each question. Two VMs that have talked in the last
minute agree, whatever their addresses look like. A VM may have several addresses: one that fits is enough.

    web asks as 10.99.0.1, in VLAN 10      db asks as 10.99.0.2, without a tag      VLANs differ
    web asks as fd00::1                    db asks as 10.99.0.2                     no common family
    web asks as 10.99.0.7                  thief asks as 10.99.0.7                  one address, two VMs
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from supervisor.explain.dealings import talk, used_by
from supervisor.explain.ends import RECENT_S, End, Facts, Json, is_gateway, rows_of
from supervisor.explain.naming import far_end

SUBNET_BITS = {4: 24, 6: 64}
"""Two addresses that differ within as many bits are in other subnets, unless a VM has an unusual netmask."""
_GUEST = re.compile(r"(\[[^\[\]]+\]|[^:]+):[0-9]+$")
"""The guest's end of a forward, as ``forward list`` shows it."""


def subnets(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find addresses that no common subnet has."""
    if facts.gateway is not None:
        lan = ip_network(facts.gateway["subnet"])
        for row in rows_of(a, b):
            used = _of(row, facts, 4) if not is_gateway(row) else []
            for address in used[:1] if not any(ip_address(each) in lan for each in used) else ():
                yield True, f"{row['name']} uses {address}, which is not in the gateway's subnet {lan}"
    pair = _strangers(a, b, facts)
    if pair is None:
        return
    one, other = pair
    by_family = [(version, _of(one, facts, version), _of(other, facts, version)) for version in SUBNET_BITS]
    shared = {
        version: _subnets(mine, version) & _subnets(theirs, version) for version, mine, theirs in by_family
    }
    for version, mine, theirs in by_family:
        if mine and theirs and not shared[version]:
            both = f"{one['name']} uses {mine[0]} and {other['name']} {theirs[0]}"
            yield not any(shared.values()), f"{both}, which are in different subnets"


def families(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find that one end uses IPv6 alone, and the other one IPv4 alone."""
    pair = _strangers(a, b, facts)
    if pair is None:
        return
    four, six = ([_of(row, facts, version) for row in pair] for version in (4, 6))
    for new, old in ((0, 1), (1, 0)):
        if six[new] and four[old] and not four[new] and not six[old]:
            only = f"{pair[new]['name']} uses IPv6 only ({six[new][0]})"
            yield True, f"{only}, and {pair[old]['name']} IPv4 only ({four[old][0]}): no address fits"


def vlans(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find that the guests of two ends use other VLANs, which the switch passes on as they are."""
    pair = _strangers(a, b, facts)
    if pair is None:
        return
    mine, theirs = ({each["vlan"] for each in _asked(row, facts)} for row in pair)
    if mine and theirs and not mine & theirs:
        both = f"{pair[0]['name']} sends {_tags(mine)} and {pair[1]['name']} {_tags(theirs)}"
        yield True, f"{both}: their guests' VLANs differ"


def duplicates(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find IP addresses of an end that another VM has used in the last minute, too."""
    users: dict[tuple[str, int], set[str]] = {}
    names = {row["port"]: row["name"] for row in facts.status["ports"]}
    for each in facts.questions:
        if each["age_s"] <= RECENT_S and each["sender"] and each["port"] in names:
            users.setdefault((each["sender"], each["vlan"]), set()).add(names[each["port"]])
    ends = {row["name"] for row in rows_of(a, b)}
    for (address, _), found in sorted(users.items()):
        if len(found) > 1 and found & ends and not ip_address(address).is_link_local:
            where = " and ".join(sorted(found))
            yield True, f"{address} is a duplicate IP address: VMs behind {where} use it"


def no_forward(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find that nothing leads from the host, or from outside, to a VM."""
    if facts.gateway is None or not a.outside or b.row is None or is_gateway(b.row):
        return
    used, port = used_by(b.row["port"], facts), far_end(b.said)[1]
    led = [far_end(found[0]) for each in facts.forwards if (found := _GUEST.search(each))]
    if not any(address in used and port in (None, guest) for address, guest in led):
        to = b.name if port is None else f"port {port} of {b.name}"
        yield False, f"no forward leads to {to}, and nothing else does; `supervisor forward add` makes one"


def _strangers(a: End, b: End, facts: Facts) -> tuple[Json, Json] | None:
    """Return the ports of two ends that have not talked lately."""
    if a.row is None or b.row is None or a.row is b.row or talk(a.row, b.row, facts):
        return None
    return a.row, b.row


def _of(row: Json, facts: Facts, version: int) -> list[str]:
    return sorted(each for each in used_by(row["port"], facts) if ip_address(each).version == version)


def _asked(row: Json, facts: Facts) -> list[Json]:
    return [each for each in facts.questions if each["port"] == row["port"] and each["age_s"] <= RECENT_S]


def _subnets(addresses: list[str], version: int) -> set[str]:
    return {str(ip_network(f"{each}/{SUBNET_BITS[version]}", strict=False)) for each in addresses}


def _tags(vlans: set[int]) -> str:
    return " and ".join(f"in VLAN {vlan}" if vlan else "without a VLAN tag" for vlan in sorted(vlans))
