"""The options that the next gateway begins with: the operator's, and the changes since.

The supervisor saves them, since they have to outlive the gateway's process. After each change the gateway
sends all of them, as the arguments of the ``serve`` for the next one. That is one message, which bounds
everything that can be added to a gateway while it runs: call ``check`` before a change.
"""

from collections.abc import Callable, Iterable, Mapping

from forwarder.channel import CHANNEL_BYTES
from forwarder.errors import LocalError
from forwarder.messages import Command
from forwarder.wire import encode


class Memory:
    """The options of the next gateway."""

    def __init__(self, options: Mapping[str, object], tell: Callable[[Command], None]) -> None:
        """Begin with ``options``; ``tell`` sends the options to the supervisor."""
        self._options = dict(options)
        self._tell = tell

    def check(self, option: str, values: Iterable[object]) -> None:
        """Raise LocalError if ``option`` with this list of ``values``, as texts, does not fit the message."""
        if len(encode(self._command(option, values))) > CHANNEL_BYTES:
            raise LocalError(
                "that is more than a gateway can pass on to the next one; remove something first"
            )

    def change(self, option: str, values: Iterable[object]) -> None:
        """Set ``option`` to this list of ``values``, as texts, and send all options."""
        command = self._command(option, values)
        self._options = command.arguments
        self._tell(command)

    def _command(self, option: str, values: Iterable[object]) -> Command:
        return Command("remember", {**self._options, option: [str(value) for value in values]})
