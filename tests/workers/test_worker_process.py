"""One real worker process against a supervisor played by the test."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from forwarder import _core
from forwarder._core import LAYOUT
from forwarder.channel import close_all
from forwarder.messages import MAX_FLOODS, Beat, Change, Claim, Drain, Goodbye, Heartbeat, Hello, Update
from forwarder.rendezvous import CHANNEL, MEMBERSHIP, PORT, worker_path
from forwarder.wire import encode
from tests.helpers.core.mini_switch import BROADCAST, frame, mac
from tests.helpers.fake_supervisor import EPOCH, PATIENCE_S, FakeSupervisor
from tests.helpers.guests.switch import ROOT
from tests.helpers.guests.waiting import wait_for


@pytest.fixture
def supervisor(tmp_path):
    fake = FakeSupervisor(str(tmp_path))
    yield fake
    fake.close()


def test_a_spare_ends_when_its_supervisor_does(supervisor):
    ready = supervisor.meet()
    assert ready.layout == LAYOUT
    supervisor.channel.close()
    assert supervisor.worker.wait(PATIENCE_S) == 0


def test_a_worker_without_a_runtime_directory_says_so_in_a_line(tmp_path):
    code = "import sys; from workers.template import serve_port; sys.exit(serve_port(sys.argv[1]))"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with closing(ours), closing(theirs):
        program = [sys.executable, "-c", code, str(tmp_path / "gone")]
        done = subprocess.run(
            program, cwd=ROOT, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == f"a worker cannot begin in {tmp_path}/gone: No such file or directory\n"


def test_a_spare_has_room_for_the_rings_of_all_others(supervisor):
    """Otherwise its VM waits, when they come, until the kernel has made a larger table of descriptors."""
    supervisor.meet()
    status = Path(f"/proc/{supervisor.worker.pid}/status").read_text()
    size = next(line.split()[1] for line in status.splitlines() if line.startswith("FDSize:"))
    assert int(size) >= 2 * MAX_FLOODS


def test_a_spare_has_made_the_file_for_its_port_so_that_no_vm_waits_for_that(supervisor):
    supervisor.meet()
    file = Path(worker_path(supervisor.runtime_dir, supervisor.worker.pid, PORT))
    assert file.read_bytes() == b""
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_worker_says_hello_syncs_and_answers_beats_with_heartbeats(supervisor):
    supervisor.assign("qemu")
    supervisor.until(Hello)
    supervisor.sequence = 7
    while (heartbeat := supervisor.until(Heartbeat)).sequence != 7:
        pass
    assert heartbeat.supervisor_epoch == EPOCH
    assert not heartbeat.stalled


def test_a_vm_on_a_reserved_port_is_read_when_its_own_record_comes(supervisor):
    vm = supervisor.assign("vfkit")
    supervisor.table[1] = supervisor.record._replace(name="")
    vm.send(frame(BROADCAST, mac(1)))
    supervisor.until(Hello)
    supervisor.beat()
    supervisor.until(Heartbeat)
    supervisor.beat()
    supervisor.until(Heartbeat)
    assert _core.StatsPage(supervisor.fds[3]).counters()["rx_frames"] == 0
    supervisor.say(Update(EPOCH, 1, (Change("change", supervisor.record),), ()))
    supervisor.sequence = 1
    wait_for(lambda: _core.StatsPage(supervisor.fds[3]).counters()["rx_frames"] == 1, "its frame")


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
    """With a minute between two beats, only the signal can wake it."""
    library, moment = tmp_path / "late_signal.so", os.eventfd(0, os.EFD_NONBLOCK)
    source = Path(__file__).parents[1] / "helpers" / "preload" / "late_signal.c"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-D_GNU_SOURCE"]
    subprocess.run(["cc", *flags, "-o", library, source, "-ldl"], check=True)
    monkeypatch.setenv("LATE_SIGNAL", str(moment))
    with closing(
        FakeSupervisor(str(tmp_path), preload=str(library), pass_fds=(moment,), interval_ms=60_000)
    ) as supervisor:
        supervisor.assign("qemu")
        supervisor.until(Hello)
        supervisor.until(Heartbeat)
        os.eventfd_write(moment, 1)
        os.eventfd_write(supervisor.fds[1], 1)  # its doorbell: it wakes, and falls asleep again
        assert supervisor.worker.wait(PATIENCE_S) == 0
        supervisor.pump(0.1)
        assert Goodbye("ended by SIGTERM") in supervisor.heard
    os.close(moment)


def test_a_worker_that_is_told_to_drain_says_goodbye(supervisor):
    supervisor.assign("vfkit")
    supervisor.until(Hello)
    supervisor.say(Drain())
    assert supervisor.until(Goodbye).reason == "told to end"
    assert supervisor.worker.wait(PATIENCE_S) == 0


def test_sigterm_ends_a_worker_cleanly(supervisor):
    supervisor.assign("qemu")
    supervisor.until(Hello)
    os.kill(supervisor.worker.pid, signal.SIGTERM)
    assert "SIGTERM" in supervisor.until(Goodbye).reason
    assert supervisor.worker.wait(PATIENCE_S) == 0


def test_garbage_from_the_supervisor_is_ignored(supervisor):
    supervisor.assign("qemu")
    supervisor.until(Hello)
    for garbage in (b"", b"\xc1", b"x" * 4096):
        supervisor.membership.send(garbage)
    for garbage in (b"\xc1", b"x" * 60000):
        supervisor.channel._sock.send(garbage)
    supervisor.until(Heartbeat)
    assert supervisor.worker.poll() is None


STRANGER = """
import sys, socket, zmq
from forwarder.rendezvous import endpoint
door, members, said = sys.argv[1:]
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(door)
sock.send(bytes.fromhex(said))
publisher = zmq.Context().socket(zmq.XPUB)
publisher.connect(endpoint(members))
publisher.recv()
publisher.send(bytes.fromhex(said))
print("said", flush=True)
sys.stdin.read()
"""


def stranger(supervisor, message):
    """Another process of our user, at both sockets of the worker, that says what only a supervisor may."""
    pid, where = supervisor.worker.pid, supervisor.runtime_dir
    files = [worker_path(where, pid, kind) for kind in (CHANNEL, MEMBERSHIP)]
    said = encode(message).hex()
    process = subprocess.Popen(
        [sys.executable, "-c", STRANGER, *files, said], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"said\n"
    return process


def test_a_stranger_is_believed_neither_at_the_door_nor_as_a_publisher(supervisor):
    supervisor.assign("qemu")
    supervisor.until(Hello)
    other = stranger(supervisor, Beat(EPOCH + 1, 1, 1000, 1000))
    try:
        supervisor.sequence = 3
        while (heartbeat := supervisor.until(Heartbeat)).sequence != 3:
            assert heartbeat.supervisor_epoch in (0, EPOCH)
        supervisor.vanish()
        supervisor.come_back()
        claim, descriptors = supervisor.next_on_channel()
        assert isinstance(claim, Claim)
        close_all(descriptors)
    finally:
        other.communicate()


def test_a_worker_outlives_its_supervisor_and_claims_its_port_from_the_next(supervisor):
    vm = supervisor.assign("qemu")
    supervisor.until(Hello)
    supervisor.vanish()
    vm.send(frame(BROADCAST, mac(1)))
    supervisor.come_back()
    claim, descriptors = supervisor.next_on_channel()
    assert isinstance(claim, Claim)
    assert claim.record == supervisor.record
    assert len(descriptors) == 7
    assert os.path.samestat(os.fstat(descriptors[0]), os.fstat(supervisor.fds[0]))
    assert os.path.samestat(os.fstat(descriptors[3]), os.fstat(supervisor.fds[3]))
    close_all(descriptors)
    supervisor.publish_from_now_on()
    while supervisor.until(Heartbeat).supervisor_epoch != EPOCH:
        pass
    assert supervisor.worker.poll() is None
    assert _core.StatsPage(supervisor.fds[3]).counters()["rx_frames"] == 1


def test_a_worker_says_hello_again_when_it_has_another_channel(supervisor):
    """Its first one may be lost, and its port would never be live."""
    supervisor.assign("qemu")
    supervisor.until(Hello)
    supervisor.vanish()
    supervisor.come_back()
    claim, descriptors = supervisor.next_on_channel()
    assert isinstance(claim, Claim)
    close_all(descriptors)
    assert supervisor.next_on_channel() == (Hello(), ())
