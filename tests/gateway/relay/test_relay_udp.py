"""Datagrams on loopback: forwards, waiting for a socket, silence."""

import socket
import time
from ipaddress import ip_address

import pytest

from gateway.relay.flows import FRESH_S, SETTLED_S
from gateway.relay.forwards import Forward
from gateway.relay.udp import MOST_WAITING
from tests.helpers.descriptors import open_descriptors
from tests.helpers.gateway.policies import LOOPBACK
from tests.helpers.gateway.world import World, received


def udp(address="127.0.0.1"):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.setblocking(False)
    return sock


@pytest.fixture
def guest(stack):
    return stack.enter_context(udp("127.1.0.2"))


def ask(world, forward, guest, data=b"question"):
    client = udp()
    client.connect((str(forward.host), forward.port))
    client.send(data)
    got, seen_as = received(world, guest)
    assert got == data
    return client, seen_as


def test_every_client_gets_its_own_answers(world, stack, guest):
    forward = world.forward(guest, "udp")
    clients = [ask(world, forward, guest, b"%d" % number) for number in range(5)]
    assert len({seen_as for _, seen_as in clients}) == 5
    for number, (client, seen_as) in enumerate(clients):
        stack.enter_context(client)
        guest.sendto(b"answer %d" % number, seen_as)
        assert received(world, client)[0] == b"answer %d" % number
    assert world.count("flows") == 5


@pytest.mark.parametrize(
    ("everywhere", "places"),
    [("0.0.0.0", ("127.0.0.1", "127.0.0.2", "127.9.9.9")), ("::", ("::1",)), ("127.0.0.3", ("127.0.0.3",))],
)
def test_an_answer_comes_from_the_address_that_was_asked(world, stack, guest, everywhere, places):
    at = guest.getsockname()
    forward = world.add(Forward("udp", ip_address(at[0]), at[1], ip_address(everywhere), 0))
    family = socket.AF_INET6 if ":" in everywhere else socket.AF_INET
    one = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    one.setblocking(False)
    for place in places:
        connected = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        connected.setblocking(False)
        connected.connect((place, forward.port))
        connected.send(b"question")
        guest.sendto(b"answer", received(world, guest)[1])
        assert received(world, connected)[0] == b"answer"
        # One client that asks at several addresses has an answer from each.
        one.sendto(b"question", (place, forward.port))
        guest.sendto(b"answer", received(world, guest)[1])
        assert received(world, one)[1][:2] == (place, forward.port)
    assert world.count("flows") == 2 * len(places)


def test_longest_and_empty_datagrams_go_through(world, stack, guest):
    forward = world.forward(guest, "udp")
    for data in (b"", bytes(65507)):
        stack.enter_context(ask(world, forward, guest, data)[0])


def test_datagrams_wait_for_their_socket_up_to_a_bound(world, stack, guest):
    forward = world.forward(guest, "udp")
    world.delay = []
    client = stack.enter_context(udp())
    for number in range(MOST_WAITING + 3):
        client.sendto(b"%d" % number, (str(forward.host), forward.port))
    world.until(lambda: world.count("datagrams_dropped") == 3, "the last ones to be dropped")
    world.delay[0]()
    assert [received(world, guest)[0] for _ in range(MOST_WAITING)] == [
        b"%d" % n for n in range(MOST_WAITING)
    ]


def test_a_silent_flow_ends_and_a_late_socket_is_closed(world, stack, guest):
    forward = world.forward(guest, "udp")
    before = open_descriptors()
    client, _ = ask(world, forward, guest)
    stack.enter_context(client)
    world.delay = []
    stack.enter_context(udp()).sendto(b"", (str(forward.host), forward.port))
    world.until(lambda: world.delay, "the request for a socket")
    later = world.relay.deadline() + FRESH_S
    world.relay.tick(later)
    assert world.count("flows") == 0
    world.delay[0]()
    assert open_descriptors() == before + 2  # the two clients
    assert world.relay.deadline() is None


def test_an_answered_flow_is_kept_for_as_long_as_a_conversation_may_pause(world, stack, guest):
    forward = world.forward(guest, "udp")
    client, seen_as = ask(world, forward, guest)
    stack.enter_context(client)
    began = time.monotonic()
    guest.sendto(b"answer", seen_as)
    assert received(world, client)[0] == b"answer"
    answered = time.monotonic()
    world.relay.tick(answered + FRESH_S)
    world.relay.tick(began + SETTLED_S - 1)
    assert world.count("flows") == 1
    guest.sendto(b"late", seen_as)
    assert received(world, client)[0] == b"late"
    world.relay.tick(time.monotonic() + SETTLED_S)
    assert world.count("flows") == 0


def test_a_removed_forward_takes_its_flows_along(world, stack, guest):
    before = open_descriptors()
    forward = world.forward(guest, "udp")
    client, _ = ask(world, forward, guest)
    world.relay.remove(forward)
    client.close()
    assert (world.count("flows"), open_descriptors()) == (0, before)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((str(forward.host), forward.port))


def test_a_guest_that_does_not_listen_ends_the_flow(world, stack):
    closed = udp("127.1.0.2")
    forward = world.forward(closed, "udp")
    closed.close()
    stack.enter_context(udp()).sendto(b"anybody?", (str(forward.host), forward.port))
    world.until(lambda: world.count("refused") == 1, "the refusal")
    assert world.count("flows") == 0


def test_closing_leaves_nothing(guest):
    before = open_descriptors()
    world = World(LOOPBACK)
    client, _ = ask(world, world.forward(guest, "udp"), guest)
    world.close()
    client.close()
    assert open_descriptors() == before
