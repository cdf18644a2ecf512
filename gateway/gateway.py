"""Composition: the parts of one gateway, and the loop around them.

Theory of operation
-------------------
One process, one thread. The supervisor starts it with a channel and says ``serve``; it makes the namespace
(``holder``), passes the TAP on, and answers when guests can be served. From then on the supervisor asks and
it answers, in order. What goes wrong before that is the answer, one line that names cause and remedy; what
goes wrong later ends the process, and the supervisor starts another one under its restart budget.

The end of the channel is the end of the gateway: what the supervisor does not know of, it cannot mend.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from forwarder.channel import Channel, ChannelClosedError
from forwarder.errors import LocalError, PeerError
from forwarder.loop import Loop
from forwarder.wire import Command, Handover, Message, Reply
from gateway import overlap
from gateway.holder import Holder
from gateway.settings import Settings, read

IDLE_S = 3600.0


class Gateway:
    """One gateway, from construction to the end of ``run``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = Loop()
        self._holder = Holder(self._loop, self._lost, self._log)
        self._settings: Settings | None = None
        self._done = False

    def run(self) -> None:
        """Serve until the channel, or the namespace, ends."""
        self._loop.watch(self._channel.fileno(), lambda _: self._receive())
        try:
            while not self._done:
                self._loop.turn(IDLE_S)
        except ChannelClosedError:
            pass
        finally:
            self._holder.close()
            self._channel.close()

    def _receive(self) -> None:
        self._channel.flush()
        while (received := self._channel.receive()) is not None:
            self._take(received[0])

    def _take(self, message: Message) -> None:
        if not isinstance(message, Command):
            raise PeerError(f"a {type(message).__name__} is not for the gateway")
        try:
            if message.name != "serve" or self._settings is not None:
                raise LocalError(f"there is no command {message.name}; the gateway is another version")
            result = self._serve(message.arguments)
        except LocalError as error:
            self._channel.send(Reply(False, str(error)))
        else:
            self._channel.send(Reply(True, result))

    def _serve(self, plain: Mapping[str, object]) -> dict[str, object]:
        settings = self._settings = read(plain)
        overlap.check(settings.policy.subnet, Path("/proc/net/route").read_text())
        self._holder.start(plain)
        self._channel.send(Handover("tap", {}, 1), (self._holder.tap,))
        os.close(self._holder.tap)
        self._holder.tap = -1
        return {"subnet": str(settings.policy.subnet), "prefix": str(settings.policy.prefix)}

    def _lost(self, why: str) -> None:
        self._log("error", f"the gateway's namespace is gone: {why}")
        self._done = True

    def _log(self, level: str, text: str) -> None:
        self._channel.send(Command("log", {"level": level, "text": text}))
