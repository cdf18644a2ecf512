"""Ask a switch for the facts that ``explain`` needs; the gateway's facts are left out if it is silent."""

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from forwarder.errors import LocalError
from supervisor.console import in_parts
from supervisor.console.in_parts import Ask
from supervisor.explain.ends import LATELY_S, RECENT_S, Facts, port_of
from supervisor.explain.naming import far_address, far_end, find

Json = dict[str, Any]
Reach = Callable[[str, int | None], Json]
LookUp = Callable[[str], Json]


def gather(
    ask: Ask, said: tuple[str, str], reach: Reach | None = None, look_up: LookUp | None = None
) -> Facts:
    """Ask the switch; leave out the gateway's facts if it does not answer. Raises LocalError.

    ``reach`` tries a connection from this host, where an end is ADDRESS:PORT or NAME:PORT outside; without a
    port it only looks for a route.
    ``look_up`` asks this host for an address, where an end may be a name outside (it has a dot).
    """
    status = ask("status")
    live = status["gateway"] is not None and status["gateway"]["state"] == "live"
    far_ends = [far_end(each)[0] for each in said]
    names: dict[str, Json] = {}
    if look_up is not None and live:
        attached = {row["name"] for row in status["ports"]}
        names = {each: look_up(each) for each in far_ends if _is_name(each) and each not in attached}
    try:
        known = in_parts.leases(ask) if live else []
        addresses = [names.get(each, {}).get("address", each) for each in far_ends]
        policy = ask("gateway_policy", addresses=addresses) if live else None
        forwards = ask("forward_list")["forwards"] if live else []
    except LocalError:
        known, policy, forwards = [], None, []  # it has become silent meanwhile; its state tells that
        status = ask("status")
    first = ask("dealings")
    facts = Facts(
        status=status,
        stats=ask("stats", sources=True, weighed=[]),
        macs=ask("macs")["macs"],
        leases=known,
        sent=[],
        questions=first["questions"],
        recent=ask("stats", since=RECENT_S, weighed=[]),
        lately=ask("stats", since=LATELY_S, weighed=[]),
        unread={},
        events=in_parts.events(ask),
        gateway=policy,
        forwards=forwards,
        reached={},
        names=names,
        now=time.time(),
    )
    ends = [find(each, facts) for each in said]
    rows = [port_of(end, facts) for end in ends]
    own = (policy["host"], policy["host6"]) if policy else ()
    refused = policy["refused"] if policy else {}
    far = [end for end in ends if end.outside and end.address not in own and far_address(end) not in refused]
    reached = reach(far_address(far[0]), far_end(far[0].said)[1]) if reach and far and policy else {}
    last = ask("dealings", ports=sorted({row["port"] for row in rows if row is not None}))
    unread = {port: min(count, dict(last["unread"]).get(port, 0)) for port, count in first["unread"]}
    return facts._replace(sent=last["sent"], reached=reached, unread=unread)


def _is_name(said: str) -> bool:
    """Whether it may be a name outside: it has a dot, and is no address."""
    try:
        ip_address(said)
    except ValueError:
        return "." in said and "/" not in said
    return False
