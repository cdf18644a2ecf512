"""Ask a switch for the facts that ``explain`` needs; the gateway's facts are left out if it is silent."""

import time
from collections.abc import Callable
from typing import Any, cast

from forwarder.errors import LocalError
from supervisor.console.ends import RECENT_S, Facts, port_of
from supervisor.console.explain import far_end, find

Json = dict[str, Any]
Ask = Callable[..., Any]
"""``Client.ask``: a question and its arguments."""
Reach = Callable[[str, int], Json]


def gather(ask: Ask, said: tuple[str, str], reach: Reach | None = None) -> Facts:
    """Ask the switch; leave out the gateway's facts if it does not answer. Raises LocalError.

    ``reach`` tries a connection from this host, where an end is ADDRESS:PORT outside.
    """
    status = ask("status")
    live = status["gateway"] is not None and status["gateway"]["state"] == "live"
    try:
        known = leases(ask) if live else []
        addresses = [far_end(each)[0] for each in said]
        policy = ask("gateway_policy", addresses=addresses) if live else None
    except LocalError:
        known, policy = [], None  # it has become silent meanwhile; its state tells that
        status = ask("status")
    facts = Facts(
        status=status,
        stats=ask("stats", sources=True, weighed=[]),
        macs=ask("macs")["macs"],
        leases=known,
        sent=[],
        questions=ask("dealings")["questions"],
        recent=ask("stats", since=RECENT_S, weighed=[]),
        events=_all(ask, "events", "events", 0, lambda rows: rows[-1]["sequence"]),
        gateway=policy,
        reached={},
        now=time.time(),
    )
    ends = [find(each, facts) for each in said]
    rows = [port_of(end, facts) for end in ends]
    sent = ask("dealings", ports=sorted({row["port"] for row in rows if row is not None}))["sent"]
    far = [far_end(end.said) for end in ends if end.outside]
    reached = reach(far[0][0], far[0][1]) if reach and far and far[0][1] is not None else {}
    return facts._replace(sent=sent, reached=reached)


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
