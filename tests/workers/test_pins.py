"""Addresses pinned to ports, where the MAC table has room and where it has none."""

import pytest

from forwarder.messages import Note
from forwarder.names import Policy
from forwarder.replica import Joined
from tests.helpers.links_bench import MAC, OTHER_MAC, Bench, port


@pytest.fixture
def bench():
    return Bench()


def test_an_address_without_room_is_left_out_and_reported(bench):
    bench.engine.crowded.add(MAC)
    bench.links.apply(Joined(port(2, policy=Policy((MAC, OTHER_MAC)))))
    assert bench.engine.took("pin")[-1] == (2, [OTHER_MAC])
    assert Note("no room to pin 02:00:00:00:00:07 to port 2; pin fewer") in bench.sent
