"""A VM leaves, and those connected to it hear of it; one that comes back keeps its connections."""

import contextlib
import socket
import time

import pytest

from gateway.ports import Port
from gateway.relay.departures import WAIT_S
from tests.helpers.gateway.lan import (
    SERVER,
    SILENT,
    Lan,
    accept,
    add_silent_host,
    address,
    dial,
    in_a_namespace,
    outcome,
)
from tests.helpers.gateway.place import GATEWAY
from tests.helpers.gateway.world import drain, received

pytestmark = pytest.mark.guest


def forwarded(lan, stack, room, number):
    """Return a client of a forward to a guest, and the guest's end."""
    listener = lan.inside(room, address(lan, number), socket.SOCK_STREAM)
    listener.listen(8)
    forward = lan.world.forward(listener)
    before = lan.world.count("connections")
    client = stack.enter_context(socket.create_connection((str(forward.host), forward.port)))
    client.setblocking(False)
    guest = stack.enter_context(accept(lan, listener))
    lan.world.until(lambda: lan.world.count("connections") == before + 1, "the connection")
    return client, guest


def connected(stack):
    """Return a LAN, a client of a forward to the guest behind port 1, and the guest's end."""
    lan = Lan(stack)
    room = lan.guest()
    lan.guest()  # or the bridge would have no carrier, and its kernel forget all neighbours
    return lan, *forwarded(lan, stack, room, 1)


def leave(lan, number):
    """Have a port leave, as the switch says it."""
    for mac, port in list(lan.ports.items()):
        if port.number == number:
            lan.world.relay.left(lan.ports.pop(mac))


def inherit(lan, number, heir):
    """Have a port leave, and another guest get its IP address."""
    lan.namespace.run(f"ip link set port{number} down")
    leave(lan, number)
    own = address(lan, number)
    heir.run(f"ip address add {own}/24 dev eth0; busybox ping -c 1 -I {own} {GATEWAY}")


@in_a_namespace
def test_only_connections_of_a_vm_that_has_left_are_reset():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        gone, stays, paused = lan.guest(), lan.guest(), lan.guest()
        idle, _ = forwarded(lan, stack, gone, 1)
        busy, _ = forwarded(lan, stack, gone, 1)
        other, its_guest = forwarded(lan, stack, stays, 2)
        forwarded(lan, stack, paused, 3)
        listener = lan.outside(SERVER, socket.SOCK_STREAM)
        assert outcome(lan, dial(lan, gone, 1, listener.getsockname()[:2])) == 0
        outside = stack.enter_context(accept(lan, listener))
        # A VM that is paused does not answer either, but its port is there.
        lan.namespace.run("ip link set port1 down; ip link set port3 down")
        busy.send(b"are you there?")
        leave(lan, 1)
        for sock in (idle, busy, outside):
            with pytest.raises(ConnectionResetError):
                lan.world.until(lambda sock=sock: drain(sock, bytearray()), "the reset")
        assert lan.world.count("guest_gone") == 3
        other.send(b"still here")
        got = bytearray()
        lan.world.until(lambda: drain(its_guest, got) or got, "the bytes")
        assert lan.world.count("connections") == 2


@in_a_namespace
def test_a_vm_that_reconnects_keeps_its_connections():
    with contextlib.ExitStack() as stack:
        lan, client, guest = connected(stack)
        lan.namespace.run("ip link set port1 down")
        leave(lan, 1)
        assert lan.world.relay._departures.deadline() is not None
        end = time.monotonic() + WAIT_S
        lan.world.until(lambda: time.monotonic() > end - WAIT_S / 2, "half of the time")
        lan.namespace.run("ip link set port1 up")
        lan.world.until(lambda: time.monotonic() > end + 0.5, "the end of the doubt")
        assert lan.world.relay._departures.deadline() is None
        assert lan.world.count("guest_gone") == 0
        client.send(b"hello again")
        got = bytearray()
        lan.world.until(lambda: drain(guest, got) or got, "the bytes")


@in_a_namespace
def test_connections_of_a_vm_whose_address_another_port_has_taken_over_are_reset():
    with contextlib.ExitStack() as stack:
        lan, client, _ = connected(stack)
        mac, old = next(iter(lan.ports.items()))
        # A second machine with the same addresses: it knows nothing of the connection.
        lan.namespace.run("ip link set port1 down")
        lan.ports[mac] = Port(7, 2)
        lan.world.relay.joined(Port(7, 2))
        lan.world.relay.left(old)
        with pytest.raises(ConnectionResetError):
            lan.world.until(lambda: drain(client, bytearray()), "the reset")
        assert lan.world.count("guest_gone") == 1


def flow_of(lan, stack, number, room):
    """Return a guest's socket, a server, and where the server sees a flow of it that the core carries."""
    guest, server = lan.inside(room, address(lan, number)), lan.outside(SERVER)
    for _ in range(3):
        guest.sendto(b"subscribe", server.getsockname())
        seen_as = received(lan.world, server)[1]
        server.sendto(b"news", seen_as)
        assert received(lan.world, guest)[0] == b"news"
    return guest, server, seen_as


@in_a_namespace
def test_who_has_the_address_of_a_vm_that_has_left_gets_none_of_its_datagrams():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        gone, heir = lan.guest(), lan.guest()
        guest, server, seen_as = flow_of(lan, stack, 1, gone)
        port = guest.getsockname()[1]
        inherit(lan, 1, heir)
        guest = stack.enter_context(heir.inside(lambda: bound(address(lan, 1), port)))
        for number in range(1, 4):
            server.sendto(b"news", seen_as)
            lan.world.until(lambda n=number: lan.world.count("datagrams_dropped") == n, "the drop")
        with pytest.raises(BlockingIOError):
            guest.recv(1)
        lan.world.until(lambda: lan.world.count("flows") == 0, "the end of the flow")
        guest.sendto(b"subscribe", server.getsockname())
        assert received(lan.world, server)[1] != seen_as


@in_a_namespace
def test_who_has_the_address_of_a_vm_that_has_left_gets_none_of_its_errors():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        gone, heir = lan.guest(), lan.guest()
        guest, *_ = flow_of(lan, stack, 1, gone)
        port = guest.getsockname()[1]
        ((_, flow),) = lan.world.relay._flows.of(Port(1, 1))
        inherit(lan, 1, heir)
        guest = stack.enter_context(heir.inside(lambda: bound(address(lan, 1), port)))
        guest.connect((SERVER, 9))  # so it would hear of the refusal
        for number in range(1, 4):
            flow.sock.sendto(b"sent before it left", (SERVER, 9))  # which is refused only now
            lan.world.until(lambda n=number: lan.world.count("datagrams_dropped") == n, "the drop")
        assert lan.world.count("errors_passed") == 0
        with pytest.raises(BlockingIOError):
            guest.recv(1)


@in_a_namespace
def test_who_has_the_address_of_a_vm_that_has_left_gets_no_answer_to_its_dials():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        add_silent_host()
        gone, heir = lan.guest(), lan.guest()
        dial(lan, gone, 1, (SILENT, 9))
        dial(lan, gone, 1, (SILENT, 10))
        dial(lan, heir, 2, (SILENT, 9))
        lan.world.until(lambda: lan.world.count("dials") == 3, "the dials")
        leave(lan, 1)
        assert lan.world.count("dials") == 1
        assert (lan.world.count("near_gone"), lan.world.count("errors_passed")) == (2, 0)
        assert {key[:4] for key in lan.world.relay._outbound._handshakes._dials} == {
            socket.inet_aton(address(lan, 2))
        }


@in_a_namespace
def test_what_a_vm_sent_before_it_left_is_not_carried_after():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        gone, stays = lan.guest(), lan.guest()
        listener, server = lan.outside(SERVER, socket.SOCK_STREAM), lan.outside(SERVER)
        flow_of(lan, stack, 1, gone)
        leave(lan, 1)
        late = lan.inside(gone, address(lan, 1))
        late.sendto(b"too late", server.getsockname())
        dial(lan, gone, 1, listener.getsockname()[:2])
        lan.world.until(lambda: lan.world.count("no_port") >= 2, "both to be counted")
        lan.inside(stays, address(lan, 2)).sendto(b"in time", server.getsockname())
        assert received(lan.world, server)[0] == b"in time"
        assert lan.world.count("dials") == lan.world.count("joined") == 0


@in_a_namespace
def test_a_vm_that_reconnects_keeps_its_flows():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest, server, seen_as = flow_of(lan, stack, 1, lan.guest())
        mac = next(iter(lan.ports))
        leave(lan, 1)
        end = time.monotonic() + WAIT_S
        lan.ports[mac] = Port(7, 2)
        server.sendto(b"are you back?", seen_as)
        assert received(lan.world, guest)[0] == b"are you back?"
        lan.world.until(lambda: time.monotonic() > end + 0.5, "the end of the doubt")
        assert lan.world.relay._departures.deadline() is None
        server.sendto(b"still there?", seen_as)
        assert received(lan.world, guest)[0] == b"still there?"
        assert len(lan.world.relay._flows.of(Port(7, 2))) == lan.world.count("flows") == 1


@in_a_namespace
def test_a_vm_that_leaves_again_soon_gets_no_answers_either():
    with contextlib.ExitStack() as stack:
        lan = Lan(stack)
        guest, server, seen_as = flow_of(lan, stack, 1, lan.guest())
        mac = next(iter(lan.ports))
        leave(lan, 1)
        lan.ports[mac] = Port(7, 2)
        server.sendto(b"are you back?", seen_as)
        assert received(lan.world, guest)[0] == b"are you back?"
        leave(lan, 7)
        server.sendto(b"and again?", seen_as)
        lan.world.until(lambda: lan.world.count("datagrams_dropped"), "the drop")
        with pytest.raises(BlockingIOError):
            guest.recv(1)


def bound(at, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((at, port))
    sock.setblocking(False)
    return sock
