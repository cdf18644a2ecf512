"""Read from the traffic of two ends why they do not reach each other, as far as the switch saw it.

Theory of operation
-------------------
Each worker's page says what its VM sent to each peer, when and how long, and which neighbours it asked for
(ARP and neighbour discovery, flooded). A guest's words are claims: an address is *used by* a port if it was
leased to it, or if its VM asked or answered with it lately. A question is *open* if it was repeated and no
port that uses the address has sent anything to the VM that asked since. *Data* are frames other than ARP and
neighbour discovery, which a guest answers that filters all else.

    web asks for 10.0.0.2 at 0, 1, 2 s; db, which uses 10.0.0.2, sends to web at 0.1 s     answered
    web asks for 10.0.0.2 at 0, 1, 2 s; no VM uses it                                      open

What a guest does inside can only be concluded: those findings say what was seen first.
"""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from supervisor.explain.ends import LATELY_S, RECENT_S, End, Facts, Json, is_gateway, port_of, rows_of
from supervisor.screen.figures import bits, duration

REPEATED = 3
"""Questions in a row, at most five seconds apart: a kernel asks three times before it gives up."""
SILENT_S = 5.0
SHARED = ("vhost", "dial_vhost")
"""Transports of VMs that read their own memory."""
LONG_BYTES = 1000
LINK_BYTES = 14
GUARDED_S = 3600
LOSSY = 0.05
"""A loss of fewer of a VM's frames is ordinary: it keeps the rates of parallel streams even."""
NEARLY = 0.8
"""A VM that sends so much of its limit is limited: the rest is what its protocol loses by waiting."""
GUARDED = {
    "router": "router advertisements or redirects",
    "server": "DHCP answers, as a second DHCP server does",
    "address": "ARP or neighbour advertisements for an address that is another's",
    "hidden": "frames whose headers hide what they say",
}
REFUSALS = {
    "refused": "refused a connection: no program listens there in the guest",
    "timed_out": "did not answer a connection: a filter in the guest, or its interface is down",
    "unreachable": "could not be reached: the guest does not answer ARP",
}
REACHED = {
    "refused": "the far end refuses connections",
    "timeout": "this host gets no answer from there either: a firewall of this host or beyond drops it",
    "unreachable": "this host has no way to there either",
    "forbidden": "a firewall of this host forbids it",
}


def said_by(port: int, facts: Facts) -> set[str]:
    """Return the IP addresses with which a port's VM asked or answered lately.

    Those that it used a minute or more before its last one are left out: it may have given them up.
    """
    asked = [row for row in facts.questions if row["port"] == port and row["sender"]]
    newest = min((row["age_s"] for row in asked), default=0.0)
    return {row["sender"] for row in asked if row["age_s"] - newest <= RECENT_S}


def used_by(port: int, facts: Facts) -> set[str]:
    """Return the IP addresses that a port uses, leased or not; link-local ones left out."""
    leased = {row["address"] for row in facts.leases if row["port"] == port}
    return {each for each in said_by(port, facts) | leased if not ip_address(each).is_link_local}


def between(a: End, b: End, facts: Facts) -> list[Json]:
    """Return what each of two ends has sent to the other: ``frames``, ``age_s`` of the last, ``longest``."""
    numbers = {row["port"]: row["name"] for end in (a, b) if (row := port_of(end, facts)) is not None}
    return [
        row | {"source": numbers[row["source"]], "target": numbers[row["target"]]}
        for row in facts.sent
        if row["source"] in numbers and row["target"] in numbers
    ]


def open_questions(a: End, b: End, facts: Facts) -> list[Json]:
    """Return questions of two ends that got no answer: ``name``, ``target``, ``times``, ``age_s``."""
    return [
        {key: asked[key] for key in ("target", "times", "age_s")} | {"name": row["name"]}
        for row in rows_of(a, b)
        for asked in facts.questions
        if asked["port"] == row["port"] and _is_open(asked, facts)
    ]


def _is_open(asked: Json, facts: Facts) -> bool:
    repeated = asked["times"] >= REPEATED and asked["age_s"] <= RECENT_S
    return bool(asked["target"]) and repeated and not _was_answered(asked, facts)


def _was_answered(asked: Json, facts: Facts) -> bool:
    users = {
        port["port"] for port in facts.status["ports"] if asked["target"] in used_by(port["port"], facts)
    }
    users |= _gateway_ports(asked["target"], facts)
    return any(
        row["source"] in users and row["target"] == asked["port"] and row["age_s"] <= asked["age_s"] + 1
        for row in facts.sent
    )


def _gateway_ports(address: str, facts: Facts) -> set[int]:
    own = () if facts.gateway is None else (facts.gateway["gateway"], facts.gateway["host"])
    return {row["port"] for row in facts.status["ports"] if is_gateway(row) and address in own}


def _is_elsewhere(target: str, gateway: Json) -> bool:
    address = ip_address(target)
    lan = gateway["subnet"] if address.version == 4 else gateway["prefix"]
    return address not in ip_network(lan) and not address.is_link_local


def _name_of_user(address: str, facts: Facts) -> str | None:
    users = [row["name"] for row in facts.status["ports"] if address in used_by(row["port"], facts)]
    return users[0] if users else None


def unanswered(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find questions for a neighbour that have no answer."""
    names = {row["name"] for row in rows_of(a, b)}
    leads_there = a.outside or b.outside or any(map(is_gateway, rows_of(a, b)))
    to_gateway = facts.gateway is not None and leads_there
    for asked in open_questions(a, b, facts):
        target, user = asked["target"], _name_of_user(asked["target"], facts)
        seen = f"{asked['name']} asks for {target} ({asked['times']} times, last {asked['age_s']:.0f} s ago)"
        if user in names and user != asked["name"]:
            yield True, f"{seen}, and {user} does not answer: its guest filters ARP, or its interface is down"
        elif user is None and to_gateway and facts.gateway is not None:
            goes = _goes_to_gateway(asked["name"], facts)
            yield target in (a.address, b.address) or not goes, _astray(asked, seen, facts.gateway, goes)
        elif user is None:
            yield target in (a.address, b.address), _unused(seen)


def _unused(seen: str) -> str:
    return f"{seen}, and no answer comes: no VM has that address"


def _astray(asked: Json, seen: str, gateway: Json, goes: bool) -> str:
    """Return the sentence for a question on the way to the gateway; ``goes``: other frames reach it."""
    if _is_elsewhere(asked["target"], gateway):
        outside = f"{asked['target']}, which is outside of {gateway['subnet']}"
        why = "its netmask is too wide, or its route names no gateway"
        return f"{asked['name']} asks its neighbours for {outside}: {why}"
    if goes:
        return _unused(seen)
    return f"{seen}, which no VM has; the gateway is {gateway['gateway']}: the guest's route is wrong"


def _goes_to_gateway(name: str, facts: Facts) -> bool:
    """Whether a VM has sent data to the gateway lately, so that its route is right."""
    ports = {row["name"]: row["port"] for row in facts.status["ports"]}
    gateways = {row["port"] for row in facts.status["ports"] if is_gateway(row)}
    sent = (row for row in facts.sent if row["source"] == ports[name] and row["target"] in gateways)
    ages = [row["data_age_s"] for row in sent]
    return any(age_s is not None and age_s <= RECENT_S for age_s in ages)


def sent_by(source: Json, target: Json, facts: Facts) -> Json | None:
    """Return what one port has sent to another one; None if nothing."""
    return next(
        (row for row in facts.sent if (row["source"], row["target"]) == (source["port"], target["port"])),
        None,
    )


def talk(one: Json, other: Json, facts: Facts) -> bool:
    """Whether each has sent something to the other lately."""
    both = (sent_by(one, other, facts), sent_by(other, one, facts))
    return all(row is not None and row["age_s"] <= RECENT_S for row in both)


def one_way(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find data to which none come back."""
    one, other = port_of(a, facts), port_of(b, facts)
    if one is None or other is None or one is other:
        return
    for source, target in ((one, other), (other, one)):
        there, back = sent_by(source, target, facts), sent_by(target, source, facts)
        if there is None or there["data_age_s"] is None or there["data_age_s"] > RECENT_S:
            continue
        last = f"the last {there['data_age_s']:.0f} s ago"
        seen = f"{source['name']} sent {target['name']} {there['frames']:,} frames, {last}"
        inside, enough = _inside(target), there["frames"] >= REPEATED
        if back is None and is_gateway(source):
            continue  # these were leases: for other frames it needs an answer to its ARP first
        if back is None:
            yield enough, f"{seen}, and none has come back: {inside}"
        elif back["data_age_s"] is None:
            yield enough, f"{seen}, and nothing but ARP answers has come back: {inside}"
        elif back["data_age_s"] - there["data_age_s"] >= SILENT_S:
            yield False, f"{seen}, and none has come back for {back['data_age_s']:.0f} s: {inside}"


def _inside(target: Json) -> str:
    """Return why a port may leave data without an answer."""
    if is_gateway(target):
        return "`supervisor stats` counts what the gateway refuses and what the far end does not answer"
    unseen = "its VM is paused (which vhost-user does not show), " * (target["transport"] in SHARED)
    return f"{unseen}a filter in the guest of {target['name']}, or it has no route back"


def no_route(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find a VM that sends, and nothing to the gateway."""
    gateway = next(filter(is_gateway, facts.status["ports"]), None)
    if gateway is None or not (a.outside or b.outside):
        return
    counted = {row["port"]: row["rx"]["frames"] for row in facts.stats["ports"]}
    row = a.row
    if row is None or row is gateway or not counted.get(row["port"]) or sent_by(row, gateway, facts):
        return
    none = f"{row['name']} has sent nothing to the gateway"
    yield False, f"{none}: its guest has no route to there, or has not tried yet"


def lengths(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find frames longer than what comes back, or than the MTU of the port that they are for."""
    one, other = a.row, b.row
    if one is None or other is None or one is other:
        return
    for source, target in ((one, other), (other, one)):
        there, back = sent_by(source, target, facts), sent_by(target, source, facts)
        mtu = target["settings"]["mtu"]
        if there is None:
            continue
        if mtu and there["longest"] > mtu + LINK_BYTES and target["settings"]["receive"] != "large":
            packets = f"packets of {there['longest'] - LINK_BYTES:,} bytes"
            yield False, f"{source['name']} sends {packets}, and the MTU of {target['name']} is {mtu:,}"
        elif back is not None and there["longest"] > back["longest"] > LONG_BYTES:
            mine, theirs = f"{there['longest']:,} bytes", f"{back['longest']:,}"
            seen = f"{source['name']} sends frames of up to {mine}, and {target['name']} none above {theirs}"
            yield False, f"{seen}: their MTUs differ, and longer frames may be lost in the guest"


def guarded(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find VMs whose guard drops what only the gateway or another VM may say."""
    for row in rows_of(a, b):
        said: dict[tuple[str, str], float] = {}
        for event in facts.events:
            mine = event.get("port") == row["port"] and event.get("name") == row["name"]
            ago_s = facts.now - event["time"]
            if event["event"] == "guard" and mine and ago_s <= GUARDED_S and event["reason"] in GUARDED:
                said.setdefault((event["reason"], event["mac"]), ago_s)
        for (reason, mac), ago_s in sorted(said.items()):
            first = f"from {mac}, first {duration(ago_s)} ago"
            yield False, f"{row['name']} sends {GUARDED[reason]} ({first}), and its guard drops them"


def unheard(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find VMs of which the gateway does not hear all IP addresses, since they show too many."""
    behind = {row["mac"]: row["port"] for row in facts.macs}
    unheard = {
        behind.get(event["mac"]): event["mac"]
        for event in facts.events
        if event["event"] == "guard"
        and event["reason"] == "sources"
        and facts.now - event["time"] <= GUARDED_S
    }
    for row in rows_of(a, b):
        if row["port"] in unheard:
            seen = f"{row['name']} sends from more new IP addresses than a port may use"
            mac = unheard[row["port"]]
            yield False, f"{seen} (from {mac}), and the gateway does not hear further ones"


def paused(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find VMs that read nothing, though what waits for them still fits their sockets.

    That is known of a socket on this machine, and not of a VM that reads its own memory (``one_way``).
    """
    lately = {row["port"]: row for row in facts.lately["ports"]}
    for row in rows_of(a, b):
        counted, unread = lately.get(row["port"]), facts.unread.get(row["port"], 0)
        if counted is None or row["stalled"] or row["since_s"] < LATELY_S or counted["rx"]["frames"]:
            continue
        if unread and unread >= counted["tx"]["bytes"]:
            seen = f"the VM of {row['name']} has read and sent nothing for {LATELY_S:.0f} s"
            yield True, f"{seen}, and frames wait in its socket: it is paused, or stuck"


def limited(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find VMs that send as much as their limit allows."""
    for row in rows_of(a, b):
        limit = row["settings"]["bytes_per_s"]
        sent = [each["rx"]["bytes"] for each in facts.lately["ports"] if each["port"] == row["port"]]
        if limit and sent and sent[0] >= NEARLY * limit * LATELY_S:
            rates = f"{bits(sent[0] * 8 / LATELY_S)} of its limit-bandwidth of {bits(limit * 8)}"
            yield False, f"{row['name']} sends {rates}, so its VM has to wait"


def slow(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find VMs for which many frames were lost in the last minute, since they read too slowly."""
    recent = {row["port"]: row for row in facts.recent["ports"]}
    for row in rows_of(a, b):
        counted = recent.get(row["port"])
        lost = counted["drops"].get("egress_full", 0) if counted else 0
        if counted and not row["stalled"] and lost > LOSSY * (lost + counted["tx"]["frames"]):
            seen = f"{lost:,} frames for {row['name']} were lost in the last minute (egress_full)"
            yield False, f"{seen}: its VM reads more slowly than others send to it"


def restarted(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find that the gateway was lost a moment ago."""
    if not (a.outside or b.outside):
        return
    lost = [each for each in facts.events if each["event"] == "gateway" and each.get("state") == "waiting"]
    if lost and facts.now - lost[-1]["time"] <= RECENT_S:
        what = lost[-1]["message"].removesuffix(" and is started again")
        ago = f"{facts.now - lost[-1]['time']:.0f} s ago"
        yield False, f"{what} {ago}: connections of before have ended"


def refusing(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find ports of VMs, of forwards most often, that did not accept the last connection from the host."""
    for row in [] if facts.gateway is None else facts.gateway["refusals"]:
        if row["age_s"] > RECENT_S or row["way"] not in REFUSALS:
            continue
        for end in (a, b):
            asked = end.said.rpartition(":")[2] if end.address is not None else ""
            if end.row is not None and row["address"] in used_by(end.row["port"], facts):
                seen = f"port {row['port']} of {row['address']} {REFUSALS[row['way']]}"
                yield asked == str(row["port"]), f"{seen} ({row['age_s']:.0f} s ago, from the host)"


def reached(a: End, b: End, facts: Facts) -> Iterator[tuple[bool, str]]:
    """Find that this host itself does not reach the far end."""
    way = facts.reached.get("way")
    for end in (a, b):
        if end.outside and way in REACHED:
            yield True, f"{REACHED[way]} ({facts.reached['why']})"
