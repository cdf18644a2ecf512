"""gvproxy's HTTP API, as far as it is about forwards and leases: requests in, answers with its JSON out.

Paths, fields and status codes are gvproxy's, so that tools made for it work unchanged:

    GET  /services/forwarder/all        [{"local": …, "remote": …, "protocol": "tcp"}]
    POST /services/forwarder/expose     one of these; 200, or 400/500 with a line
    POST /services/forwarder/unexpose   {"local": …, "protocol": …}
    GET  /services/dhcp/leases, /leases {"192.168.127.2": "5a:94:ef:e4:0c:ee"}

``local`` and ``remote`` are like ``127.0.0.1:8080`` and ``192.168.127.2:80``. ``local`` may leave the host
out: every address, as gvproxy has it. ``remote`` of a unix socket is ``tcp://GUEST:PORT``. Nothing here is
reachable from a guest: it is a unix socket of the host.
"""

import json
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from forwarder.errors import LocalError
from gateway.forwards import Forward
from gateway.http_server import Answer

FORWARDER = "/services/forwarder"


class Services:
    """The answers; what they are about comes through the three callables."""

    def __init__(
        self,
        forwards: Callable[[], Iterable[Forward]],
        add: Callable[[Forward], object],
        remove: Callable[[Forward], object],
        leases: Callable[[], str],
    ) -> None:
        """Take how to list, add and remove forwards (these raise LocalError), and to read the leases."""
        self._forwards = forwards
        self._add = add
        self._remove = remove
        self._leases = leases

    def handle(self, method: str, target: str, body: bytes) -> Answer:
        """Answer one request."""
        path = target.partition("?")[0]
        if path == f"{FORWARDER}/all":
            found = [_entry(forward) for forward in self._forwards()]
            return _json(sorted(found, key=lambda entry: (entry["local"], entry["protocol"])))
        if path in (f"{FORWARDER}/expose", f"{FORWARDER}/unexpose"):
            if method != "POST":
                return _line(400, "post only")
            return self._expose(path.endswith("/unexpose"), body)
        if path in ("/services/dhcp/leases", "/leases"):
            return _json(leases(self._leases()))
        return _line(404, f"there is no {path}")

    def _expose(self, remove: bool, body: bytes) -> Answer:
        try:
            request = json.loads(body)
            local, remote, protocol = (str(request.get(key) or "") for key in ("local", "remote", "protocol"))
        except (ValueError, AttributeError, RecursionError):
            return _line(400, "the body is no JSON object")
        protocol = protocol or "tcp"
        try:
            if remove:
                self._remove(self._find(protocol, local))
            else:
                self._add(Forward.parse(_text(protocol, local, remote)))
        except LocalError as error:
            return _line(500, str(error))
        return Answer(200)

    def _find(self, protocol: str, local: str) -> Forward:
        near = local if protocol == "unix" else f"0.0.0.0{local}" if local.startswith(":") else local
        for forward in self._forwards():
            if forward.near == f"{protocol}:{near}":
                return forward
        raise LocalError("proxy not found")


def leases(text: str) -> dict[str, str]:
    """Return address to MAC of dnsmasq's lease file, IPv4 only."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["duid"]:
            break  # what follows is IPv6
        if len(words) >= 3:
            found[words[2]] = words[1]
    return found


def _text(protocol: str, local: str, remote: str) -> str:
    """Return gvproxy's words in ours. Raises LocalError."""
    if protocol == "unix":
        url = urlsplit(remote)
        if url.scheme != "tcp":
            raise LocalError(f"remote protocol for unix forwarder is not implemented: {url.scheme}")
        return f"unix:{local}:{url.netloc}"
    if protocol not in ("tcp", "udp"):
        raise LocalError(f"unknown protocol {protocol}")
    return f"{protocol}:{'0.0.0.0' if local.startswith(':') else ''}{local}:{remote}"


def _entry(forward: Forward) -> dict[str, str]:
    near = forward.near.partition(":")[2]
    remote = str(forward)[len(forward.near) + 1 :]
    return {
        "local": near,
        "remote": f"tcp://{remote}" if forward.kind == "unix" else remote,
        "protocol": forward.kind,
    }


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode() + b"\n")


def _line(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode(), b"text/plain; charset=utf-8")
