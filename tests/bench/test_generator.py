"""The load generator sees what a path does, and ends when it is told to."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.generator import Pair
from scripts.benchmarks.lab.sockets import Direct, wrap
from tests.helpers.guests.fake_vm import mac

ONE, OTHER = mac(1).hex(":"), mac(2).hex(":")


@contextlib.contextmanager
def bad_path(kind: socket.SocketKind) -> Iterator[tuple[Pair, dict[str, int]]]:
    """Two VMs and a path that loses, changes and swaps messages; gives what it did."""
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, kind) for _ in range(2)]
        ends = [stack.enter_context(end) for pair in pairs for end in pair]
        did = {"lost": 0, "corrupt": 0, "swapped": 0}

        def carry() -> None:
            held = b""
            number = 0
            while data := ends[1].recv(1 << 16):
                number += 1
                if number % 10 == 3:
                    did["lost"] += 1
                elif number % 10 == 5:
                    did["corrupt"] += 1
                    ends[2].send(data[:-1] + bytes([data[-1] ^ 1]))
                elif number % 10 == 7:
                    held = data
                else:
                    ends[2].send(data)
                    if held:
                        did["swapped"] += 1
                        ends[2].send(held)
                        held = b""

        thread = threading.Thread(target=carry)
        thread.start()
        try:
            yield Pair(wrap("seqpacket", ends[0]), wrap("seqpacket", ends[3]), ONE, OTHER), did
        finally:
            ends[0].close()
            thread.join()


def test_generator_counts_the_faults_of_a_bad_path() -> None:
    with bad_path(socket.SOCK_SEQPACKET) as (pair, did):
        seen = generator.flow("seqpacket", 100, 0.2, pair)
    assert all(did.values())
    # What was held back when the last frame had been sent never came.
    assert did["lost"] <= seen["lost"] <= did["lost"] + 1
    assert seen["corrupt"] == did["corrupt"]
    assert seen["reordered"] == did["swapped"]
    assert seen["received"] + seen["lost"] + seen["corrupt"] == seen["sent"]
    assert seen["smallest_window"] < seen["window"]


@pytest.mark.parametrize("kind", ["stream", "seqpacket", "dgram"])
@pytest.mark.parametrize("size", [34, 1514, 65_550])
def test_generator_loses_nothing_on_a_good_path(kind: str, size: int) -> None:
    with Direct() as way:
        way.start(kind, 2, size)
        seen = generator.flow(kind, size, 0.5, way.pair(1, 2))
        echoed = generator.echo(kind, size, 0.5, way.pair(1, 2))
    assert seen["received"] == seen["sent"] > 0
    assert not seen["corrupt"] + seen["reordered"] + seen["foreign"]
    # A busy host may keep the receiver waiting for as long as the sender calls a stall.
    assert seen["stalls"] or seen["smallest_window"] == seen["window"]
    assert echoed["answered"] == echoed["asked"] > 0
    assert 0 < echoed["p50_ns"] <= echoed["p99_ns"] <= echoed["p999_ns"] <= echoed["max_ns"]


def test_generator_outlives_a_path_that_delivers_nothing() -> None:
    with contextlib.ExitStack() as stack:
        one, other = (Direct() for _ in range(2))
        ends = [stack.enter_context(way).start("seqpacket", 2, 1514)[0] for way in (one, other)]
        seen = generator.flow("seqpacket", 1514, 0.5, Pair(ends[0], ends[1], ONE, OTHER))
    assert seen["sent"] > 0
    assert seen["received"] == 0
    assert seen["lost"] == seen["sent"]
    assert seen["stalls"] > 0


def test_a_guest_that_is_told_to_end_during_its_set_up_still_waits_for_its_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "vhost"))
        listener.listen()
        with generator.running("hostile", (tmp_path / "vhost", 1000, 0), []) as guest:
            link, _ = listener.accept()
            assert len(link.recv(12)) == 12  # the first question
            while sleep_state(guest.pid) != "S":
                os.sched_yield()
            guest.send_signal(signal.SIGTERM)
            while is_pending(guest.pid):
                os.sched_yield()
            link.close()
            with pytest.raises(RuntimeError, match="vhost-user answer: Connection reset by peer"):
                generator.finish(guest)


def sleep_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_pending(pid: int) -> bool:
    """Whether a signal is still on its way to the process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(int(mask, 16) for mask in re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)$", status, re.M))
