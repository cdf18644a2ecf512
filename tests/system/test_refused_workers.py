"""A worker that a supervisor does not take over ends before its device is opened again, and at a stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.probes import kill_supervisor, worker_pids

StartSwitch = Callable[..., Switch]


@pytest.mark.parametrize("kind", ["tap", "vfkit"])
def test_a_stopped_worker_does_not_keep_its_device_from_the_next_start(
    switch: StartSwitch, namespace: Callable[[str], Namespace], kind: str
) -> None:
    """It reacts to SIGKILL alone, which it gets a second after the window for claims has closed."""
    if kind == "tap":
        listeners: dict[str, object] = {"taps": [f"bh0,netns={namespace('room').netns}"]}
        running = switch(**listeners)
    else:
        listeners = {"vfkit": 1}
        running = switch(**listeners)
        before = running.connect("unixgram")
        before.send(build_frame(BROADCAST, mac(1), 60))
    running.wait_live(1)
    (stopped,) = worker_pids(running).values()
    os.kill(stopped, signal.SIGSTOP)
    kill_supervisor(running)
    running.start(*running.arguments(**listeners))  # type: ignore[arg-type]
    if kind == "vfkit":
        after = running.connect("unixgram", "another")
        after.send(build_frame(BROADCAST, mac(2), 60))
    running.wait_live(1)
    assert stopped not in worker_pids(running).values()


def test_a_signal_while_workers_are_taken_over_ends_all_and_nobody_hears_of_ready(
    switch: StartSwitch,
) -> None:
    running = switch(qemu=True)
    vm = running.connect("unix")
    running.wait_live(1)
    (stopped,) = worker_pids(running).values()
    os.kill(stopped, signal.SIGSTOP)
    kill_supervisor(running)
    running.qemu.unlink()  # only a listener replaces a dead socket
    running.log_path.write_text("")
    running.launch(*running.arguments(qemu=True))
    wait_for(lambda: "taking over" in running.log(), "the window for claims")
    assert running.process is not None
    running.process.terminate()
    said, _ = running.process.communicate(timeout=60)
    assert (running.process.returncode, said) == (0, ""), running.log()
    assert "is ready" not in running.log()
    vm.wait_closed()
