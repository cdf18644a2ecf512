"""Access control of the page: decide which requests get an answer.

A page of another origin must not use this one. So the ``Host`` of a request must be an address of this server
(against DNS rebinding), and a request that changes something must not come from another origin.

Beyond loopback every request needs the token: as ``Authorization: Bearer TOKEN`` or, once, as
``?token=TOKEN``, which becomes a cookie. No other page knows it, so ``Host`` may be any: an address of the
machine, or the name of a proxy. On loopback without a token every user of the machine can connect.
They may read ``/metrics``, because Prometheus runs under its own user. Everything else, such as frames and
names of VMs, is only for the switch's user and root. The directory of a unix socket decides which users may
connect.
"""

import hmac
import socket
from ipaddress import ip_address
from typing import NamedTuple, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from supervisor.base.tcp_peer import peer

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
COOKIE = "bulkhead"
OPEN = "/metrics"
"""The paths that other users of this machine may read: counters by name of a port."""


class Access(NamedTuple):
    """The rules for requests."""

    hosts: frozenset[str] | None
    """The allowed names in ``Host``; None for all: at a unix socket, or if a token is needed."""
    token: str | None
    """The token that a request needs; None if it needs none."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def guard(access: Access) -> Middleware:
    """Return the check that runs before every handler."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if access.hosts is not None and (request.url.host or "").lower() not in access.hosts:
            raise web.HTTPForbidden(text="this switch is not called that; use the address that it printed\n")
        given = request.query.get("token")
        if access.token is not None and not _knows(request, given, access.token):
            raise web.HTTPUnauthorized(text="give the token of --token-file: ?token=TOKEN\n")
        has_no_token = access.token is None and access.hosts is not None
        if has_no_token and request.path != OPEN and not _is_ours(request):
            raise web.HTTPForbidden(text="this is for the switch's user and root; /metrics is for all\n")
        if request.method != "GET" and not _same_origin(request):
            raise web.HTTPForbidden(text="another origin may not do that\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
            if access.token is not None and given is not None:
                response.set_cookie(COOKIE, given, httponly=True, samesite="Strict")
        return response

    return guarded


def _knows(request: web.Request, given: str | None, token: str) -> bool:
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    tried = (given or "", bearer, request.cookies.get(COOKIE, ""))
    return any(hmac.compare_digest(each.encode(), token.encode()) for each in tried)


def _is_ours(request: web.Request) -> bool:
    """Whether the request comes from a process of our user or of root, according to the kernel."""
    connection = request.transport and request.transport.get_extra_info("socket")
    try:
        other = None if connection is None else peer(cast(socket.socket, connection))
        return other is not None and other.is_ours
    except OSError:
        return False


def _same_origin(request: web.Request) -> bool:
    """Whether the request comes from our own page, or from a program that sends no origin."""
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2] == request.host
