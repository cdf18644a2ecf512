"""Captures that the page starts: each is a ``supervisor capture`` of its own, whose file goes to the viewer.

Theory of operation. The command writes to a pipe, and what comes out is the body of the answer. So nothing is
stored here, a capture goes as fast as its viewer reads, and it ends when the viewer, the page's process or
itself ends. ``stop`` ends it as Ctrl-C does: with its statistics at the end of the file.

``MOST_BYTES`` and ``MOST_S`` bound it, since a browser keeps the whole file in memory.

Example: POST /api/capture {"ports": ["web"], "filter": "arp"} answers with ``Capture-Id: 7`` and the file as
it grows; POST /api/capture/7/stop ends it.
"""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import NamedTuple

from forwarder.errors import LocalError
from supervisor.fleet.processes import command

MOST = 4
"""At one time; the switch has its own bound, which is smaller, and says so itself."""
MOST_BYTES = 64 << 20
MOST_S = 600
CHUNK = 256 << 10
FIRST_S = 15.0
"""The command's own patience with a supervisor, and its start."""


class _Running(NamedTuple):
    """One command. Signals go by its pidfd: asyncio's own way may reap it before its watcher does."""

    process: asyncio.subprocess.Process
    pidfd: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; none if it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


class Captures:
    """Those that run now."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._numbers = itertools.count(1)
        self._running: dict[int, _Running] = {}

    async def start(self, ports: str, expression: str) -> tuple[int, AsyncGenerator[bytes, None]]:
        """Start one; return its number and its file, piece by piece. Raises LocalError: it cannot begin."""
        if len(self._running) >= MOST:
            raise LocalError(f"{MOST} captures run already; stop one")
        words = ["capture", "--runtime-dir", self._runtime_dir, "-w", "-", "--seconds", str(MOST_S)]
        words += ["--filter", expression] if expression else []
        argv, environment = command("bulkhead", *words, "--", ports)
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        number = next(self._numbers)
        self._running[number] = _Running(process, os.pidfd_open(process.pid))
        try:
            assert process.stdout is not None
            first = await asyncio.wait_for(process.stdout.read(CHUNK), FIRST_S)
            if not first:
                raise LocalError(await _reason(process))
        except BaseException as error:
            await self._end(number)
            if isinstance(error, asyncio.TimeoutError):
                raise LocalError("the capture has not begun in time; the switch may be stuck") from None
            raise
        return number, self._file(number, first)

    def stop(self, number: int) -> bool:
        """End it as Ctrl-C does; False: there is none of that number."""
        running = self._running.get(number)
        if running is not None:
            running.signal(signal.SIGINT)
        return running is not None

    async def close(self) -> None:
        """End all."""
        for number in list(self._running):
            await self._end(number)

    async def _file(self, number: int, piece: bytes) -> AsyncGenerator[bytes, None]:
        output = self._running[number].process.stdout
        assert output is not None
        sent = 0
        try:
            while piece:
                yield piece
                sent += len(piece)
                if sent >= MOST_BYTES:
                    self.stop(number)
                piece = await output.read(CHUNK)
        finally:
            await self._end(number)

    async def _end(self, number: int) -> None:
        running = self._running.pop(number, None)
        if running is not None:
            running.signal(signal.SIGKILL)
            await running.process.wait()
            os.close(running.pidfd)


async def _reason(process: asyncio.subprocess.Process) -> str:
    """Return the line in which the command has said why it cannot."""
    assert process.stderr is not None
    said = (await process.stderr.read(CHUNK)).decode(errors="replace").strip()
    return said.removeprefix("Error: ").splitlines()[-1] if said else "the capture has ended by itself"
