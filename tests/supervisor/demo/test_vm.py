"""The demo's fake VMs: what they send and count is what the demo's verdict rests on."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from supervisor.demo.vm import (
    BROADCAST,
    FRAME_BYTES,
    PACE,
    WINDOW,
    Loop,
    MessageLink,
    Mirror,
    Role,
    Source,
    StreamLink,
)
from tests.helpers.guests.waiting import PATIENCE

A, B = b"\x02alice", b"\x02bob\0\0"
MS = 1_000_000


def test_a_loop_times_each_round_and_keeps_its_window_full():
    loop, mirror = Loop(A, B), Mirror(B, A)
    going = loop.due(0)
    assert len(going) == WINDOW
    assert loop.due(1) == []
    back = mirror.take(going, 1 * MS)
    assert loop.take(back, 3 * MS) == []
    ((age, times),) = loop.round_trips.items()
    assert times == WINDOW
    assert 0.95 * 3 * MS < age <= 3 * MS
    assert len(loop.due(3 * MS)) == WINDOW
    assert (loop.received, mirror.received, loop.lost, loop.bad, mirror.bad) == (WINDOW, WINDOW, 0, 0, 0)


def test_frames_that_others_overtook_are_lost_and_replaced():
    loop, mirror = Loop(A, B), Mirror(B, A)
    going = loop.due(0)
    loop.take(mirror.take(going[:4] + going[10:], 1), 2)
    assert loop.lost == 6
    assert len(loop.due(2)) == WINDOW


def test_frames_that_do_not_come_back_in_time_are_lost_and_replaced():
    loop, mirror = Loop(A, B), Mirror(B, A)
    going = loop.due(0)
    assert loop.due(200 * MS) == []
    assert len(loop.due(300 * MS)) == WINDOW
    assert loop.lost == WINDOW
    loop.take(mirror.take(going, 301 * MS), 302 * MS)
    assert loop.round_trips == {}
    assert loop.due(303 * MS) == []


def test_a_source_keeps_its_pace_and_makes_nothing_up_for_a_pause():
    source = Source(A, B)
    source.due(0)
    made = sum(len(source.due(at * MS)) for at in range(1, 1001))
    assert made == pytest.approx(PACE, abs=1)
    assert len(source.due(60_000 * MS)) == PACE // 50


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]),
        lambda frame: frame[:6] + B[::-1] + frame[12:],
        lambda frame: frame[:40] + frame[41:] + b"\0",
    ],
    ids=["cut", "longer", "changed", "from another", "shifted"],
)
def test_a_damaged_frame_is_counted_as_such(spoil):
    sink = Role(B, A)
    first, second = Source(A, B).due(100 * MS)[:2]
    sink.take([spoil(first), second], 0)
    assert (sink.bad, sink.received) == (1, 1)


def test_a_repeated_or_late_frame_is_counted_as_bad():
    sink = Role(B, A)
    first, second = Source(A, B).due(100 * MS)[:2]
    sink.take([second, first, second], 0)
    assert (sink.bad, sink.received) == (2, 1)


def test_a_frame_for_another_vm_is_ignored():
    sink = Role(B, A)
    sink.take([BROADCAST + B[::-1] + bytes(48), A + B + bytes(48)], 0)
    assert (sink.bad, sink.received, sink.heard) == (0, 0, False)
    sink.take([BROADCAST + A + bytes(48)], 0)
    assert (sink.bad, sink.received, sink.heard) == (0, 0, True)


@pytest.fixture
def listening(tmp_path):
    made = []

    def listen(kind):
        listener = socket.socket(socket.AF_UNIX, kind)
        made.append(listener)
        listener.bind(str(tmp_path / "s"))
        if kind != socket.SOCK_DGRAM:
            listener.listen()
        return listener, str(tmp_path / "s")

    yield listen
    for each in made:
        each.close()


def test_a_stream_takes_whole_bursts_and_puts_frames_together_again(listening):
    listener, path = listening(socket.SOCK_STREAM)
    link = StreamLink(path)
    switch = listener.accept()[0]
    frames = [bytes([number]) * FRAME_BYTES for number in range(200)]
    with switch, link.socket:
        assert link.send(frames) == 200
        wire = b""
        while link.unsent:
            assert link.send(frames) == 0
            wire += switch.recv(1 << 16)
        switch.setblocking(False)
        while len(wire) < 200 * (FRAME_BYTES + 4):
            wire += switch.recv(1 << 16)
        assert wire == b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
        got = []
        for start in range(0, len(wire), 1000):
            switch.send(wire[start : start + 1000])
            got += link.receive()
        assert got == frames
        assert link.receive() == []
        switch.close()
        with pytest.raises(EOFError):
            link.receive()


def test_messages_are_taken_one_by_one_until_there_is_no_more_room(listening):
    listener, path = listening(socket.SOCK_SEQPACKET)
    link = MessageLink(path, socket.SOCK_SEQPACKET)
    switch = listener.accept()[0]
    with switch, link.socket:
        frames = [bytes(FRAME_BYTES)] * 100_000
        assert 0 < link.send(frames) < 100_000
        switch.send(b"one")
        switch.send(b"two")
        assert link.receive() == [b"one", b"two"]
        switch.close()
        with pytest.raises((EOFError, ConnectionResetError)):
            link.receive()


def reports(process, until, deadline=PATIENCE):
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        report = json.loads(process.stdout.readline())
        if until(report):
            return report
    raise AssertionError("not in time")


def test_a_vm_announces_itself_obeys_and_ends_with_its_input(listening):
    listener, path = listening(socket.SOCK_DGRAM)
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor.demo.vm", "vfkit", path, "sink", B.hex(), A.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        listener.settimeout(PATIENCE)
        hello, vm = listener.recvfrom(2000)
        assert hello[:12] == BROADCAST + B
        listener.connect(vm)
        assert listener.recv(2000) == hello  # until it is told to go
        listener.send(BROADCAST + A + bytes(48))
        reports(process, lambda report: report["heard"])
        source = Source(A, B)
        for frame in source.due(100 * MS)[:5]:
            listener.send(frame)
        reports(process, lambda report: report["received"] == 5)

        process.stdin.write(b"stuck\n")
        process.stdin.flush()
        reports(process, lambda report: True)
        reports(process, lambda report: True)  # by the second one it has obeyed
        listener.setblocking(False)
        more = source.due(200 * MS)[:7]
        for frame in more:
            listener.send(frame)
        assert reports(process, lambda report: True)["received"] == 5
        process.stdin.write(b"resume\n")
        process.stdin.flush()
        assert reports(process, lambda report: report["received"] == 12)["bad"] == 0
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
    assert os.path.exists(f"{path}.vm")  # like a real VM's socket, it stays for the owner of the directory
