"""The options that the next gateway begins with: the operator's, and the changes since.

The supervisor saves them, since they have to outlive the gateway's process. After each change the gateway
sends all of them, as the arguments of the ``serve`` for the next one. That is one message, which bounds
everything that can be added to a gateway while it runs: call ``check`` before a change.

Each message also says who asked for the change, for the event of it: ``by`` is ``{"asked": N}``, the number
that the supervisor gave the operator's command, or ``{"client": {"uid": …, "pid": …}}``, a client of the HTTP
API. It is no option.
"""

from collections.abc import Callable, Iterable, Mapping

from forwarder.channel import CHANNEL_BYTES
from forwarder.errors import LocalError
from forwarder.messages import Command
from forwarder.wire import encode

By = Mapping[str, object]
"""The client or operator of a change, as in the head of this file; empty: the start of the gateway."""
OF_THE_START: By = {}
_LONGEST: By = {"client": {"uid": 0xFFFFFFFF, "pid": 0xFFFFFFFF}}


class CarryOver:
    """The options of the next gateway."""

    def __init__(self, options: Mapping[str, object], tell: Callable[[Command], None]) -> None:
        """Begin with ``options``; ``tell`` sends the options to the supervisor."""
        self._options = dict(options)
        self._tell = tell

    def check(self, option: str, values: Iterable[object]) -> None:
        """Raise LocalError if ``option`` with this list of ``values``, as texts, does not fit the message."""
        if len(encode(self._command(option, values, _LONGEST))) > CHANNEL_BYTES:
            raise LocalError(
                "that is more than a gateway can pass on to the next one; remove something first"
            )

    def change(self, option: str, values: Iterable[object], by: By = OF_THE_START) -> None:
        """Set ``option`` to this list of ``values``, as texts, and send all options."""
        command = self._command(option, values, by)
        self._options = {key: value for key, value in command.arguments.items() if key != "by"}
        self._tell(command)

    def _command(self, option: str, values: Iterable[object], by: By) -> Command:
        texts = [str(value) for value in values]
        return Command("remember", {**self._options, option: texts, "by": dict(by)})
