"""What the next gateway is to begin with: what the operator said, and what has changed since.

The supervisor keeps it, since the gateway cannot keep anything over its own end: at each change it is told
all of it, as the arguments of the ``serve`` that starts the next one. That is one message, and so one message
is the bound of everything that can be added to a gateway while it runs: ``check`` before a change is made.
"""

from collections.abc import Callable, Iterable, Mapping

from forwarder.channel import CHANNEL_BYTES
from forwarder.errors import LocalError
from forwarder.messages import Command
from forwarder.wire import encode


class Memory:
    """The options of the next gateway."""

    def __init__(self, options: Mapping[str, object], tell: Callable[[Command], None]) -> None:
        """Begin with ``options``; ``tell`` sends what is to be remembered to the supervisor."""
        self._options = dict(options)
        self._tell = tell

    def check(self, option: str, values: Iterable[object]) -> None:
        """Raise LocalError if it cannot be remembered that ``option`` is the list of ``values``, as texts."""
        if len(encode(self._command(option, values))) > CHANNEL_BYTES:
            raise LocalError(
                "that is more than a gateway can hand on to the next one; remove something first"
            )

    def change(self, option: str, values: Iterable[object]) -> None:
        """Remember that ``option`` is the list of ``values``, as texts."""
        command = self._command(option, values)
        self._options = command.arguments
        self._tell(command)

    def _command(self, option: str, values: Iterable[object]) -> Command:
        return Command("remember", {**self._options, option: [str(value) for value in values]})
