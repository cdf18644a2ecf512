"""The process that holds the gateway's network namespace.

Theory of operation
-------------------
The gateway forks it (``gateway.namespace_process``) into a network namespace of its own. The TAP and the
sockets are made in there by a process that ends then (``making``), and passed to the host side. A socket
belongs to the namespace in which it was made, whichever process uses it. So the host side connects, accepts
and answers by itself, and no traffic of a guest passes through this process.

When everything has been made it enters its cell (``process.cell``): what it can do afterwards is make
sockets of TCP and UDP, and ask its kernel two things (``kernel``).

It lives as long as its channel. The network namespace goes with its last user, and what is in it needs no
cleaning up.
"""

import os
import socket
import sys
from contextlib import suppress
from typing import NoReturn, cast

from forwarder.channel import ChannelClosedError
from forwarder.errors import LocalError, PeerError, shortage
from forwarder.loop import Loop, failure
from forwarder.loop_channel import LoopChannel
from forwarder.messages import Command, Handover, Message, Reply
from forwarder.process import cell
from gateway.inside.kernel import Kernel

IDLE_S = 3600.0
KINDS = {
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
}
"""Sockets that the host side may ask for."""


class Inside:
    """The namespace, from its creation to its end."""

    def __init__(self, channel: LoopChannel) -> None:
        self._channel = channel
        self._loop = Loop(self._failed)
        self._done = False
        self._kernel = Kernel()
        self._refusals = cell.Refusals()

    def run(self) -> None:
        """Serve until the channel ends."""
        self._channel.send(Reply(True, cell.plain(cell.enter("namespace"))))
        self._channel.watch(self._loop, self._receive)
        try:
            while not self._done:
                self._loop.turn(IDLE_S)
                news = self._refusals.news()
                if news is not None:
                    self._channel.send(Command("refused", {"count": news[0], "last": news[1]}))
        except ChannelClosedError:
            pass

    def _failed(self) -> None:
        self._channel.send(Command("log", {"level": "error", "text": f"the namespace failed: {failure()}"}))

    def _receive(self) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                self._on_message(received[0])
        except ChannelClosedError:
            self._done = True
        except Exception:
            self._done = True  # a namespace that its gateway cannot reach is of no use
            raise

    def _on_message(self, message: Message) -> None:
        if not isinstance(message, Command):
            return
        if message.name == "sockets":
            self._give_sockets(str(message.arguments["kind"]), cast(int, message.arguments["count"]))
            return
        result: object = None
        try:
            if message.name == "neighbours":
                result = self._kernel.neighbours()
            elif message.name == "flooded":
                result = self._kernel.flooded()
            self._channel.send(Reply(True, result))
        except LocalError as error:
            self._channel.send(Reply(False, str(error)))

    def _give_sockets(self, kind: str, count: int) -> None:
        """Send so many sockets, or fewer if descriptors or memory are short: perhaps none."""
        family, type_ = KINDS[kind]
        made: list[socket.socket] = []
        with suppress(OSError):  # no descriptor is left, or no memory
            while len(made) < count:
                made.append(socket.socket(family, type_ | socket.SOCK_NONBLOCK))
        try:
            message = Handover("sockets", {"kind": kind, "asked": count}, len(made))
            self._channel.send(message, [each.fileno() for each in made])
        finally:
            for each in made:
                each.close()


def serve(sock: socket.socket) -> None:
    """Be this process, until the channel ends."""
    channel = LoopChannel(sock)
    with suppress(KeyboardInterrupt, PeerError):
        try:
            if _is_made(channel):
                Inside(channel).run()
        except LocalError as error:
            channel.send(Reply(False, str(error)))


def _is_made(channel: LoopChannel) -> bool:
    """Have everything made, and wait; if that fails, the maker has said why. Raises LocalError."""
    try:
        maker = os.fork()
    except OSError as error:
        raise LocalError(f"cannot make the gateway's namespace: cannot fork: {shortage(error)}") from None
    if maker == 0:
        _be_maker(channel)
    return os.waitpid(maker, 0)[1] == 0


def _be_maker(channel: LoopChannel) -> NoReturn:
    status = 1
    try:
        from gateway.inside.making import make  # noqa: PLC0415 - its parent does without what it imports

        status = 0 if make(channel) else 1
    except (KeyboardInterrupt, PeerError):
        pass  # the gateway has ended
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
