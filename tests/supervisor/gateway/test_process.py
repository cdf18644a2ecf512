"""The gateway's process as the supervisor sees it, where a real one takes too long."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.restart_budget import Budget
from supervisor.base.cells import CellPolicy
from supervisor.base.saved_state import SavedState
from supervisor.gateway import process
from supervisor.gateway.child import GatewayChild
from supervisor.gateway.ends import Ends
from supervisor.gateway.port import GatewayPort
from supervisor.gateway.process import GatewayProcess
from supervisor.gateway.states import GatewayState


class Hanging(GatewayChild):
    """A process that neither answers nor ends by itself."""

    def __init__(self) -> None:
        self._loop = None
        self._namespace = -1
        self.channel, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(["sleep", "inf"])
        self.pidfd = os.pidfd_open(self._process.pid)

    def reap(self) -> str:
        self._theirs.close()
        return super().reap()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    handler = SimpleNamespace(views=lambda: ())
    with closing(Loop(pytest.fail)) as loop:
        made = GatewayProcess(
            loop,
            cast(Any, handler),
            str(tmp_path),
            {},
            {},
            in_use=lambda: (),
            saved=SavedState(str(tmp_path / "state"), inherit=False),
            cells=CellPolicy(required=False),
            child=Hanging(),
        )
        yield made
        made.close(keep=False)


def turn(gateway: GatewayProcess) -> None:
    """Do what is due, and wait for what comes next."""
    gateway.tick(time.monotonic())
    gateway._loop.turn(min(max(0.0, gateway.deadline() - time.monotonic()), 1.0))


def pids(gateway: GatewayProcess) -> list[int]:
    return [identity.pid for _, identity in gateway.processes()]


def test_a_gateway_that_hangs_as_it_starts_is_ended(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "START_S", 0.05)

    with pytest.raises(LocalError, match=r"the gateway did not serve within 0\.05 s"):
        gateway.begin(lambda: turn(gateway), lambda: False)
    assert gateway.ended
    assert gateway.states.now is GatewayState.OFF


def test_a_stop_while_the_port_of_the_gateway_before_leaves_starts_no_gateway(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GatewayPort, "exists", True)
    stops = iter([False, True, True])
    turns: list[None] = []
    gateway.begin(lambda: turns.append(None), lambda: next(stops, True))
    assert len(turns) == 1
    assert gateway.ended
    assert gateway.states.now is GatewayState.OFF


def test_a_gateway_that_was_lost_too_often_is_started_again_later(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GatewayChild", Hanging)
    gateway._ends = Ends(Budget(attempts=0, window_s=0.05))
    gateway._has_served = True
    gateway._start()
    first = pids(gateway)
    os.kill(first[0], signal.SIGKILL)
    states = []
    while pids(gateway) in (first, []):
        turn(gateway)
        states.append(gateway.states.now)
    assert GatewayState.PARKED in states
    assert gateway.states.now is GatewayState.STARTING


@pytest.mark.parametrize("keep", [False, True])
def test_leases_are_kept_for_the_next_supervisor(gateway: GatewayProcess, tmp_path: Path, keep: bool) -> None:
    leases = tmp_path / "gateway.leases"
    leases.touch()
    gateway.close(keep=keep)
    assert leases.exists() == keep
