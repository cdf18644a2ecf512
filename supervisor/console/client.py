"""The client of the console: send a command, return its answer or raise one clear line in bounded time."""

import zmq

from forwarder import unix_sockets
from forwarder.errors import LocalError, OtherVersionError, PeerError, UsageError
from forwarder.messages import Command, Reply
from forwarder.rendezvous import CONSOLE, endpoint, path
from forwarder.wire import REPLY_BYTES, decode, encode
from supervisor.base.paths import absolute
from supervisor.base.runtime_dir import unreached
from supervisor.base.zmq_sockets import open_context
from supervisor.console import patience


class Client:
    """A connection to the supervisor of one runtime directory, for any number of commands."""

    def __init__(self, runtime_dir: str, timeout_s: float = patience.LONG_S) -> None:
        """Connect. Raises LocalError if no supervisor runs there."""
        self._runtime_dir = absolute(runtime_dir)
        self._timeout_s = timeout_s
        try:
            if not unix_sockets.is_live(path(self._runtime_dir, CONSOLE)):
                raise FileNotFoundError
        except OSError as error:
            raise LocalError(unreached(self._runtime_dir, error)) from None
        self._context = open_context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, REPLY_BYTES)
        self._socket.connect(endpoint(path(self._runtime_dir, CONSOLE)))
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)

    def ask(self, name: str, /, **arguments: object) -> object:
        """Return the result of a command.

        Raises LocalError if it is refused or not answered in time, UsageError if its words are the reason.
        """
        self._socket.send(encode(Command(name, arguments)))
        patience.wait(self._poller, self._runtime_dir, self._timeout_s)
        try:
            reply = decode(self._socket.recv(), REPLY_BYTES)
        except OtherVersionError:
            raise LocalError(
                f"the supervisor in {self._runtime_dir} is another version than this command; use the "
                "command of that version, or kill -9 the supervisor and start this one in its place"
            ) from None
        except PeerError as error:
            raise LocalError(
                f"the supervisor's answer makes no sense, is it another version? {error}"
            ) from None
        if not isinstance(reply, Reply):
            raise LocalError(f"the supervisor answered with a {type(reply).__name__}; is it another version?")
        match reply:
            case Reply(True, result):
                return result
            case Reply(_, {"usage": str(why)}):
                raise UsageError(why)
            case _:
                raise LocalError(str(reply.result))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        self._context.term()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
