"""Make the answers for operators: plain dictionaries, ready for JSON, from sampled values.

Theory of operation
-------------------
Everything here is a pure function of its arguments: views of the ports (from the registry), readings of their
stats pages (counters that the workers publish), usage of their processes (from psutil) and ``now``.
``sampler`` collects those.

The *source* worker loses, and counts, a frame for which a ring has no room; the operator looks for it at the
*destination*. So ``egress_full`` of a port is the sum of

* the rows of every other port's block towards this port,
* what ports that have left meanwhile had lost towards it (``Departed.towards``),
* the flood frames that the port lost itself because the writer lapped it.

Port numbers are reused, so a row counts only if its ``born`` is that of the present port.

``Departed`` keeps the counters that would vanish with a page: its totals only grow, and its rows are bounded
by the number of living ports.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from forwarder import counted
from forwarder.names import GATEWAY_MAC, Identity, PortRecord, format_mac
from supervisor.ports import notes
from supervisor.ports.settings import plain
from supervisor.ports.view import PortView

Json = dict[str, Any]

TRAFFIC = {"rx": ("rx_frames", "rx_bytes"), "tx": ("tx_frames", "tx_bytes")}
"""Direction for the operator (rx = from the VM) to the page's counters: frames, bytes."""
RETRIES = ("eagain", "enobufs")
DROPS = tuple(word for word in counted.DROPS if word != "egress_full")
"""Frames that a port's own worker dropped, by reason; ``egress_full`` comes from several pages."""
FILTERED = ("hairpin", "filtered")
"""Frames that are not delivered on purpose: to an address behind their sender, or unknown and not wanted."""
LOOP = ("turns", "sleeps", "doorbells")
"""Counters of the worker's loop: those of an idle port do not change."""


class Reading(NamedTuple):
    """The reading of one port's stats page."""

    born: int
    counters: Mapping[str, int]
    losses: Sequence[tuple[int, int, int, int]] = ()
    """(peer port, peer's born, frames lost towards it, flood frames lost from it)."""
    macs: Sequence[tuple[bytes, int, bool]] = ()
    """(address, seconds since seen, pinned)."""


class Usage(NamedTuple):
    """The cost of one process. ``pss_bytes`` is None if the kernel does not tell it."""

    cpu_percent: float
    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int | None
    threads: int
    fds: int | None
    """None: the kernel does not tell it to us."""
    ctx_switches: int


class Switch(NamedTuple):
    """The switch as a whole, for the head of every answer."""

    epoch: int
    sequence: int
    started: float
    identity: Identity
    cell: Mapping[str, object] = MappingProxyType({})
    """The cells of its workers."""
    others: tuple[tuple[str, Identity], ...] = ()
    """Processes beside the supervisor and the workers, by name."""


class Departed:
    """What ports that have left had counted.

    Changed by ``fold`` only, once for each port that leaves, while the block is still readable.
    """

    def __init__(self) -> None:
        self.ports = 0
        self.totals: dict[str, int] = {}
        self.gateway: dict[str, int] = {}
        """The part of the totals that belongs to ports of gateways."""
        self.towards: dict[tuple[int, int], int] = {}
        """(living port, its born): frames that departed sources had lost towards it."""

    def fold(self, port: int, readings: Mapping[int, Reading], *, of_gateway: bool = False) -> None:
        """Add the counters of a leaving ``port``; ``readings`` holds its own and those of all other ports."""
        own = readings[port]
        self.ports += 1
        for name, value in own.counters.items():
            self.totals[name] = self.totals.get(name, 0) + value
            if of_gateway:
                self.gateway[name] = self.gateway.get(name, 0) + value
        lost = egress_full(port, readings, self)
        self.totals["egress_full"] = self.totals.get("egress_full", 0) + lost
        self.towards.pop((port, own.born), None)
        for peer, born, frames, _ in own.losses:
            other = readings.get(peer)
            if frames and other is not None and other.born == born:
                self.towards[peer, born] = self.towards.get((peer, born), 0) + frames


def egress_full(port: int, readings: Mapping[int, Reading], departed: Departed) -> int:
    """Return the frames for the VM of ``port`` that a full ring lost, counted at any port."""
    return all_egress_full(readings, departed)[port]


def all_egress_full(readings: Mapping[int, Reading], departed: Departed) -> dict[int, int]:
    """Return ``egress_full`` of every port, in one pass over all losses."""
    full = {
        port: own.counters.get("flood_lost", 0) + departed.towards.get((port, own.born), 0)
        for port, own in readings.items()
    }
    for own in readings.values():
        for peer, born, frames, _ in own.losses:
            if peer in readings and readings[peer].born == born:
                full[peer] += frames
    return full


def _lost_towards(port: int, born: int, readings: Mapping[int, Reading]) -> list[tuple[int, int]]:
    """Return (source port, frames that it lost towards the port), without zeros."""
    return [
        (source, frames)
        for source, reading in sorted(readings.items())
        for peer, peer_born, frames, _ in reading.losses
        if (peer, peer_born) == (port, born) and frames
    ]


def by_source(port: int, readings: Mapping[int, Reading], departed: Departed) -> list[Json]:
    """Return ``egress_full`` of a port by source port; sources that have left are ``null``."""
    own = readings[port]
    lost = dict(_lost_towards(port, own.born, readings))
    for peer, born, _, floods in own.losses:
        other = readings.get(peer)
        if floods and other is not None and other.born == born:
            lost[peer] = lost.get(peer, 0) + floods
    rows: list[Json] = [{"port": source, "egress_full": frames} for source, frames in sorted(lost.items())]
    gone = egress_full(port, readings, departed) - sum(lost.values())
    if gone > 0:
        rows.append({"port": None, "egress_full": gone})
    return rows


def _traffic(counters: Mapping[str, int]) -> Json:
    return {
        direction: {"frames": counters.get(frames, 0), "bytes": counters.get(octets, 0)}
        for direction, (frames, octets) in TRAFFIC.items()
    }


def _drops(counters: Mapping[str, int], full: int) -> Json:
    return {"egress_full": full} | {reason: counters.get(reason, 0) for reason in DROPS}


def _process(identity: Identity | None, usage: Mapping[Identity, Usage]) -> Json:
    used = usage.get(identity) if identity else None
    known: Json = used._asdict() if used else dict.fromkeys(Usage._fields)
    return {"pid": identity.pid if identity else None} | known


def _worker(view: PortView) -> Json:
    pid = view.identity.pid if view.identity else None
    return {"pid": pid, "epoch": view.record.epoch, "restarts": view.restarts}


def head(switch: Switch, now: float) -> Json:
    """Return the head of every answer."""
    return {
        "epoch": str(switch.epoch),
        "sequence": switch.sequence,
        "uptime_s": round(now - switch.started, 3),
    }


def _port(view: PortView, now: float) -> Json:
    return {
        "port": view.record.port,
        "name": view.record.name,
        "transport": view.record.transport,
        "state": view.state,
        "stalled": view.stalled,
        "since_s": round(now - view.since, 3),
    }


def _sorted(views: Iterable[PortView]) -> list[PortView]:
    return sorted(views, key=lambda view: view.record.port)


def stats(
    switch: Switch,
    views: Iterable[PortView],
    readings: Mapping[int, Reading],
    usage: Mapping[Identity, Usage],
    departed: Departed,
    *,
    now: float,
    sources: bool = False,
) -> Json:
    """Return all counters; ``sources`` adds ``by_source`` to each port.

    A port whose block could not be read yet has zeros; a process that could not be read has nulls.
    """
    ports = []
    full = all_egress_full(readings, departed)
    for view in _sorted(views):
        port = view.record.port
        reading = readings.get(port)
        counters = reading.counters if reading else {}
        row = _port(view, now) | {
            "worker": _worker(view) | _process(view.identity, usage),
            **_traffic(counters),
            "flooded": counters.get("flooded", 0),
            "egress_queue_bytes": counters.get("egress_bytes", 0),
            "retries": {name: counters.get(name, 0) for name in RETRIES},
            "drops": _drops(counters, full.get(port, 0)),
            "filtered": {name: counters.get(name, 0) for name in FILTERED},
            "loop": {name: counters.get(name, 0) for name in LOOP},
        }
        if sources:
            row["by_source"] = by_source(port, readings, departed) if reading else []
        ports.append(row)
    gone = departed.totals
    gone_drops = _drops(gone, gone.get("egress_full", 0))
    return head(switch, now) | {
        "supervisor": _process(switch.identity, usage),
        "others": [{"name": name} | _process(identity, usage) for name, identity in switch.others],
        "ports": ports,
        "departed": {"ports": departed.ports, **_traffic(gone), "drops": gone_drops},
    }


def subtract(row: Json, then: Mapping[str, int], full: int) -> None:
    """Take from a port's row what it had counted ``then``, ``full`` of it lost for want of room."""
    for way, (frames, octets) in TRAFFIC.items():
        row[way] = {"frames": row[way]["frames"] - then[frames], "bytes": row[way]["bytes"] - then[octets]}
    row["flooded"] -= then["flooded"]
    row["drops"] = _difference(row["drops"], _drops(then, full))
    for group in ("retries", "filtered", "loop"):
        row[group] = _difference(row[group], then)


def _difference(now: Mapping[str, int], then: Mapping[str, int]) -> Json:
    return {name: max(0, value - then[name]) for name, value in now.items()}


def departed(left: Iterable[tuple[Reading, int]]) -> Json:
    """Add up what ports had counted that have left, each with its frames for which there was no room."""
    totals, ports = Counter[str](), 0
    for reading, full in left:
        totals.update(reading.counters)
        totals["egress_full"] += full
        ports += 1
    return {"ports": ports, **_traffic(totals), "drops": _drops(totals, totals["egress_full"])}


def status(
    switch: Switch,
    views: Iterable[PortView],
    readings: Mapping[int, Reading],
    addresses: Mapping[int, list[str]],
    now: float,
) -> Json:
    """Return the ports and their state, without figures that change while nothing happens."""
    ports = []
    for view in _sorted(views):
        reading = readings.get(view.record.port)
        known = [mac for mac, _, _ in _known_macs(view, reading)]
        row = {"worker": _worker(view), "macs": known, "settings": plain(view.record.policy)}
        row["addresses"] = addresses.get(view.record.port, [])
        ports.append(_port(view, now) | row | {"notes": _notes(view, reading)})
    supervisor = {"pid": switch.identity.pid, "cell": dict(switch.cell)}
    return head(switch, now) | {"supervisor": supervisor, "ports": ports}


def _notes(view: PortView, reading: Reading | None) -> list[str]:
    """Return the notes about a port."""
    lost = reading.counters.get("refused", 0) if reading else 0
    said = [notes.unfinished(view.record) if view.unfinished else "", notes.refused(view.record, lost)]
    return [sentence for sentence in said if sentence]


def macs(switch: Switch, views: Iterable[PortView], readings: Mapping[int, Reading], now: float) -> Json:
    """Return learned and pinned addresses; ``age_s`` is null for a pinned one that has not been seen."""
    rows = [
        {"mac": mac, "port": view.record.port, "name": view.record.name, "age_s": age, "pinned": pinned}
        for view in _sorted(views)
        for mac, age, pinned in _known_macs(view, readings.get(view.record.port))
    ]
    return head(switch, now) | {"macs": rows}


def is_gateway(record: PortRecord) -> bool:
    """Whether this is the port of a gateway."""
    return record.transport == "tap" and record.policy.pinned == (GATEWAY_MAC,)


def addresses(views: Iterable[PortView], readings: Mapping[int, Reading]) -> Json:
    """Return the port of each VM's address; for one that has moved, its last port."""
    seen = [
        (age, mac, view.record.port)
        for view in _sorted(views)
        if view.record.port in readings and not is_gateway(view.record)
        for mac, age, _ in readings[view.record.port].macs
    ]
    return {format_mac(mac): port for _, mac, port in sorted(seen, reverse=True)}


def traffic(views: Iterable[PortView], readings: Mapping[int, Reading], departed: Departed) -> Json:
    """Return the traffic of all VMs, also past ones, as sent (rx) and received (tx), and the gateway's."""
    vms, gateway = Counter(departed.totals), Counter[str]()
    vms.subtract(departed.gateway)
    for view in views:
        if view.record.port in readings:
            counters = readings[view.record.port].counters
            (gateway if is_gateway(view.record) else vms).update(counters)
    return {"vms": _traffic(vms), "gateway": _traffic(gateway)}


def _known_macs(view: PortView, reading: Reading | None) -> list[tuple[str, int | None, bool]]:
    """Return the addresses of a port: those that its worker has seen, and all pinned ones."""
    seen: dict[bytes, int | None] = dict.fromkeys(view.record.policy.pinned)
    seen.update({mac: age for mac, age, _ in (reading.macs if reading else ())})
    pins = view.record.policy.pinned
    return [
        (format_mac(mac), age, mac in pins) for mac, age in sorted(seen.items(), key=lambda item: item[0])
    ]
