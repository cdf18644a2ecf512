"""The HTTP server of ``supervisor web``.

    GET /              the page; its script and style beside it
    GET /metrics       Prometheus
    GET /events        server-sent events: one round of answers a second
    GET /api/status    the JSON of ``supervisor status``
    GET /api/stats     the JSON of ``supervisor stats``

It listens on loopback or on a unix socket of the user. On any other address every request needs the token,
as ``Authorization: Bearer TOKEN`` or, once, as ``?token=TOKEN``, which becomes a cookie. A page of another
origin cannot use it: the ``Host`` of a request must be one that it listens on (DNS rebinding), and no other
origin is allowed in.
"""

import hmac
import json
from importlib.resources import files
from ipaddress import ip_address
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from supervisor.web import metrics
from supervisor.web.watch import Watch

PAGE = {"/": ("index.html", "text/html"), "/app.js": ("app.js", "text/javascript"),
        "/style.css": ("style.css", "text/css")}  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
COOKIE = "bulkhead"
MOST_VIEWERS = 64
"""Open streams of events: each costs a descriptor and a copy of the answer a second."""

WATCH: web.AppKey[Watch] = web.AppKey("watch", Watch)


class Access(NamedTuple):
    """Which requests are answered."""

    hosts: frozenset[str] | None
    """The names in ``Host`` that are ours; None: a unix socket, where the name means nothing."""
    token: str | None
    """What a request has to know; None: nothing."""


def application(watch: Watch, access: Access) -> web.Application:
    """Return the application; the caller runs it."""
    app = web.Application(middlewares=[_guard(access)])
    app[WATCH] = watch
    for path in PAGE:
        app.router.add_get(path, _page)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/events", _Events())
    app.router.add_get("/api/{question:status|stats|macs}", _answer)
    app.on_cleanup.append(lambda app: app[WATCH].close())
    return app


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _guard(access: Access) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if access.hosts is not None and _host_of(request) not in access.hosts:
            raise web.HTTPForbidden(text="this switch is not called that; use the address that it printed\n")
        given = request.query.get("token")
        if access.token is not None and not _knows(request, given, access.token):
            raise web.HTTPUnauthorized(text="give the token that supervisor web printed: ?token=TOKEN\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
            if access.token is not None and given is not None:
                response.set_cookie(COOKIE, given, httponly=True, samesite="Strict")
        return response

    return guard


def _host_of(request: web.Request) -> str:
    return (request.url.host or "").lower()


def _knows(request: web.Request, given: str | None, token: str) -> bool:
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    tried = (given or "", bearer, request.cookies.get(COOKIE, ""))
    return any(hmac.compare_digest(each.encode(), token.encode()) for each in tried)


async def _page(request: web.Request) -> web.StreamResponse:
    name, kind = PAGE[request.path]
    text = files("supervisor.web").joinpath("page").joinpath(name).read_text()
    return web.Response(text=text, content_type=kind)


async def _metrics(request: web.Request) -> web.StreamResponse:
    page = metrics.render(await request.app[WATCH].latest())
    return web.Response(body=page, headers={"Content-Type": metrics.CONTENT_TYPE})


async def _answer(request: web.Request) -> web.StreamResponse:
    answer = await request.app[WATCH].latest()
    if answer["error"] is not None:
        raise web.HTTPServiceUnavailable(text=f"{answer['error']}\n")
    return web.json_response(answer[request.match_info["question"]])


class _Events:
    """The streams of events, counted."""

    def __init__(self) -> None:
        self._viewers = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Send one event for each answer until the viewer goes."""
        if self._viewers >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} viewers are watching already; close one\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
        self._viewers += 1
        try:
            await response.prepare(request)
            async for answer in request.app[WATCH].answers():
                await response.write(f"data: {json.dumps(answer)}\n\n".encode())
        except ConnectionResetError:
            pass
        finally:
            self._viewers -= 1
        return response
