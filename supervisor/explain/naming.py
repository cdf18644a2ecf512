"""Find the end that an operator names: a port, the host, an address outside, or a VM that has left.

    web, 3                    the port of that number, else of that name, else a VM that has left
    52:54:00:00:00:01         the port that last sent from it
    192.168.127.2, fe80::1    the port that leased it, that asked or answered with it, or the gateway's
    host, 1.1.1.1:443         over the gateway
    example.org               the address that this host knows for it

An address of the LAN that no port is known to use is no end outside: the gateway does not lead there.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from forwarder.errors import LocalError
from forwarder.names import format_mac, parse_mac
from forwarder.socket_address import port_number
from supervisor.explain import dealings
from supervisor.explain.ends import End, Facts, Json

HOST = "host"
PLACES = ("mac-new", "mac-moved", "lease", "gone")
"""Events that say which port had a name, a MAC or an IP address."""


def find(said: str, facts: Facts) -> End:
    """Return the end that ``said`` names."""
    for key in ("port", "name"):  # as ``port_called``
        for row in facts.status["ports"]:
            if said == str(row[key]):
                return End(said, row)
    if said == HOST:
        return End(said, None, facts.gateway["host"] if facts.gateway else None, outside=True)
    try:
        return _by_mac(said, format_mac(parse_mac(said)), facts)
    except LocalError:
        pass
    try:
        return _by_address(ip_address(far_end(said)[0].partition("%")[0]), facts)._replace(said=said)
    except ValueError:
        return _by_name(said, facts)


def far_end(said: str) -> tuple[str, int | None]:
    """Return address and port of ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; ``said`` and None of all else."""
    host, separator, port = said.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = port_number(port) if separator and (":" in bare) == (bare != host) else None
    return (said, None) if number is None else (bare, number)


def far_address(end: End) -> str:
    """Return the address of an end outside, as the gateway is asked about it."""
    return far_end(end.said)[0] if end.address is None else end.address


def _by_name(said: str, facts: Facts) -> End:
    far = facts.names.get(far_end(said)[0])
    if far is not None and "address" in far:
        return End(said, None, far["address"], outside=True)
    if left := _left(said, facts):
        return End(said, None, missing=left)
    urls = ", ".join(each["url"] for each in facts.status["listeners"]) or "none"
    unknown = f", and this host does not know the name: {far['why']}" if far else ""
    return End(said, None, missing=f"no VM of that name is attached{unknown}; the listeners are {urls}")


def _by_mac(said: str, mac: str, facts: Facts) -> End:
    seen = [row for row in facts.macs if row["mac"] == mac]
    if not seen:
        unseen = "no port has that MAC address; its VM has sent nothing, or is not there"
        return End(said, None, missing=_left(mac, facts) or unseen)
    last = min(seen, key=lambda row: (row["age_s"] is None, row["age_s"]))
    return End(said, _row(last["port"], facts))


def _by_address(address: IPv4Address | IPv6Address, facts: Facts) -> End:
    said, lan = str(address), facts.gateway
    for lease in facts.leases:
        if lease["address"] == said:
            row = _row(lease["port"], facts)
            gone = _left(lease["mac"], facts) or "its VM is not attached"
            return End(said, row, said, missing="" if row else f"it is leased to {lease['mac']}: {gone}")
    if lan is not None and said in (lan["host"], lan["host6"]):
        return End(said, None, said, outside=True)
    for row in facts.status["ports"]:
        if said in row["addresses"] or said in dealings.said_by(row["port"], facts):
            return End(said, row, said)
    inside = lan is not None and any(address in ip_network(lan[key]) for key in ("subnet", "prefix"))
    if inside or (address.version == 6 and address.is_link_local):
        unknown = "no VM has leased that address, asked or answered with it"
        return End(said, None, said, missing=_left(said, facts) or unknown)
    return End(said, None, said, outside=True)


def _row(port: int | None, facts: Facts) -> Json | None:
    return next((row for row in facts.status["ports"] if row["port"] == port), None)


def _left(said: str, facts: Facts) -> str:
    """Return when and why the VM left that had this name, number, MAC or IP address; "" if none is known."""
    port, gone = None, None
    for event in facts.events:
        known = (event.get("name"), str(event.get("port")), event.get("mac"), event.get("address"))
        if event["event"] in PLACES and event.get("state") != "ended" and said in known:
            port, gone = event["port"], None
        if event["event"] == "gone" and event["port"] == port:
            gone = event
    if gone is None:
        return ""
    why = gone.get("reason", "no reason is known")
    return f"its VM left {max(0, facts.now - gone['time']):.0f} s ago: {why}"
