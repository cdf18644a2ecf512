"""Run the captures that the page starts: each is a ``supervisor capture``; its file goes to the viewer.

Theory of operation. The command writes to a pipe, and the bytes of the pipe are the body of the answer. So
nothing is stored here, and a capture is as fast as its viewer reads. It ends when the viewer, the page's
process or the command ends. ``stop`` ends it like Ctrl-C: the file then has its statistics at the end.

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
from supervisor.base.program import command

MOST = 4
"""Most captures at one time; the switch has a smaller bound of its own, and reports it itself."""
MOST_BYTES = 64 << 20
MOST_S = 600
CHUNK = 256 << 10
FIRST_S = 15.0
"""Time for the command to start and for the supervisor to answer it."""


class _Running(NamedTuple):
    """One command.

    Signals go through its pidfd, because asyncio may reap the process before its watcher does.
    """

    process: asyncio.subprocess.Process
    pidfd: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the command has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


class Captures:
    """All running captures."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._numbers = itertools.count(1)
        self._running: dict[int, _Running] = {}

    async def start(self, ports: str, expression: str) -> tuple[int, AsyncGenerator[bytes, None]]:
        """Start a capture; return its number and its file, piece by piece.

        Raises LocalError if it cannot begin.
        """
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
        """End a capture like Ctrl-C; return False if none has that number."""
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
    """Return the command's error line."""
    assert process.stderr is not None
    said = (await process.stderr.read(CHUNK)).decode(errors="replace").strip()
    return said.removeprefix("Error: ").splitlines()[-1] if said else "the capture has ended by itself"
