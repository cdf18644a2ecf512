"""Make the answers for operators: plain dictionaries, ready for JSON, from sampled values.

Everything here is a pure function of its arguments: views of the ports (from the registry), readings of their
stats pages (counters that the workers publish), usage of their processes (from psutil) and ``now``.
``sampler`` collects those.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from forwarder import counted
from forwarder.names import Identity, format_mac
from supervisor.console.lost_frames import Departed, all_egress_full, by_source
from supervisor.console.readings import Reading, Switch, Usage
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

    A port whose page could not be read yet has zeros; a process that could not be read has nulls.
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


def addresses(views: Iterable[PortView], readings: Mapping[int, Reading]) -> Json:
    """Return the port of each VM's address; for one that has moved, its last port."""
    seen = [
        (age, mac, view.record.port)
        for view in _sorted(views)
        if view.record.port in readings and not view.record.is_gateway
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
            (gateway if view.record.is_gateway else vms).update(counters)
    return {"vms": _traffic(vms), "gateway": _traffic(gateway)}


def _known_macs(view: PortView, reading: Reading | None) -> list[tuple[str, int | None, bool]]:
    """Return the addresses of a port: those that its worker has seen, and all pinned ones."""
    seen: dict[bytes, int | None] = dict.fromkeys(view.record.policy.pinned)
    seen.update({mac: age for mac, age, _ in (reading.macs if reading else ())})
    pins = view.record.policy.pinned
    return [
        (format_mac(mac), age, mac in pins) for mac, age in sorted(seen.items(), key=lambda item: item[0])
    ]
