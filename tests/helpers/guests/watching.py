"""Looking at a running switch through its console, and killing its workers.

Quicker than the commands, which each start an interpreter: a test that waits for something asks often.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from supervisor.console.client import Client
from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for


def ask(switch: Switch, name: str = "status", /, **arguments: object) -> dict[str, Any]:
    """Return the answer to a command."""
    with Client(str(switch.runtime_dir)) as client:
        answer: dict[str, Any] = client.ask(name, **arguments)  # type: ignore[assignment]
        return answer


def port_of(switch: Switch, name: str) -> dict[str, Any]:
    """The port of that name, as ``status`` shows it; one without a state if there is none."""
    nobody: dict[str, Any] = {"state": "", "worker": {"epoch": 0}}
    return next((port for port in ask(switch)["ports"] if port["name"] == name), nobody)


def live(switch: Switch, count: int) -> list[dict[str, Any]]:
    """Wait until exactly ``count`` ports are there and live; return them."""

    def ports() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = ask(switch)["ports"]
        return found if [port["state"] for port in found] == ["live"] * count else None

    return wait_for(ports, lambda: f"{count} live ports, there are {ask(switch)['ports']}")


def name_of(switch: Switch, address: bytes) -> str:
    """The name of the port behind which an address is."""
    return next(str(row["name"]) for row in ask(switch, "macs")["macs"] if row["mac"] == address.hex(":"))


def workers(switch: Switch) -> dict[str, tuple[int, int, int]]:
    """Process, epoch and restarts of every port's worker."""
    return {
        port["name"]: (port["worker"]["pid"], port["worker"]["epoch"], port["worker"]["restarts"])
        for port in ask(switch)["ports"]
    }


def kill_supervisor(switch: Switch) -> None:
    """Kill the supervisor and leave its workers alone."""
    assert switch.process is not None
    switch.process.kill()
    switch.process.communicate()


def kill_worker(switch: Switch, name: str, talk: Conversation, after: float = 0.0) -> int:
    """Kill the worker of a live port after so many seconds in which the talk goes on; returns its epoch."""

    def worker() -> dict[str, Any] | None:
        port = port_of(switch, name)
        return port["worker"] if port["state"] == "live" else None

    found = wait_for(worker, f"a worker of {name}")
    killer = threading.Timer(after, os.kill, (found["pid"], signal.SIGKILL))
    killer.start()
    while after and killer.is_alive():
        talk.pump()
    killer.join()
    return int(found["epoch"])


def goes_on(switch: Switch, name: str, epoch: int, talk: Conversation, look_every: float = 0.002) -> bool:
    """Talk until the port has another worker and frames pass, or its link has ended; whether it goes on."""

    def decided() -> bool:
        talk.run(look_every)
        port = port_of(switch, name)
        return bool(talk.closed) or (port["state"] == "live" and port["worker"]["epoch"] > epoch)

    wait_for(decided, "another worker, or the end of the link")
    return talk.flows()


def stats_of(switch: Switch, transport: str) -> dict[str, Any]:
    """Return what is counted of the first port of that transport."""
    found: dict[str, Any] = next(
        port for port in ask(switch, "stats")["ports"] if port["transport"] == transport
    )
    return found


def check(talk: Conversation, switch: Switch) -> None:
    """No frame that came was a wrong one, and no stream was read at a wrong place."""
    assert talk.wrong == [], talk.wrong[:5]
    assert "a length" not in switch.log(), "a stream was read at the wrong place"
    assert "Traceback" not in switch.log(), switch.log()
