"""A datagram socket loses its peer, and any sender reaches it again."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from supervisor.attach.dissolve import dissolve
from tests.helpers.guests.fixtures import short_directory


@pytest.fixture
def path() -> Iterator[str]:
    with short_directory() as directory:
        yield str(directory / "s")


def bound(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    return sock


def test_connecting_again_to_the_same_socket_changes_nothing_and_dissolving_lets_others_in(path: str) -> None:
    ours = bound(path)
    vm = bound(path + "1")
    other = bound(path + "2")
    ours.setblocking(False)
    vm.sendto(b"first", path)
    ours.connect(path + "1")
    vm.sendto(b"second", path)
    ours.connect(path + "1")
    assert ours.recv(10) == b"first", "what was queued before stays"
    assert ours.recv(10) == b"second"
    with pytest.raises(PermissionError):
        other.sendto(b"x", path)
    vm.close()
    with pytest.raises(ConnectionRefusedError):
        ours.connect(path + "1")
    dissolve(ours)
    other.sendto(b"y", path)
    assert ours.recv(10) == b"y"
    for sock in (ours, other):
        sock.close()
