"""Start and end the HTTP server of one switch."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web

from forwarder import unix_sockets
from forwarder.errors import LocalError
from forwarder.socket_address import port_number
from supervisor.attach.addresses import path_in
from supervisor.web import cell
from supervisor.web.access import Access, is_loopback
from supervisor.web.server import application

LEAST_TOKEN = 16
"""Least characters of a token; a shorter secret can be guessed."""


def serve(runtime_dir: str, listen: str, token_file: str | None) -> None:
    """Serve until SIGINT or SIGTERM. Raises LocalError."""
    token = _token(token_file)
    sock, url, access = _bind(listen, token)
    try:
        app = application(runtime_dir, access)
        cell.enter(runtime_dir)
        asyncio.run(_run(sock, url, app))
    finally:
        sock.close()


async def _run(sock: socket.socket, url: str, app: web.Application) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await runner.cleanup()


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        token = Path(path).read_text().strip()
    except OSError as error:
        raise LocalError(f"cannot read the token in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LocalError(f"the token in {path} is not UTF-8 text") from None
    if len(token) < LEAST_TOKEN:
        raise LocalError(f"the token in {path} is shorter than {LEAST_TOKEN} characters")
    return token


def _bind(listen: str, token: str | None) -> tuple[socket.socket, str, Access]:
    path = path_in(listen)
    if path is not None:
        return _bind_unix(path), f"unix://{path}", Access(None, token)
    scheme, _, rest = listen.partition("://")
    host, _, digits = rest.rpartition(":")
    host = host.strip("[]")
    port = port_number(digits)
    if scheme != "tcp" or not host or port is None:
        raise LocalError(f"{listen!r} is not an address; write it as tcp://HOST:PORT or unix:///PATH")
    if token is None and not is_loopback(host):
        raise LocalError(f"other machines can reach {host}; give a secret with --token-file")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise LocalError(
            f"cannot listen on {listen}: {str(why).lower()}; choose another with --listen"
        ) from None
    number = sock.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    hosts = frozenset({host.lower(), "localhost", "127.0.0.1", "::1"})
    return sock, f"http://{shown}:{number}/", Access(hosts if token is None else None, token)


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        unix_sockets.bind(sock, path)
    except LocalError:
        sock.close()
        raise
    return sock
