"""Run the commands of operators that the supervisor passes on to a gateway that serves."""

from collections.abc import Mapping
from typing import Protocol

from forwarder.errors import LocalError
from forwarder.future import Future, known
from forwarder.messages import Command, Reply
from gateway import answers
from gateway.api.carry_over import By
from gateway.host_forwards import Added
from gateway.provisions import Row
from gateway.relay.forwards import Forward


class Served(Protocol):
    """What operators see of a gateway, and change."""

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


def run(served: Served, command: Command) -> Future[Reply]:
    """Return the answer, which may be known later. Raises LocalError: nothing has changed."""
    name, arguments = command.name, command.arguments
    if name == "forward_add":
        added = served.add_forward(Forward.parse(str(arguments["forward"])), _operator(arguments))
        return added.map(
            lambda result: (
                answers.refusal(result)
                if isinstance(result, LocalError)
                else Reply(True, {"forward": str(result)})
            )
        )
    return known(Reply(True, _result(served, name, arguments)))


def _result(served: Served, name: str, arguments: Mapping[str, object]) -> object:
    if name == "leases":
        return {"leases": served.lease_rows(str(arguments["after"]))}
    if name == "figures":
        served.tell_owners()
        return {"figures": served.figures()}
    if name == "policy":
        return served.policy(arguments["addresses"])
    if name == "forward_list":
        return {"forwards": [str(each) for each in served.forwards()]}
    if name == "forward_remove":
        removed = served.forward(str(arguments["forward"]))
        served.remove_forward(removed, _operator(arguments))
        return {"forward": str(removed)}
    raise LocalError(f"there is no command {name}; the gateway is another version")


def _operator(arguments: Mapping[str, object]) -> By:
    """Return who asks for a change: an operator, by the number of the command."""
    return {"asked": arguments["asked"]}
