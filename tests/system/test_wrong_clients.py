"""Real clients that are not VMs, at a running switch: refused at little cost, while VMs are served."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.guests.fake_vm import BROADCAST, build_frame, connect, mac
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for

StartSwitch = Callable[..., Switch]
VHOST_USER = bytes.fromhex("010000000100000000000000")
STRANGER = 21_002
CLOSING = ("04", "05", "06")
"""States of /proc/net/tcp: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT (linux/tcp_states.h)."""


def hung_up(sock: socket.socket) -> bool:
    sock.settimeout(PATIENCE)
    try:
        return not sock.recv(1)
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("kind", "first", "name", "spoken"),
    [
        ("qemu", VHOST_USER, "vhost-user; use --listen-vhost", "QEMU's stream"),
        ("vhost", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP", "vhost-user"),
    ],
)
def test_a_client_that_comes_again_and_again_costs_one_worker(
    switch: StartSwitch, kind: str, first: bytes, name: str, spoken: str
) -> None:
    running = switch(qemu=True, vhost=True)
    vm, other = running.connect("unix"), running.connect("unix")
    running.wait_live(2)
    over, attempts = 0.0, 0
    while attempts < 3 or time.monotonic() < over:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(0.5 if attempts else PATIENCE)  # the second one meets the pause
            client.connect(str(getattr(running, kind)))
            client.send(first)
            attempts += 1
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                client.recv(1)
        over = over or time.monotonic() + 3.0
    log = running.log()
    assert log.count("attached by") == 3, "two VMs, and the first of these clients"
    assert f"it looks like {name}. No connection is taken for 1 s" in log
    assert log.count(f"a VM was refused: it does not speak {spoken}; it looks like {name}") == 1, "the second"
    frame = build_frame(BROADCAST, mac(1))
    vm.send(frame)
    other.receive_matching(lambda each: each == frame)
    late, silent = (
        running.connect("unix"),
        running.connect("unix"),
    )  # wait in the queue for the end of the pause
    late.send(frame)
    running.wait_live(4)
    silent.close()
    late.close()


def as_stranger(act: Callable[[], None]) -> int:
    """Do something as another user, in a process of its own; return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def owners_of_closed(port: int) -> set[int]:
    """Return whose the sockets are that were connected to that port and are closed, as the kernel sees it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[7]) for row in rows if row[2].endswith(f":{port:04X}") and row[3] in CLOSING}


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is only for root to be")
def test_a_stranger_is_no_vm_at_a_tcp_port_on_loopback(switch: StartSwitch) -> None:
    running = switch(tcp=True)
    own = running.connect("tcp")
    running.wait_live(1)
    frame, port = build_frame(BROADCAST, mac(7)), running.tcp_port()

    def intrude(*, stay: bool) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.send(len(frame).to_bytes(4, "big") + frame)
        if stay:
            assert hung_up(sock)
        sock.close()

    assert as_stranger(lambda: intrude(stay=True)) == 0
    assert running.process is not None
    running.process.send_signal(signal.SIGSTOP)
    try:
        assert as_stranger(lambda: intrude(stay=False)) == 0
        wait_for(lambda: owners_of_closed(port) == {0}, "the kernel to say that it is root's")
    finally:
        running.process.send_signal(signal.SIGCONT)
    late = running.connect("tcp")
    running.wait_live(2)
    wait_for(
        lambda: f"user {STRANGER} was refused; put ,allow=any behind the address" in running.log(), "the line"
    )
    assert running.log().count("attached by") == 2, (
        "a socket that has gone when its connection is accepted belongs to no user, not to root"
    )
    assert not own.drain()
    late.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is only for root to be")
@pytest.mark.parametrize("host", ["127.0.0.2", "127.255.255.254", "[::ffff:127.0.0.1]", "[0:0::1]"])
def test_every_address_of_loopback_is_for_the_own_user(switch: StartSwitch, host: str) -> None:
    running = switch("--listen-qemu", f"tcp://{host}:0")
    place = (host.strip("[]"), running.tcp_port())
    own = socket.create_connection(place)
    running.wait_live(1)

    def intrude() -> None:
        with socket.create_connection(place) as sock:
            assert hung_up(sock)

    assert as_stranger(intrude) == 0
    assert running.log().count("attached by") == 1
    own.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is only for root to be")
def test_the_operator_can_accept_every_user(switch: StartSwitch) -> None:
    running = switch("--listen-qemu", "tcp://127.0.0.1:0,allow=any")
    port = running.tcp_port()
    assert f"tcp://127.0.0.1:{port},allow=any" in running.ready_line

    own = running.connect("tcp")
    running.wait_live(1)
    frame = build_frame(BROADCAST, mac(7))

    def attach() -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.send(len(frame).to_bytes(4, "big") + frame)

    assert as_stranger(attach) == 0
    own.receive_matching(lambda each: each == frame)
    running.command("detach", f"tcp://127.0.0.1:{port},allow=any")
    with pytest.raises(ConnectionRefusedError):
        connect(f"tcp://127.0.0.1:{port}")
