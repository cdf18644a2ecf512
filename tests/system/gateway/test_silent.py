"""A gateway that hangs or is killed: what operators see, how soon, and which process is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from forwarder import counted
from forwarder.errors import LocalError
from forwarder.restart_budget import Budget
from supervisor.console.client import Client
from supervisor.gateway.questions import REPLACE_S
from tests.helpers.gateway.place import GATEWAY, Place
from tests.helpers.gateway.processes import process
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest
FORWARD = "tcp:127.0.0.1:0:192.168.127.2:80"
NOTICED_S = 3.0
START_S = 30.0
"""What a command takes to start on a very busy machine."""


def state(switch: Switch) -> tuple[str, str]:
    """Return the state of the gateway, and that of its port."""
    answer = switch.json("status")
    ports = {port["name"]: port["state"] for port in answer["ports"]}
    return answer["gateway"]["state"], ports.get("gateway", "none")


def refused_at_once(switch: Switch) -> bool:
    """Whether a forward is refused in less time than a gateway gets that is not known to hang."""
    with Client(str(switch.runtime_dir)) as client:
        began = time.monotonic()
        with pytest.raises(LocalError, match="has not answered"):
            client.ask("forward_add", forward=FORWARD)
        return time.monotonic() - began < 0.5


def test_a_gateway_that_hangs_is_silent_and_delays_no_command(place: Callable[..., Place]) -> None:
    switch = place().switch
    assert state(switch) == ("live", "live")
    pid = process(switch, "gateway")
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        failed = switch.command("forward", "list", check=False)
        assert failed.returncode == 1
        # It is the supervisor that says so; after ten seconds the command would say that *it* is silent.
        assert f"the gateway (pid {pid}) has not answered" in failed.stderr
        assert "supervisor" not in failed.stderr.replace("supervisor:", "")
        wait_for(lambda: state(switch) == ("silent", "silent"), "the gateway to be silent")
        assert time.monotonic() - began < NOTICED_S + START_S
        # From now on nothing takes time, and figures are those of before.
        wait_for(lambda: refused_at_once(switch), "an answer that does not wait for the gateway")
        stats = switch.json("stats")["gateway"]
        assert stats["state"] == "silent"
        assert stats["refused"].keys() == counted.REFUSED.keys()
        assert switch.log().count("has not answered") == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: state(switch) == ("live", "live"), "the gateway to be heard again")
    assert switch.command("forward", "list").returncode == 0
    assert switch.log().count("the gateway answers again") == 1


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_a_gateway_that_hangs_for_good_is_replaced_and_names_are_answered(
    place: Callable[..., Place],
) -> None:
    here = place()
    pid = process(here.switch, "gateway")
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: process(here.switch, "gateway") not in (0, pid), "another gateway", REPLACE_S + PATIENCE)
    here.switch.wait_live(2)
    assert "and is replaced" in here.switch.log()
    assert GATEWAY in here.guest.run(f"busybox nslookup -type=a gateway.containers.internal {GATEWAY}")


def test_a_killed_gateway_is_reported_with_the_signal(place: Callable[..., Place]) -> None:
    switch = place().switch
    os.kill(process(switch, "gateway"), signal.SIGKILL)
    wait_for(lambda: "port 1 (gateway): gone" in switch.log(), "its port to go")
    wait_for(lambda: state(switch) == ("live", "live"), "the next one")
    assert "port 1 (gateway): gone, its gateway was ended by SIGKILL" in switch.log()
    assert "detached by the operator" not in switch.log()


@pytest.mark.parametrize("place", ["user"], indirect=True)
@pytest.mark.parametrize("what", ["gateway", "gateway.inside"])
def test_a_gateway_that_is_killed_as_often_as_the_budget_allows_comes_back(
    place: Callable[..., Place], what: str
) -> None:
    here = place()
    supervisor = here.switch.process
    assert supervisor is not None
    before = len(os.listdir(f"/proc/{supervisor.pid}/fd"))
    for _ in range(Budget().attempts):
        pid = wait_for(lambda: process(here.switch, what), "one to kill")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: process(here.switch, what) != pid, "it to end")  # type: ignore[misc]
    wait_for(lambda: process(here.switch, what) not in (0, pid), "the last one")
    wait_for(lambda: state(here.switch) == ("live", "live"), "the last one to serve", 120)
    here.switch.wait_live(2)
    assert GATEWAY in here.guest.run(f"busybox nslookup -type=a gateway.containers.internal {GATEWAY}")
    wait_for(lambda: len(os.listdir(f"/proc/{supervisor.pid}/fd")) <= before + 8, "descriptors to be closed")


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_a_namespace_that_hangs_delays_no_command_and_serves_again(place: Callable[..., Place]) -> None:
    here = place()
    pid = process(here.switch, "gateway.inside")
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert here.switch.command("status").returncode == 0
        assert here.switch.command("stats").returncode == 0
        assert time.monotonic() - began < 2 * START_S
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: state(here.switch) == ("live", "live"), "the gateway to serve", 60)
    assert GATEWAY in here.guest.run(f"busybox nslookup -type=a gateway.containers.internal {GATEWAY}")


def test_refusals_of_the_gateway_are_in_stats(place: Callable[..., Place]) -> None:
    here = place("--deny", "203.0.113.0/24")
    before = here.switch.json("stats")["gateway"]
    assert before["state"] == "live"
    assert before["refused"]["denied"] == 0
    here.guest.run("curl --silent --max-time 20 http://203.0.113.9/ || true")
    assert here.switch.json("stats")["gateway"]["refused"]["denied"] >= 1  # a SYN may be repeated
    table = here.switch.command("stats").stdout
    assert "refused denied" in table
    assert "to a network that --deny names" in table


def test_a_switch_without_a_gateway_has_null(switch: Callable[..., Switch]) -> None:
    running = switch(qemu=True)
    assert running.json("stats")["gateway"] is None
    assert running.json("status")["gateway"] is None
