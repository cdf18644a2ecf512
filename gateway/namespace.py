"""The client of the namespace's process: asks it to make the namespace, and for sockets of it.

The process (``namespace_process``) enters its cell when it has made everything (``gateway.inside``), and says
what of it is in force. The host side is in one, too, by the time that guests come, and cannot end another
process any more: the supervisor has ``pidfd`` for that.
"""

import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import cast

from forwarder.channel import ChannelClosedError, close_all
from forwarder.errors import LocalError, PeerError
from forwarder.future import Future, known
from forwarder.loop import Loop
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Command, Handover, Message, Reply
from gateway.namespace_process import NamespaceProcess
from gateway.stock import Deliver, Stock

_ENDED = Reply(False, "the gateway's namespace has ended; see the log")

MOST_ASKED = 20
"""Unanswered questions of a process that hangs: one is asked each second, and answered in a millisecond."""

START_S = 15.0
"""The namespace is ready after a tenth of a second, half of it imports; a loaded machine needs seconds."""


class Namespace:
    """The namespace, seen from the host side."""

    def __init__(
        self,
        loop: Loop,
        process: NamespaceProcess,
        lost: Callable[[str], None],
        log: Callable[[str, str], None],
        refused: Callable[[int, int], None],
    ) -> None:
        """Prepare. ``lost``: the namespace is gone, and why; ``log``: (level, text) for the operator.

        ``refused``: the cell of the process inside has refused so many calls; and the number of the last.
        """
        self._refused = refused
        self._loop = loop
        self._lost = lost
        self._log = log
        self._process: NamespaceProcess | None = process
        self._channel: LoopChannel | None = LoopChannel(process.channel)
        self._stock = Stock(self._ask_for_sockets)
        self._answers: list[Callable[[Reply], None]] = []
        self.pidfd = process.pidfd
        """Of the process around the namespace, which ends it all."""
        self.cell: dict[str, object] = {}
        """Of the process inside, as ``forwarder.process.cell.plain`` writes it."""
        self.tap = -1
        """Descriptor of the TAP, once it has been made; the user of it closes it."""
        self.tun = -1
        """Descriptor of the TUN, the way out of the namespace; the user of it closes it."""
        self.sockets: dict[str, socket.socket] = {}
        """Listening sockets of the namespace, by name."""

    def start(self, settings: Mapping[str, object]) -> None:
        """Make the namespace and everything in it. Raises LocalError; nothing is left behind then."""
        assert self._process is not None
        assert self._channel is not None
        try:
            if self._process.failure:
                raise LocalError(self._process.failure)
            in_user_namespace = self._process.in_user_namespace
            self._channel.send(
                Command("make", {"settings": dict(settings), "in_user_namespace": in_user_namespace})
            )
            self._await_made(time.monotonic() + START_S)
        except PeerError:
            why = self._process.complaint()
            self.close()
            raise LocalError(why) from None
        except LocalError:
            self.close()
            raise
        self._channel.watch(self._loop, self._receive)
        self._loop.watch(self._process.fileno(), lambda _: self._listen())

    def make(self, kind: str, deliver: Deliver) -> None:
        """Ask for a new socket of the namespace; ``deliver`` gets it, now or later, or None."""
        if self._channel is None:
            deliver(None)
        else:
            self._stock.take(kind, deliver)

    def ask(self, command: Command) -> Future[Reply]:
        """Send a request to the process inside, which is answered in any case.

        If the process has answered none of ``MOST_ASKED``, it hangs, and the namespace is of no use any more.
        """
        if len(self._answers) >= MOST_ASKED:
            self._end("its process does not answer")
        if self._channel is None:
            return known(_ENDED)
        future: Future[Reply] = Future()
        self._answers.append(future.set_result)
        try:
            self._channel.send(command)
        except ChannelClosedError:
            self._end("its channel has ended")  # which answers
        return future

    def close(self) -> None:
        """End the namespace and everything in it."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            if not self._process.failure:
                self._loop.unwatch(self._process.fileno())
            self._process.close()
            self._process = None
        close_all([each for each in (self.tap, self.tun, self.pidfd) if each >= 0])
        self.tap = self.tun = self.pidfd = -1
        for sock in self.sockets.values():
            sock.close()
        self.sockets.clear()
        self._stock.close()
        answers, self._answers = self._answers, []
        for answer in answers:
            answer(_ENDED)

    def _await_made(self, deadline: float) -> None:
        assert self._channel is not None
        made: list[Reply] = []
        self._answers.append(made.append)
        while not made:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([self._channel], [], [], wait)[0]:
                raise LocalError(f"the gateway's namespace was not ready after {START_S:g} s")
            self._receive_all()
        if not made[0].ok:
            raise LocalError(str(made[0].result))
        self.cell = cast(dict[str, object], made[0].result)

    def _receive(self) -> None:
        try:
            self._receive_all()
        except ChannelClosedError:
            self._end(self._last_words() or "its process has ended")
        except PeerError as error:
            self._end(f"it sent a bad message: {error}")

    def _receive_all(self) -> None:
        while self._channel is not None and (received := self._channel.receive()) is not None:
            self._on_message(*received)

    def _on_message(self, message: Message, descriptors: tuple[int, ...]) -> None:
        match message:
            case Handover("tap"):
                self.tap = descriptors[0]
            case Handover("tun"):
                self.tun = descriptors[0]
            case Handover("sockets", {"kind": str(kind), "asked": int(asked)}):
                self._stock.came(kind, asked, descriptors)
            case Handover("listeners", {"names": list(names)}) if len(names) == len(descriptors):
                for name, descriptor in zip(cast(list[str], names), descriptors, strict=True):
                    self.sockets[name] = socket.socket(fileno=descriptor)
            case Command("log", {"level": str(level), "text": str(text)}):
                self._log(level, text)
            case Command("refused", {"count": int(count), "last": int(last)}):
                self._refused(count, last)
            case Reply() if self._answers:
                self._answers.pop(0)(message)
            case _:
                close_all(descriptors)
                raise PeerError(f"an unexpected {type(message).__name__}")

    def _ask_for_sockets(self, kind: str, count: int) -> None:
        try:
            assert self._channel is not None
            self._channel.send(Command("sockets", {"kind": kind, "count": count}))
        except PeerError:
            self._end("its channel has ended")

    def _listen(self) -> None:
        if self._process is not None and not self._process.listen():
            self._loop.unwatch(self._process.fileno())

    def _last_words(self) -> str:
        return "" if self._process is None else self._process.last_words()

    def _end(self, why: str) -> None:
        self.close()
        self._lost(why)
