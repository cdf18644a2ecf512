"""Send the answers of the switch to all viewers of the page.

Theory of operation. A thread asks the switch once a second (``rounds``). Each piece of news is encoded once
and put into the queue of each viewer. A new viewer, and a slow one that has missed a message, gets ``now``
first: one message with everything that is known. So the number and the speed of viewers do not change what
the switch is asked. Without a viewer it is asked nothing.

``live`` has the rows that have changed. All rows, and the last minute of each port's rates, are kept here for
a page that is loaded, or late.

Example: three browsers watch; one is on a phone that sleeps. Its queue fills after ``MOST_WAITING`` messages
and is emptied; when the phone wakes up its next message is ``now``.

``Watch`` belongs to the event loop; only ``Rounds.ask`` runs in the thread.
"""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

Json = dict[str, Any]
Update = tuple[str, Json]

INTERVAL_S = 1.0
LINGER_S = 10.0
"""Time after the last viewer has left in which the switch is still asked, for a page that is loaded again."""
MOST_WAITING = 8
MOST_EVENTS = 200
"""Most events on the page; `supervisor events` shows all."""
HISTORY = 60
"""Seconds of rates to keep for each port."""


class _Viewer:
    """The messages that one viewer has not received yet; ``late`` if it needs everything."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.late = True
        self.news = asyncio.Event()

    def tell(self, message: bytes) -> None:
        if len(self.waiting) >= MOST_WAITING:
            self.waiting.clear()
            self.late = True
        elif not self.late:
            self.waiting.append(message)
        self.news.set()


class Watch:
    """All that is known of the switch, and the viewers."""

    def __init__(self, ask: Callable[[float], list[Update]]) -> None:
        self._ask = ask
        self._viewers: set[_Viewer] = set()
        self._known: dict[str, Json] = {}
        self._rows: dict[int, list[Any]] = {}
        """The last row of each port."""
        self._events: deque[Json] = deque(maxlen=MOST_EVENTS)
        self._history: dict[int, deque[list[int]]] = {}
        self._wanted_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._viewers)

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events: first everything, then news."""
        viewer = _Viewer()
        self._viewers.add(viewer)
        self._want()
        try:
            while True:
                if viewer.late and self._known:
                    viewer.late = False
                    viewer.waiting.clear()
                    yield self._now()
                elif viewer.waiting:
                    yield viewer.waiting.popleft()
                else:
                    viewer.news.clear()
                    await viewer.news.wait()
        finally:
            self._viewers.discard(viewer)
            self._wanted_until = time.monotonic() + LINGER_S

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _want(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._viewers or time.monotonic() < self._wanted_until:
                due = time.monotonic() + INTERVAL_S
                for name, data in await asyncio.to_thread(self._ask, time.monotonic()):
                    self._take(name, data)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        finally:
            self._known.clear()

    def _take(self, name: str, data: Json) -> None:
        if name == "live":
            self._known.pop("away", None)
            self._remember(data["ports"], whole=data["whole"])
        if name == "happened":
            if data["anew"]:
                self._events.clear()
            data = data | {"events": data["events"][-MOST_EVENTS:]}
            self._events.extend(data["events"])
        else:
            self._known[name] = data
        message = _message(name, data)
        for viewer in self._viewers:
            viewer.tell(message)

    def _remember(self, changed: list[list[Any]], *, whole: bool) -> None:
        self._rows = ({} if whole else self._rows) | {row[0]: row for row in changed}
        past = self._history
        self._history = {port: past.get(port) or deque(maxlen=HISTORY) for port in self._rows}
        for port, row in self._rows.items():
            self._history[port].append(row[3][:2])

    def _now(self) -> bytes:
        known = dict(self._known)
        if "live" in known:
            known["live"] = known["live"] | {"whole": True, "ports": list(self._rows.values())}
        history = {port: list(past) for port, past in self._history.items()}
        return _message("now", known | {"events": list(self._events), "history": history})


def _message(name: str, data: Json) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
