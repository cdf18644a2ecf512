"""Ask for all rows of an answer that comes in parts, since one message has a bound."""

from collections.abc import Callable
from typing import Any, cast

Json = dict[str, Any]
Ask = Callable[..., Any]
"""``Client.ask``: a question and its arguments."""


def leases(ask: Ask) -> list[Json]:
    """Return all leases. Raises LocalError if no gateway answers."""
    return _all(ask, "leases", "0.0.0.0", lambda rows: rows[-1]["address"])


def events(ask: Ask) -> list[Json]:
    """Return all events that are kept, the oldest first. Raises LocalError."""
    return _all(ask, "events", 0, lambda rows: rows[-1]["sequence"])


def _all(ask: Ask, question: str, after: object, following: Callable[[list[Json]], object]) -> list[Json]:
    rows: list[Json] = []
    while more := cast(list[Json], ask(question, after=after)[question]):
        rows += more
        after = following(rows)
    return rows
