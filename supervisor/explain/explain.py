"""Explain why A can or cannot reach B: a pure function from answers of the console to a sentence and facts.

Theory of operation
-------------------
``naming.find`` finds both ends: a port (by number, name, MAC or IP address), the host, or an address outside.
Then the checks in ``CHECKS`` run in order. A check yields findings. A finding that *stops* means that they
cannot talk. Any other finding is a *doubt*: the switch carries their frames, but the operator should know
it. The answer has the first finding that stops, or else the first doubt.

Example: ``explain web db``; db's VM takes no frames, web's has no lease.

    state     -
    isolated  -
    stalled   stops: db is stalled: its VM takes no frames
    lease     doubt: web has no address from the gateway
    answer    web cannot reach db: db is stalled: its VM takes no frames

Nothing here asks or waits; ``facts`` does.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from supervisor.explain import addressing, dealings
from supervisor.explain.ends import Check, End, Facts, Finding, Json, is_gateway, port_of, rows_of
from supervisor.explain.naming import far_address, find

TWICE_S = 120
"""An address that two ports have used within so many seconds is a duplicate."""
WAITING = {
    "pending": "waits for a worker",
    "starting": "has a worker that does not forward yet",
    "waiting": "has lost its worker and waits for the next one",
    "parked": "is parked: it lost too many workers; detach it, or have its VM connect again",
    "ending": "is about to end",
    "silent": "has a silent worker",
}
GATEWAY_STATES = {
    "silent": "it does not answer, and may be stopped or stuck",
    "waiting": "its process was lost, and the next one starts in a moment",
    "starting": "its process does not serve yet",
    "parked": "its process was lost too often; it is started again within a minute",
}
REFUSALS = {
    "denied": "--deny names a network that it is in",
    "no_host_access": "--no-host-access forbids it",
    "no_outbound": "--no-outbound forbids it",
    "metadata": "it is a cloud's metadata address, which --allow does not name",
    "unroutable": "it is no single station elsewhere",
}


def explain(a: str, b: str, facts: Facts) -> Json:
    """Return ``talk``, the ``answer``, the ``findings`` and the facts of both ``ends``."""
    one, other = find(a, facts), find(b, facts)
    found = [finding for check, look in CHECKS for finding in _named(check, look(one, other, facts))]
    stops = [finding for finding in found if finding.stops]
    doubts = [finding for finding in found if not finding.stops]
    if stops:
        answer = f"{one.name} cannot reach {other.name}: {stops[0].text}"
    elif doubts:
        answer = f"the switch carries frames between {one.name} and {other.name}, but {doubts[0].text}"
    else:
        answer = f"{one.name} can reach {other.name}"
    return {
        "talk": not stops,
        "answer": answer,
        "findings": [finding._asdict() for finding in [*stops, *doubts]],
        "path": _path(one, other),
        "ends": [_shown(end, facts) for end in (one, other)],
        "gateway": facts.status["gateway"],
        "sent": dealings.between(one, other, facts),
        "unanswered": dealings.open_questions(one, other, facts),
        "lost_between": _lost_between(one, other, facts),
    }


def _named(check: str, findings: Iterable[tuple[bool, str]]) -> Iterator[Finding]:
    return (Finding(check, stops, text) for stops, text in findings)


def _missing(a: End, b: End, _: Facts) -> Iterator[tuple[bool, str]]:
    for end in (a, b):
        if end.missing:
            yield True, f"{end.said}: {end.missing}"
    if a.row is not None and a.row is b.row:
        yield (
            True,
            f"both are behind port {a.row['port']}; the switch sends no frame back to its own port",
        )


def _state(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    gateway = facts.status["gateway"]
    for row in rows_of(a, b):
        if is_gateway(row) and gateway is not None and gateway["state"] != "live":
            continue  # its port is as the gateway is, of which `_gateway` tells
        if row["state"] in WAITING:
            yield True, f"{row['name']} {WAITING[row['state']]}"


def _isolated(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    one, other = (port_of(end, facts) for end in (a, b))
    if one is None or other is None or one is other:
        return
    refusing = [
        (row["name"], peer["name"])
        for row, peer in ((one, other), (other, one))
        if row["settings"]["isolated"] and peer["name"] not in row["settings"]["reaches"]
    ]
    if len(refusing) == 2:
        yield True, f"{one['name']} and {other['name']} are isolated, and neither has the other in its reach"
    for name, peer in refusing[: len(refusing) == 1]:
        yield True, f"{name} is isolated, and {peer} is not in its reach; both have to allow the other"


def _twice(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    names = {row["name"] for row in rows_of(a, b)}
    places: dict[str, set[str]] = {}
    for row in facts.macs:
        if row["age_s"] is not None and row["age_s"] <= TWICE_S:
            places.setdefault(row["mac"], set()).add(row["name"])
    for mac, both in _flapping(facts).items():
        if mac in places:
            places[mac] |= both
    for mac, at in sorted(places.items()):
        if len(at) > 1 and at & names:
            where = " and ".join(sorted(at))
            yield True, f"{mac} is a duplicate MAC address: VMs behind {where} use it, so frames go to either"


def _flapping(facts: Facts) -> dict[str, set[str]]:
    """Return the names of the ports between which each MAC address goes to and fro, until it settles."""
    by_number = {row["port"]: row["name"] for row in facts.status["ports"]}
    found: dict[str, set[str]] = {}
    for event in facts.events:
        if event["event"] == "mac-flapping":
            both = {event.get(key) for key in ("port", "former_port")} & by_number.keys()
            found[event["mac"]] = {by_number[port] for port in both}
        elif event["event"] in ("mac-flapping-end", "mac-moved"):
            found.pop(event["mac"], None)
    return found


def _episodes(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    stops = {
        "spoof": "sends from a MAC address that is not pinned to it, or that is pinned to another port;"
        " its frames are dropped as spoofed",
        "limit": "uses more MAC addresses than its limit-macs of {macs}; others are dropped",
        "storm": "sends more broadcasts than its limits, which are dropped, ARP among them (storm)",
    }
    for row in rows_of(a, b):
        begun = _begun(row, facts)
        for kind, text in stops.items():
            if kind in begun:
                yield True, f"{row['name']} {text.format(macs=row['settings']['max_macs'])}"


def _asks(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    if not (a.outside or b.outside or any(map(is_gateway, rows_of(a, b)))):
        return
    what = "asks the gateway for more names, leases or connections than its share, and others are dropped"
    for row in rows_of(a, b):
        if "asks" in _begun(row, facts):
            yield False, f"{row['name']} {what} (over_rate)"


def _begun(row: Json, facts: Facts) -> set[str]:
    """Return the episodes of a port that have not ended."""
    begun: set[str] = set()
    for event in facts.events:
        if event.get("port") == row["port"] and event.get("name") == row["name"]:
            kind = event["event"].removesuffix("-end")
            (begun.discard if event["event"].endswith("-end") else begun.add)(kind)
    return begun


def _stalled(a: End, b: End, _: Facts) -> Iterator[tuple[bool, str]]:
    for row in rows_of(a, b):
        if row["stalled"]:
            yield True, f"{row['name']} is stalled: its VM takes no frames"


def _gateway(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    wanted = [end for end in (a, b) if end.outside]
    if len(wanted) == 2:
        yield True, "neither is a VM of this switch"
        return
    known = facts.status["gateway"]
    over = any(map(is_gateway, rows_of(a, b)))
    if not wanted and not over:
        return
    state = None if known is None else known["state"]
    if state is None:
        unused = f"no VM uses {wanted[0].said}, and " if wanted and wanted[0].address else ""
        yield True, f"{unused}this switch has no gateway, which would lead there; run it with --gateway"
    elif state != "live":
        yield True, f"the gateway is {state}: {GATEWAY_STATES.get(state, 'it does not serve')}"
    elif wanted and facts.gateway and (refused := facts.gateway["refused"].get(far_address(wanted[0]))):
        yield True, f"the gateway refuses {wanted[0].said} ({refused}): {REFUSALS.get(refused, refused)}"


def _addresses(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    if facts.gateway is None:
        return
    lan = ip_network(facts.gateway["subnet"])
    for row in rows_of(a, b):
        used = map(ip_address, dealings.used_by(row["port"], facts))
        if not is_gateway(row) and not any(address in lan for address in used):
            own = f"an address of its own must be in {lan}"
            yield False, f"{row['name']} has no lease from the gateway; {own}"


def _mute(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    counted = {row["port"]: row for row in facts.stats["ports"]}
    for row in rows_of(a, b):
        if row["port"] in counted and not counted[row["port"]]["rx"]["frames"]:
            yield False, f"the VM of {row['name']} has sent nothing yet"


def _resolver(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    if not (a.outside or b.outside):
        return
    told = [each for each in facts.events if each["event"] == "resolver"]
    if told and told[-1]["state"] == "silent":
        ago = f"{facts.now - told[-1]['time']:.0f} s ago"
        yield False, f"no resolver of this host answered VMs' questions for names {ago}: names are not found"


def _sizes(a: End, b: End, _: Facts) -> Iterator[tuple[bool, str]]:
    for row in rows_of(a, b):
        for note in row["notes"]:
            yield False, f"{row['name']}: {note}"


CHECKS: tuple[tuple[str, Check], ...] = (
    ("attached", _missing),
    ("state", _state),
    ("isolated", _isolated),
    ("gateway", _gateway),
    ("stalled", _stalled),
    ("paused", dealings.paused),
    ("episode", _episodes),
    ("duplicate", _twice),
    ("reached", dealings.reached),
    ("refusing", dealings.refusing),
    ("forward", addressing.no_forward),
    ("duplicate-address", addressing.duplicates),
    ("vlan", addressing.vlans),
    ("family", addressing.families),
    ("subnet", addressing.subnets),
    ("unanswered", dealings.unanswered),
    ("one-way", dealings.one_way),
    ("restarted", dealings.restarted),
    ("asks", _asks),
    ("slow", dealings.slow),
    ("resolver", _resolver),
    ("guarded", dealings.guarded),
    ("unheard", dealings.unheard),
    ("mute", _mute),
    ("route", dealings.no_route),
    ("address", _addresses),
    ("size", _sizes),
    ("mtu", dealings.lengths),
    ("limited", dealings.limited),
)
"""All checks, in order: the most severe first."""


def _path(a: End, b: End) -> str:
    words = [f"{end.name} (port {end.row['port']})" if end.row else end.said for end in (a, b)]
    between = ["gateway"] if a.outside or b.outside else []
    return " - ".join([words[0], *between, words[1]])


def _lost_between(a: End, b: End, facts: Facts) -> list[Json]:
    """Return the frames that a full ring lost between the two ends."""
    rows = {row["port"]: row for row in facts.stats["ports"]}
    return [
        {"source": source.name, "target": target.name, "egress_full": each["egress_full"]}
        for source, target in ((a, b), (b, a))
        if source.row is not None and target.row is not None and target.row["port"] in rows
        for each in rows[target.row["port"]].get("by_source", [])
        if each["port"] == source.row["port"]
    ]


def _shown(end: End, facts: Facts) -> Json:
    row = end.row
    if row is None:
        return {"said": end.said, "port": None, "address": end.address}
    counted, recent = (
        next((each for each in answer["ports"] if each["port"] == row["port"]), None)
        for answer in (facts.stats, facts.recent)
    )
    learned = [each for each in facts.macs if each["port"] == row["port"]]
    return {
        "said": end.said,
        **{key: row[key] for key in ("port", "name", "transport", "state", "stalled", "settings", "notes")},
        "macs": [{key: each[key] for key in ("mac", "age_s", "pinned")} for each in learned],
        "leases": [each["address"] for each in facts.leases if each["port"] == row["port"]],
        "drops": {word: count for word, count in counted["drops"].items() if count} if counted else {},
        "recent_drops": {word: count for word, count in recent["drops"].items() if count} if recent else {},
        "uses": sorted(dealings.used_by(row["port"], facts)),
        "rx": counted["rx"] if counted else None,
        "tx": counted["tx"] if counted else None,
    }
