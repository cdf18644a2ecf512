"""One real worker process against a supervisor played by the test."""

import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from forwarder import _core
from forwarder.channel import close_all
from forwarder.wire import Claim, Drain, Goodbye, Heartbeat, Hello, HelloAgain
from tests.helpers.fake_supervisor import EPOCH, PATIENCE_S, FakeSupervisor
from tests.helpers.mini_switch import BROADCAST, frame, mac


@pytest.fixture
def supervisor(tmp_path):
    fake = FakeSupervisor(str(tmp_path))
    yield fake
    fake.close()


def test_a_spare_ends_when_its_supervisor_does(supervisor):
    supervisor.accept()
    supervisor.channel.close()
    assert supervisor.worker.wait(PATIENCE_S) == 0


def test_a_worker_says_hello_syncs_and_answers_beats_with_heartbeats(supervisor):
    supervisor.assign("qemu")
    hello = supervisor.until(Hello)
    assert (hello.port, hello.epoch, hello.identity.pid) == (1, 5, supervisor.worker.pid)
    supervisor.sequence = 7
    while (heartbeat := supervisor.until(Heartbeat)).sequence != 7:
        pass
    assert heartbeat.supervisor_epoch == EPOCH
    assert not heartbeat.stalled
    supervisor.say(HelloAgain(EPOCH))
    assert supervisor.until(Hello) == hello


@pytest.mark.parametrize("transport", ["qemu", "connect", "bess"])
def test_the_end_of_the_link_is_the_end_of_the_worker(supervisor, transport):
    vm = supervisor.assign(transport)
    supervisor.until(Hello)
    vm.send(frame(BROADCAST, mac(1)))
    vm.sock.close()
    goodbye = supervisor.until(Goodbye)
    assert goodbye.reason == "the VM closed the link"
    assert supervisor.worker.wait(PATIENCE_S) == 0
    counters = _core.StatsPage(supervisor.fds[3]).counters()
    assert (counters["rx_frames"], counters["flooded"]) == (1, 1)


def test_a_signal_that_arrives_as_the_worker_falls_asleep_ends_it_at_once(tmp_path, monkeypatch):
    """With a minute between two beats, nothing else would wake it."""
    library, moment = tmp_path / "late_signal.so", tmp_path / "now"
    source = Path(__file__).parents[1] / "helpers" / "preload" / "late_signal.c"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-D_GNU_SOURCE"]
    subprocess.run(["cc", *flags, "-o", library, source, "-ldl"], check=True)
    monkeypatch.setenv("LATE_SIGNAL", str(moment))
    with closing(FakeSupervisor(str(tmp_path), preload=str(library), interval_ms=60_000)) as supervisor:
        supervisor.assign("qemu")
        supervisor.until(Hello)
        supervisor.until(Heartbeat)
        moment.touch()
        os.eventfd_write(supervisor.fds[1], 1)  # its doorbell: it wakes, and falls asleep again
        assert supervisor.worker.wait(PATIENCE_S) == 0
        assert not moment.exists()
        supervisor.pump(0.1)
        assert Goodbye(1, 5, "ended by SIGTERM") in supervisor.heard


def test_a_worker_that_is_told_to_drain_says_goodbye(supervisor):
    supervisor.assign("vfkit")
    supervisor.until(Hello)
    supervisor.say(Drain(1, 4))
    supervisor.say(Drain(1, 5))
    assert supervisor.until(Goodbye).reason == "told to end"
    assert supervisor.worker.wait(PATIENCE_S) == 0


def test_sigterm_ends_a_worker_cleanly(supervisor):
    supervisor.assign("qemu")
    supervisor.until(Hello)
    os.kill(supervisor.worker.pid, signal.SIGTERM)
    assert "SIGTERM" in supervisor.until(Goodbye).reason
    assert supervisor.worker.wait(PATIENCE_S) == 0


def test_garbage_on_the_control_socket_is_ignored(supervisor):
    supervisor.assign("qemu")
    supervisor.until(Hello)
    for garbage in (b"", b"\xc1", b"x" * 70000):
        supervisor._membership.send(garbage)
        supervisor._control.send_multipart([supervisor._worker_id, garbage])
    supervisor.until(Heartbeat)
    assert supervisor.worker.poll() is None


def test_a_worker_outlives_its_supervisor_and_claims_its_port_from_the_next(supervisor):
    vm = supervisor.assign("qemu")
    supervisor.until(Hello)
    supervisor.vanish()
    vm.send(frame(BROADCAST, mac(1)))
    supervisor.come_back()
    claim, descriptors = supervisor.accept()
    assert isinstance(claim, Claim)
    assert claim.record == supervisor.record
    assert len(descriptors) == 5
    assert os.path.samestat(os.fstat(descriptors[0]), os.fstat(supervisor.fds[0]))
    assert os.path.samestat(os.fstat(descriptors[3]), os.fstat(supervisor.fds[3]))
    close_all(descriptors)
    while supervisor.until(Heartbeat).supervisor_epoch != EPOCH:
        pass
    assert supervisor.worker.poll() is None
    assert _core.StatsPage(supervisor.fds[3]).counters()["rx_frames"] == 1
