"""Run the commands of operators that the supervisor passes on.

The gateway itself takes ``serve``, which begins it. ``check`` needs no gateway that serves, all others do.
"""

from collections.abc import Mapping
from typing import Protocol

from forwarder.errors import LocalError
from forwarder.future import Future
from forwarder.messages import Command, Reply
from gateway import answers
from gateway.api.carry_over import By
from gateway.check import checked
from gateway.host_forwards import Added
from gateway.provisions import Row
from gateway.relay.forwards import Forward


class Served(Protocol):
    """What operators see of a gateway, and change."""

    @property
    def serves(self) -> bool:
        """Whether it has begun to serve; before that it answers nothing of the following."""

    def forwards(self) -> list[Forward]:
        """Return all forwards."""

    def forward(self, text: str) -> Forward:
        """Return the forward that an operator means. Raises LocalError if there is none."""

    def add_forward(self, forward: Forward, by: By) -> Future[Added]:
        """Begin to forward. Raises LocalError, like a result that is one: nothing has changed."""

    def remove_forward(self, forward: Forward, by: By) -> None:
        """End a forward."""

    def lease_rows(self, after: str) -> list[Row]:
        """Return a page of leases, above the address ``after``. Raises LocalError."""

    def policy(self, addresses: object) -> dict[str, object]:
        """Return the LAN, why each of ``addresses`` is refused, and connections that failed lately."""

    def figures(self) -> dict[str, dict[str, int]]:
        """Return the number of flows now, and the counters since this process began."""

    def tell_owners(self) -> None:
        """Tell the supervisor which port has which address, if that has changed."""


class Commands:
    """The commands of one gateway."""

    def __init__(self, gateway: Served) -> None:
        self._gateway = gateway

    def run(self, command: Command) -> Future[Reply]:
        """Return the answer, which may be known later. Raises LocalError: nothing has changed."""
        name, arguments = command.name, command.arguments
        if name == "check":
            return answers.now(Reply(True, checked(arguments)))
        if not self._gateway.serves:
            raise LocalError("the gateway does not serve yet")
        if name == "forward_add":
            added = self._gateway.add_forward(Forward.parse(str(arguments["forward"])), _operator(arguments))
            return added.map(
                lambda result: (
                    answers.refusal(result)
                    if isinstance(result, LocalError)
                    else Reply(True, {"forward": str(result)})
                )
            )
        return answers.now(Reply(True, self._result(name, arguments)))

    def _result(self, name: str, arguments: Mapping[str, object]) -> object:
        gateway = self._gateway
        if name == "leases":
            return {"leases": gateway.lease_rows(str(arguments["after"]))}
        if name == "figures":
            gateway.tell_owners()
            return {"figures": gateway.figures()}
        if name == "policy":
            return gateway.policy(arguments["addresses"])
        if name == "forward_list":
            return {"forwards": [str(each) for each in gateway.forwards()]}
        if name == "forward_remove":
            removed = gateway.forward(str(arguments["forward"]))
            gateway.remove_forward(removed, _operator(arguments))
            return {"forward": str(removed)}
        raise LocalError(f"there is no command {name}; the gateway is another version")


def _operator(arguments: Mapping[str, object]) -> By:
    """Return who asks for a change: an operator, by the number of the command."""
    return {"asked": arguments["asked"]}
