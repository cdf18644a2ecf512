"""The HTTP server of ``supervisor web``.

    GET /                          the page; its scripts and style beside it
    GET /metrics                   Prometheus
    GET /events                    server-sent events (``watch`` and ``rounds``)
    GET /api/status, stats, macs   the JSON of the commands of these names
    GET /api/explain?a=A&b=B       the JSON of ``supervisor explain A B``
    GET /api/history?port=N&span=S what a port did in the last minute or hour
    POST /api/capture              starts a capture; the answer is its file (``captures``)
    POST /api/capture/NUMBER/stop  ends it

``access`` decides which requests are allowed.
"""

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from forwarder.errors import LocalError
from supervisor.base.paths import absolute
from supervisor.console.history import SPANS
from supervisor.explain.explain import explain
from supervisor.explain.facts import gather
from supervisor.web import metrics
from supervisor.web.access import HEADERS, Access, guard
from supervisor.web.asking import Asker, Desk
from supervisor.web.captures import Captures
from supervisor.web.rounds import Rounds
from supervisor.web.watch import Watch

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MOST_VIEWERS = 64
"""Most open streams of events: each costs a descriptor and a copy of each message."""
DEAF_S = 30.0
"""A viewer is taken for gone if its socket has accepted nothing for this time."""

WATCH: web.AppKey[Watch] = web.AppKey("watch", Watch)
DESK: web.AppKey[Desk] = web.AppKey("desk", Desk)
CAPTURES: web.AppKey[Captures] = web.AppKey("captures", Captures)
REQUESTS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("requests", set)
"""The tasks of all requests under way."""
CANCEL_S = 1.0
"""How long cancelled requests may take to end."""


def application(runtime_dir: str, access: Access) -> web.Application:
    """Return the application; the caller runs it."""
    app = web.Application(middlewares=[_note, guard(access)], client_max_size=16 << 10)
    app[REQUESTS] = set()
    app[WATCH] = Watch(Rounds(Asker(runtime_dir)).ask)
    app[DESK] = Desk(Asker(runtime_dir))
    app[CAPTURES] = Captures(absolute(runtime_dir))
    for file in files("supervisor.web").joinpath("page").iterdir():
        app.router.add_get("/" if file.name == "index.html" else f"/{file.name}", _page)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/events", _events)
    app.router.add_get("/api/{question:status|stats|macs}", _answer)
    app.router.add_get("/api/explain", _explain)
    app.router.add_get("/api/history", _history)
    app.router.add_post("/api/capture", _capture)
    app.router.add_post(r"/api/capture/{number:\d{1,9}}/stop", _stop_capture)
    app.on_shutdown.append(_cancel)
    app.on_cleanup.append(_close)
    return app


@web.middleware
async def _note(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note the task of a request while it lasts."""
    task = asyncio.current_task()
    assert task is not None
    request.app[REQUESTS].add(task)
    try:
        return await handler(request)
    finally:
        request.app[REQUESTS].discard(task)


async def _cancel(app: web.Application) -> None:
    """Cancel requests before aiohttp waits for them.

    aiohttp logs an unhandled exception if a request ends at the moment at which that wait is given up.
    """
    tasks = app[REQUESTS].copy()
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_S)


async def _close(app: web.Application) -> None:
    await app[CAPTURES].close()
    await app[WATCH].close()
    app[DESK].close()


async def _page(request: web.Request) -> web.StreamResponse:
    name = request.path.removeprefix("/") or "index.html"
    text = files("supervisor.web").joinpath("page").joinpath(name).read_text()
    return web.Response(text=text, content_type=KINDS[PurePath(name).suffix])


async def _metrics(request: web.Request) -> web.StreamResponse:
    try:
        page = metrics.render(await request.app[DESK].stats())
    except LocalError:
        page = metrics.render(None)
    return web.Response(body=page, headers={"Content-Type": metrics.CONTENT_TYPE})


async def _answer(request: web.Request) -> web.StreamResponse:
    try:
        return web.json_response(await request.app[DESK].answer(request.match_info["question"]))
    except LocalError as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from None


async def _explain(request: web.Request) -> web.StreamResponse:
    said = request.query.get("a", ""), request.query.get("b", "")
    if not all(map(str.strip, said)):
        raise web.HTTPBadRequest(text="say which two: /api/explain?a=A&b=B\n")
    try:
        facts = await request.app[DESK].do(lambda ask: gather(ask, said))
    except LocalError as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
    return web.json_response(explain(*said, facts))


async def _history(request: web.Request) -> web.StreamResponse:
    """Send what a port did in the last minute or hour."""
    port, span = request.query.get("port", ""), request.query.get("span", "minute")
    if not (port.isascii() and port.isdigit() and len(port) <= 4 and span in SPANS):
        raise web.HTTPBadRequest(text="say which: /api/history?port=NUMBER&span=minute|hour\n")
    number = int(port)
    try:
        job = partial(_history_of, port=number, span=span)
        found = await request.app[DESK].do(job)
    except LocalError as error:
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
    if found is None:
        raise web.HTTPNotFound(text=f"there is no port {number}\n")
    return web.json_response(found)


def _history_of(ask: Asker, *, port: int, span: str) -> Any:
    rows = ask("history", after=port - 1, span=span)["ports"] if port else []
    return rows[0] if rows and rows[0]["port"] == port else None


async def _events(request: web.Request) -> web.StreamResponse:
    """Send news until the viewer goes, or stops reading."""
    watch = request.app[WATCH]
    if len(watch) >= MOST_VIEWERS:
        raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} viewers are watching already; close one\n")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
    with suppress(ConnectionResetError, asyncio.TimeoutError):
        async with aclosing(watch.messages()) as messages:
            await response.prepare(request)
            async for message in messages:
                await asyncio.wait_for(response.write(message), DEAF_S)
    return response


async def _capture(request: web.Request) -> web.StreamResponse:
    """Start a capture of ``ports`` (numbers or names; none: all) and send its file as it grows."""
    try:
        wanted = await request.json()
        ports, expression = wanted["ports"], wanted["filter"]
    except (ValueError, KeyError, TypeError):
        ports, expression = None, None
    named = isinstance(ports, list) and all(each and isinstance(each, str | int) for each in ports)
    if not named or not isinstance(expression, str):
        raise web.HTTPBadRequest(text='send {"ports": [NUMBER, …], "filter": EXPRESSION}\n')
    try:
        number, pieces = await request.app[CAPTURES].start(",".join(map(str, ports)) or "all", expression)
    except LocalError as error:
        raise web.HTTPConflict(text=f"{error}\n") from None
    headers = {"Content-Type": "application/x-pcapng", "Capture-Id": str(number), **HEADERS}
    response = web.StreamResponse(headers=headers)
    with suppress(ConnectionResetError):
        async with aclosing(pieces):
            await response.prepare(request)
            async for piece in pieces:
                await response.write(piece)
    return response


async def _stop_capture(request: web.Request) -> web.StreamResponse:
    if not request.app[CAPTURES].stop(int(request.match_info["number"])):
        raise web.HTTPNotFound(text="that capture has ended\n")
    return web.Response(text="stopped\n")
