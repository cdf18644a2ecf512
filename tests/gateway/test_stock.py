"""A stock of sockets: every request gets a socket or None, and no socket is left open."""

import socket

from hypothesis import given
from hypothesis import strategies as st

from gateway.stock import BATCH, MOST_KEPT, MOST_WAITING, Stock
from tests.helpers.descriptors import is_open


class World:
    """A stock whose sockets come at the test's command."""

    def __init__(self):
        self.asked = []
        self.got = []
        self.stock = Stock(lambda kind, count: self.asked.append((kind, count)))

    def take(self, kind="tcp4"):
        self.stock.take(kind, self.got.append)

    def come(self, made=BATCH):
        kind, count = self.asked.pop(0)
        fds = [socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach() for _ in range(min(made, count))]
        self.stock.came(kind, count, fds)
        return fds

    def close(self):
        self.stock.close()
        for sock in filter(None, self.got):
            sock.close()


def test_the_first_request_waits_and_the_next_ones_do_not():
    world = World()
    world.take()
    assert (world.asked, world.got) == ([("tcp4", BATCH)], [])
    fds = world.come()
    assert len(world.got) == 1
    for _ in range(BATCH // 2 - 2):
        world.take()
    assert len(world.got) == BATCH // 2 - 1
    assert not world.asked
    world.take()
    assert world.asked == [("tcp4", BATCH)]
    assert len(world.got) == BATCH // 2
    world.close()
    assert not any(map(is_open, fds))


def test_sockets_that_come_after_all_requests_were_refused_are_not_kept():
    world = World()
    for _ in range(3 * BATCH):
        world.take()
    batches = len(world.asked)
    world.come(0)
    fds = [fd for _ in range(batches - 1) for fd in world.come()]
    assert world.got == [None] * 3 * BATCH
    assert len(fds) > MOST_KEPT
    assert sum(map(is_open, fds)) == MOST_KEPT
    world.close()
    assert not any(map(is_open, fds))


def test_many_requests_are_asked_for_at_once_and_served_in_order():
    world = World()
    for number in range(3 * BATCH):
        world.stock.take("tcp6", lambda sock, number=number: world.got.append(sock) or order.append(number))
    order = []
    assert sum(count for _, count in world.asked) >= 3 * BATCH
    while world.asked:
        world.come()
    assert order == list(range(3 * BATCH))
    world.close()


def test_waiting_requests_get_none_and_the_next_one_asks_again():
    world = World()
    for _ in range(3):
        world.take()
    world.come(made=1)
    assert [sock is not None for sock in world.got] == [True, False, False]
    world.take()
    assert len(world.asked) == 1
    world.come()
    assert world.got[-1] is not None
    world.close()


def test_the_number_of_waiting_requests_is_bounded():
    world = World()
    for _ in range(MOST_WAITING + 1):
        world.take()
    assert world.got == [None]
    world.close()
    assert world.got == [None] * (MOST_WAITING + 1)


@given(st.lists(st.sampled_from(["tcp4", "udp4", "come", "some", "none"]), max_size=200))
def test_every_request_is_answered_once(steps):
    world, wanted = World(), 0
    for step in steps:
        if step in {"tcp4", "udp4"}:
            world.take(step)
            wanted += 1
        elif world.asked:
            world.come({"come": BATCH, "some": 2, "none": 0}[step])
    world.stock.close()
    assert len(world.got) == wanted
    world.close()
