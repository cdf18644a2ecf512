"""The server of the console: a ZeroMQ ROUTER that answers each command with one Reply.

A command is a name and plain arguments; ``handlers`` has a function for each name. The answer is always a
Reply: the result, or one line that says whose fault it was. No message stops the loop. A message that is not
a command is counted, logged at most once a second, and not answered, since its sender would not understand
the answer.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import zmq

from forwarder.errors import BulkheadError, LocalError, OtherVersionError, PeerError
from forwarder.future import Future
from forwarder.loop import Loop
from forwarder.messages import Command, Reply
from forwarder.rendezvous import CONSOLE, endpoint, path
from forwarder.unix_sockets import SocketFile
from forwarder.wire import decode, encode
from supervisor.base.logs import Throttle, asked_by, log
from supervisor.base.mending import mended
from supervisor.base.zmq_sockets import Context, bind, listen

AT_ONCE = 16
"""Commands answered in one turn; each may sample every port."""

Handler = Callable[[dict[str, object]], object]
"""Returns the result, or a ``Future`` Reply if another process has to answer."""


class Console:
    """The socket and its commands."""

    def __init__(
        self,
        loop: Loop,
        context: Context,
        runtime_dir: str,
        handlers: Mapping[str, Handler],
    ) -> None:
        self._loop = loop
        self._handlers = handlers
        self._throttle = Throttle()
        self.bad_messages = 0
        self._path = path(runtime_dir, CONSOLE)
        self._socket = listen(context, zmq.ROUTER, endpoint(self._path))
        self._file = SocketFile.at(self._path)
        self._fd = cast(int, self._socket.getsockopt(zmq.FD))
        loop.watch(self._fd, lambda _: None)  # it only has to wake the loop

    def mend(self) -> SocketFile:
        """Bind again if the socket's file was deleted; return the file."""
        self._file = mended(self._path, self._file, self._bind_again, self._throttle)
        return self._file

    def receive(self) -> bool:
        """Answer the commands that have arrived; return whether there may be more."""
        for _ in range(AT_ONCE):
            try:
                *route, last = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            try:
                command = decode(last.bytes)
                if not isinstance(command, Command) or len(route) > 2:
                    raise PeerError("not a command")
            except PeerError as error:
                if isinstance(error, OtherVersionError):  # the answer, too, shows its reader the version
                    self._answer([part.bytes for part in route], Reply(False, str(error)))
                self.bad_messages += 1
                self._throttle.warning("bad", f"bad message on {CONSOLE}, ignored: {error}")
                continue
            with asked_by(_caller(last)):
                answer = self._run(command)
            way = [part.bytes for part in route]
            if isinstance(answer, Future):
                answer.add_done_callback(partial(self._answer, way))
            else:
                self._answer(way, answer)
        return True

    def close(self) -> None:
        """Close the socket; answers on their way have a moment to leave."""
        self._loop.unwatch(self._fd)
        self._socket.close(linger=100)

    def _bind_again(self) -> SocketFile:
        bind(self._socket, endpoint(self._path))
        return SocketFile.at(self._path)

    def _run(self, command: Command) -> Reply | Future[Reply]:
        handler = self._handlers.get(command.name)
        if handler is None:
            return Reply(False, f"there is no command {command.name}; the supervisor is another version")
        try:
            result = handler(command.arguments)
            return result if isinstance(result, Future) else Reply(True, result)
        except BulkheadError as error:
            return Reply(False, str(error))
        except Exception:
            # A bug of ours: the operator gets an answer, and all VMs go on.
            log.exception("command %s failed", command.name)
            return Reply(False, f"{command.name} failed inside the supervisor; its log says where")

    def _answer(self, route: list[bytes], reply: Reply) -> None:
        try:
            data = encode(reply)
        except LocalError as error:
            data = encode(Reply(False, str(error)))
        try:
            self._socket.send_multipart([*route, data], zmq.NOBLOCK)
        except zmq.Again:
            self._throttle.warning("full", "an answer was dropped: the operator does not read")


def _caller(frame: zmq.Frame) -> dict[str, object] | None:
    """Return the user that has sent this, from the kernel (``SO_PEERCRED``); None if it does not say."""
    try:
        _, uid, _, pid = str(frame.get("Peer-Address")).split(":")
        return {"uid": int(uid), "pid": int(pid)}
    except (zmq.ZMQError, ValueError):
        return None
