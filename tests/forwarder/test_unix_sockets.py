"""Socket files are bound over dead sockets, never over live ones; our assumptions about the kernel hold."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwarder import unix_sockets
from forwarder.errors import LocalError
from tests.helpers.guests.fixtures import short_directory

TYPES = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM]


@pytest.fixture
def path() -> Iterator[str]:
    with short_directory() as directory:
        yield str(directory / "s")


def bound(kind: int, path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    unix_sockets.bind(sock, path)
    if kind != socket.SOCK_DGRAM:
        sock.listen()
    return sock


@pytest.mark.parametrize("kind", TYPES)
def test_a_live_socket_is_refused_without_its_owner_noticing(kind: int, path: str) -> None:
    owner = bound(kind, path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert unix_sockets.is_live(path)
    for other in TYPES:
        with socket.socket(socket.AF_UNIX, other) as sock, pytest.raises(LocalError, match="address in use"):
            unix_sockets.bind(sock, path)
    owner.setblocking(False)
    with pytest.raises(BlockingIOError):
        owner.recv(1) if kind == socket.SOCK_DGRAM else owner.accept()
    owner.close()


@pytest.mark.parametrize("kind", TYPES)
def test_a_stale_socket_is_replaced(kind: int, path: str) -> None:
    bound(kind, path).close()
    assert not unix_sockets.is_live(path)
    bound(kind, path).close()


def test_a_datagram_socket_with_a_vm_is_live(path: str) -> None:
    owner = bound(socket.SOCK_DGRAM, path)
    vm = bound(socket.SOCK_DGRAM, path + "vm")
    owner.connect(path + "vm")
    assert unix_sockets.is_live(path)
    owner.close()
    vm.close()


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(LocalError, match="is not a socket"):
        bound(socket.SOCK_STREAM, path)
    assert Path(path).read_text() == "precious"


def test_a_missing_directory_is_named(path: str) -> None:
    with pytest.raises(LocalError, match="does not exist; create it"):
        bound(socket.SOCK_STREAM, path + "/s")


def test_only_the_own_file_is_removed(path: str) -> None:
    first, own = unix_sockets.listen(path)
    assert own.is_there()
    os.unlink(path)
    assert not own.is_there()
    second, other = unix_sockets.listen(path)
    own.remove()
    assert other.is_there()
    other.remove()
    assert not os.path.exists(path)
    Path(path).write_text("precious")
    other.remove()
    own.remove()
    assert Path(path).read_text() == "precious"
    first.close()
    second.close()


def test_a_link_to_the_own_file_is_not_the_own_file(path: str) -> None:
    sock, own = unix_sockets.listen(path)
    os.rename(path, path + "moved")
    os.symlink(path + "moved", path)
    assert not own.is_there()
    own.remove()
    assert os.path.islink(path)
    sock.close()
