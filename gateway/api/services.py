"""gvproxy's HTTP API: requests in, answers with its JSON out.

Paths, fields and status codes are gvproxy's, so that tools made for it work unchanged:

    GET  /services/forwarder/all        [{"local": …, "remote": …, "protocol": "tcp"}]
    POST /services/forwarder/expose     one of these; 200, or 400/500 with a line
    POST /services/forwarder/unexpose   {"local": …, "protocol": …}
    GET  /services/dhcp/leases, /leases {"192.168.127.2": "5a:94:ef:e4:0c:ee"}: the gateway's, static, leased
    GET  /services/dns/all              [{"Name": …, "Records": [{"Name": …, "IP": …}], "DefaultIP": …}]
    POST /services/dns/add              one of these (``names`` has the meaning); 200, or 400/500
    GET  /cam                           {"5a:94:ef:e4:0c:ee": 1}: the port of each address
    GET  /stats                         {"BytesSent": …, …}: gvproxy's counters that we have; and ``Gateway``
    GET  /tunnel?ip=…&port=…            OK, and then the bytes of a TCP connection to a guest

``local`` and ``remote`` are like ``127.0.0.1:8080`` and ``192.168.127.2:80``. ``local`` without a host means
every address of both families, as with gvproxy. That makes a forward for each family; only one on a host
without IPv6. ``localhost`` is 127.0.0.1. ``remote`` of a unix socket is ``tcp://GUEST:PORT``. Guests cannot
reach this API: it is a unix socket of the host.
"""

import json
import socket
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, urlsplit

from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.messages import Reply
from forwarder.socket_address import port_number
from gateway.api.carry_over import By
from gateway.api.http_connection import Answer, Hijack
from gateway.api.names import Zone
from gateway.relay.forwards import Forward, canonical
from gateway.relay.policy import Address

Result = Answer | Hijack | Future[Answer]

EVERY = ("0.0.0.0", "[::]")
"""Every address of the host, for each family."""
_TWINS = dict(zip(EVERY, reversed(EVERY), strict=True))

POST_ONLY = frozenset({"/services/forwarder/expose", "/services/forwarder/unexpose", "/services/dns/add"})


class Backend(Protocol):
    """The part that the API controls. Every method may raise LocalError."""

    def forwards(self) -> Iterable[Forward]:
        """Return all forwards."""

    def wanted_forwards(self) -> Iterable[Forward]:
        """Return all forwards, and those that the host cannot give now."""

    def add_forward(self, forward: Forward, by: By) -> Future[Forward | LocalError]:
        """Begin to forward; the result is the forward with its real port, or why it cannot be had."""

    def remove_forward(self, forward: Forward, by: By) -> object:
        """End an existing forward."""

    def leases(self) -> Mapping[str, str]:
        """Return address to MAC of the leases in use."""

    def reserved(self) -> Mapping[str, str]:
        """Return address to MAC of the gateway and of static leases, also unused ones."""

    def zones(self) -> Iterable[Zone]:
        """Return all zones, in order."""

    def add_zone(self, zone: Zone, by: By) -> None:
        """Put a zone into force."""

    def ask(self, what: str) -> Future[Reply]:
        """Ask the supervisor for a fact."""

    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """Return the gateway's counters, in the groups of ``forwarder.counted``."""

    def tunnel(self, guest: Address, port: int) -> Callable[[socket.socket], None]:
        """Return a tunnel to a port of a guest."""


class Services:
    """The answers."""

    def __init__(self, owner: Backend) -> None:
        self._owner = owner
        self._routes: Mapping[str, Callable[[str, bytes, By], Result]] = {
            "/services/forwarder/all": lambda *_: _json(entries(owner.forwards())),
            "/services/forwarder/expose": lambda _, body, by: self._expose(body, by),
            "/services/forwarder/unexpose": lambda _, body, by: self._unexpose(body, by),
            "/services/dhcp/leases": lambda *_: self._leases(),
            "/leases": lambda *_: self._leases(),
            "/services/dns/all": lambda *_: _json([zone.plain() for zone in owner.zones()]),
            "/services/dns/add": lambda _, body, by: self._add_zone(body, by),
            "/cam": lambda *_: owner.ask("addresses").map(lambda reply: _told(reply, dict)),
            "/stats": lambda *_: owner.ask("traffic").map(lambda reply: _told(reply, self._stats)),
            "/tunnel": lambda query, *_: self._tunnel(query),
        }

    def handle(self, method: str, target: str, body: bytes, by: By) -> Result:
        """Answer one request of the client ``by``, now or later."""
        try:
            path, query = _path_and_query(target)
            if path not in self._routes:
                return _line(404, f"there is no {path}")
            if path in POST_ONLY and method != "POST":
                return _line(400, "post only")
            return self._routes[path](query, body, by)
        except LocalError as error:
            return _line(500, str(error))
        except ValueError as error:
            return _line(400, str(error))

    def _leases(self) -> Answer:
        return _json({**self._owner.reserved(), **self._owner.leases()})

    def _expose(self, body: bytes, by: By) -> Future[Answer]:
        local, remote, protocol = _words(body)
        wanted = [Forward.parse(text) for text in _texts(protocol, local, remote)]
        running = {forward.near for forward in self._owner.forwards()}
        if any(forward.near in running and (forward.port or forward.path) for forward in wanted):
            raise LocalError(f"proxy already running for {protocol} on {local}")
        return self._owner.add_forward(wanted[0], by).then(
            lambda first: self._add_twin(first, wanted[1:], by)
        )

    def _add_twin(self, first: Forward | LocalError, more: list[Forward], by: By) -> Future[Answer]:
        """Add the forward of the other family, if one is wanted and this host has IPv6; then answer."""
        if isinstance(first, LocalError) or not more or not has_ipv6():
            return self._added(first)
        kept = first

        def added(twin: Forward | LocalError) -> Future[Answer]:
            if isinstance(twin, LocalError):
                self._owner.remove_forward(kept, by)
            return self._added(twin)

        try:
            return self._owner.add_forward(more[0]._replace(port=first.port), by).then(added)
        except LocalError as error:
            return added(error)

    def _added(self, result: Forward | LocalError) -> Future[Answer]:
        if isinstance(result, Forward):
            return self._done()
        refused: Future[Answer] = Future()
        refused.set_result(_line(500, str(result)))
        return refused

    def _unexpose(self, body: bytes, by: By) -> Future[Answer]:
        local, _, protocol = _words(body)
        nears = {canonical(f"{protocol}:{near}") for near in _nears(protocol, local)}
        found = [forward for forward in self._owner.wanted_forwards() if forward.near in nears]
        if not found:
            raise LocalError("proxy not found")
        for forward in found:
            self._owner.remove_forward(forward, by)
        return self._done()

    def _done(self) -> Future[Answer]:
        """Answer when the supervisor has saved the change, which survives from then on."""
        return self._owner.ask("kept").map(
            lambda reply: Answer(200) if reply.ok else _line(503, str(reply.result))
        )

    def _add_zone(self, body: bytes, by: By) -> Future[Answer]:
        self._owner.add_zone(Zone.parse(body), by)
        return self._done()

    def _stats(self, traffic: Mapping[str, Any]) -> dict[str, object]:
        vms, gateway = traffic["vms"], traffic["gateway"]
        return {
            "BytesSent": vms["tx"]["bytes"],
            "BytesReceived": vms["rx"]["bytes"],
            "NICs": {
                "Rx": {"Packets": gateway["tx"]["frames"]},
                "Tx": {"Packets": gateway["rx"]["frames"]},
            },
            "TCP": {"CurrentConnected": self._owner.figures()["flows"]["tcp"]},
            "Gateway": self._owner.figures(),
        }

    def _tunnel(self, query: str) -> Hijack:
        asked = parse_qs(query)
        ip, port = (asked.get(key, [""])[0] for key in ("ip", "port"))
        if not ip:
            raise LocalError("ip is mandatory")
        try:
            guest = ip_address(ip)
        except ValueError:
            raise LocalError(f"{ip!r} is no IP address") from None
        number = port_number(port)
        if not number:
            raise LocalError(f"{port!r} is not a port from 1 to 65535")
        carry = self._owner.tunnel(guest, number)
        return Hijack(lambda sock, sent: _begin(sock, sent, carry))


def entries(forwards: Iterable[Forward]) -> list[dict[str, str]]:
    """Return forwards as gvproxy lists them: the pair for every address of both families is one."""
    found = [_entry(forward) for forward in forwards]
    listed = []
    for entry in found:
        address, _, port = entry["local"].rpartition(":")
        twin = entry | {"local": f"{_TWINS.get(address, '')}:{port}"}
        if entry["protocol"] == "unix" or twin not in found:
            listed.append(entry)
        elif address == EVERY[0]:
            listed.append(entry | {"local": f":{port}"})
    return sorted(listed, key=lambda entry: (entry["local"], entry["protocol"]))


def has_ipv6() -> bool:
    """Whether a socket of this host can listen at an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _path_and_query(target: str) -> tuple[str, str]:
    """Read a request's target, which may be a whole URL (RFC 9112 3.2.2). Raises ValueError."""
    if target.startswith("http://"):
        url = urlsplit(target)
        return url.path, url.query
    path, _, query = target.partition("?")
    return path, query


def _words(body: bytes) -> tuple[str, str, str]:
    """Return local, remote and protocol of a request. Raises ValueError."""
    try:  # UTF-8 alone, as in Go; Python would open files to read other encodings, which the cell forbids
        plain = json.loads(body.decode())
        request = {key.lower(): value for key, value in plain.items()}  # Go's JSON ignores case
    except (ValueError, AttributeError, RecursionError):
        raise ValueError("the body is not a JSON object") from None
    local, remote, protocol = (request.get(key) or "" for key in ("local", "remote", "protocol"))
    if not (isinstance(local, str) and isinstance(remote, str) and isinstance(protocol, str)):
        raise ValueError("local, remote and protocol have to be text")
    return local, remote, protocol or "tcp"


def _nears(protocol: str, local: str) -> list[str]:
    """Return the host's addresses for ``local``, in the form of forwards: one, or one for each family.

    Raises LocalError if it has no port.
    """
    host, separator, port = local.rpartition(":")
    if protocol == "unix" or (host and host != "localhost"):
        return [local]
    if not separator:
        raise LocalError(f"{local!r} has no port; write it like 127.0.0.1:8080 or :8080")
    return [f"127.0.0.1:{port}"] if host else [f"{address}:{port}" for address in EVERY]


def _texts(protocol: str, local: str, remote: str) -> list[str]:
    """Return the forwards for gvproxy's addresses: one, or one for each family. Raises LocalError."""
    if protocol == "unix":
        url = urlsplit(remote)
        if url.scheme != "tcp":
            raise LocalError(f"remote protocol for unix forwarder is not implemented: {url.scheme}")
        return [f"unix:{local}:{url.netloc}"]
    if protocol not in ("tcp", "udp"):
        raise LocalError(f"unknown protocol {protocol}")
    return [f"{protocol}:{near}:{remote}" for near in _nears(protocol, local)]


def _entry(forward: Forward) -> dict[str, str]:
    near = forward.near.partition(":")[2]
    remote = str(forward)[len(forward.near) + 1 :]
    return {
        "local": near,
        "remote": f"tcp://{remote}" if forward.kind == "unix" else remote,
        "protocol": forward.kind,
    }


def _begin(sock: socket.socket, sent: bytes, carry: Callable[[socket.socket], None]) -> None:
    """Begin a tunnel. The client waits for the OK, which comes before the guest is asked, as with gvproxy.

    If it has ``sent`` bytes before that, the tunnel is refused; gvproxy would lose them.
    """
    try:
        if sent or sock.send(b"OK") != 2:
            raise ConnectionAbortedError
    except OSError:
        sock.close()
        return
    carry(sock)


def _told(reply: Reply, make: Callable[[Mapping[str, Any]], object]) -> Answer:
    """Answer with a value made from a fact of the supervisor."""
    if not reply.ok:
        return _line(503, str(reply.result))
    return _json(make(cast(Mapping[str, Any], reply.result)))


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode() + b"\n")


def _line(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode(errors="backslashreplace"), b"text/plain; charset=utf-8")
