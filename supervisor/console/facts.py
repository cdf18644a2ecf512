"""Ask a switch for the facts that ``explain`` needs; the gateway's facts are left out if it is silent."""

import time
from collections.abc import Callable
from typing import Any, cast

from forwarder.errors import LocalError
from supervisor.console.explain import Facts

Json = dict[str, Any]
Ask = Callable[..., Any]
"""``Client.ask``: a question and its arguments."""


def gather(ask: Ask, said: tuple[str, str]) -> Facts:
    """Ask the switch; leave out the gateway's facts if it does not answer. Raises LocalError."""
    status = ask("status")
    live = status["gateway"] is not None and status["gateway"]["state"] == "live"
    try:
        known = leases(ask) if live else []
        policy = ask("gateway_policy", addresses=list(said)) if live else None
    except LocalError:
        known, policy = [], None  # it has become silent meanwhile; its state tells that
        status = ask("status")
    return Facts(
        status,
        ask("stats", sources=True, weighed=[]),
        ask("macs")["macs"],
        known,
        _all(ask, "events", "events", 0, lambda rows: rows[-1]["sequence"]),
        policy,
        time.time(),
    )


def leases(ask: Ask) -> list[Json]:
    """Return all leases. Raises LocalError if no gateway answers."""
    return _all(ask, "leases", "leases", "0.0.0.0", lambda rows: rows[-1]["address"])


def _all(
    ask: Ask, question: str, key: str, after: object, following: Callable[[list[Json]], object]
) -> list[Json]:
    """Return the rows of an answer in several parts."""
    rows: list[Json] = []
    while more := cast(list[Json], ask(question, after=after)[key]):
        rows += more
        after = following(rows)
    return rows
