"""Listeners of forwards: files, error lines, and pauses."""

import errno
import socket

import pytest

from forwarder.errors import LocalError
from gateway.relay.forwards import Forward
from tests.helpers.descriptors import open_descriptors
from tests.helpers.gateway.world import client, drain, server, try_accept
from tests.helpers.guests.fixtures import short_directory


def test_a_unix_forward_is_private_and_leaves_nothing(world, stack):
    listener = stack.enter_context(server())
    directory = stack.enter_context(short_directory())
    path = directory / "web.sock"
    guest, port = listener.getsockname()
    forward = world.add(Forward.parse(f"unix:{path}:{guest}:{port}"))
    assert path.stat().st_mode & 0o777 == 0o600
    near = stack.enter_context(socket.socket(socket.AF_UNIX))
    near.connect(str(path))
    near.send(b"hello")
    near.shutdown(socket.SHUT_WR)
    accepted, got = [], bytearray()
    world.until(lambda: accepted or accepted.extend(filter(None, [try_accept(listener)])), "a connection")
    world.until(lambda: drain(accepted[0], got), "the bytes")
    assert got == b"hello"
    accepted[0].close()
    world.relay.remove(forward)
    assert not path.exists()


def test_a_file_that_took_the_place_of_a_forwards_socket_stays(world, stack):
    directory = stack.enter_context(short_directory())
    for path in (directory / "removed", directory / "closed"):
        world.add(Forward.parse(f"unix:{path}:127.1.0.2:80"))
        path.unlink()
        path.write_text("precious")
    for forward in world.relay.forwards():
        world.relay.remove(forward)
    assert [path.read_text() for path in sorted(directory.iterdir())] == ["precious", "precious"]


def test_a_dead_gateways_unix_socket_is_taken_over_and_others_are_not(world, stack):
    directory = stack.enter_context(short_directory())
    dead, alive, file = (directory / name for name in ("dead", "alive", "file"))
    for path in (dead, alive):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        if path is dead:
            sock.close()
        else:
            stack.enter_context(sock).listen()
    file.touch()
    world.add(Forward.parse(f"unix:{dead}:127.1.0.2:80"))
    with pytest.raises(LocalError, match="another process listens on"):
        world.add(Forward.parse(f"unix:{alive}:127.1.0.2:80"))
    with pytest.raises(LocalError, match="exists and is not a socket; move it away"):
        world.add(Forward.parse(f"unix:{file}:127.1.0.2:80"))
    with pytest.raises(LocalError, match="no does not exist; create it"):
        world.add(Forward.parse(f"unix:{directory}/no/such:127.1.0.2:80"))


def test_a_port_in_use_is_reported_and_nothing_is_left_behind(world, stack):
    taken = stack.enter_context(server("127.0.0.1"))
    before = open_descriptors()
    with pytest.raises(LocalError, match=r"cannot listen at tcp:127\.0\.0\.1:\d+: another program listens"):
        world.add(Forward.parse(f"tcp:127.0.0.1:{taken.getsockname()[1]}:127.1.0.2:80"))
    with pytest.raises(LocalError, match="does not have that address"):
        world.add(Forward.parse("tcp:203.0.113.1:0:127.1.0.2:80"))
    assert (world.relay.forwards(), open_descriptors()) == ([], before)


def test_without_descriptors_a_listener_pauses_and_does_not_spin(world, stack, monkeypatch):
    listener = stack.enter_context(server())
    forward = world.forward(listener)
    _, watching = world.relay._listening[forward]
    core = watching._core

    class Exhausted:
        def accept(self, listener, with_own):
            raise OSError(errno.EMFILE, "no descriptors")

    monkeypatch.setattr(watching, "_core", Exhausted())
    stack.enter_context(client(forward))
    pauses = world.relay._pauses
    world.until(pauses.deadline, "the pause")
    assert world.relay.deadline() == pauses.deadline()
    monkeypatch.setattr(watching, "_core", core)
    pauses.tick(pauses.deadline() - 0.001)
    assert pauses.deadline() is not None
    pauses.tick(pauses.deadline())
    assert pauses.deadline() is None
    world.until(lambda: try_accept(listener), "the connection after the pause")


def test_a_forward_that_is_removed_while_it_pauses_does_not_go_on(world, stack):
    forward = world.forward(stack.enter_context(server()))
    pauses = world.relay._pauses
    world.relay._listening[forward][1].pause(1.0)
    assert pauses.deadline() is not None
    world.relay.remove(forward)
    assert pauses.deadline() is None
