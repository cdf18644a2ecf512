"""What the gateway is told unasked: everything at its start, then what has changed."""

from __future__ import annotations

from forwarder.messages import Command
from forwarder.names import Policy, PortId, PortRecord
from supervisor.gateway.announcements import PORTS_EACH, Announcements


class Told:
    """The announcements of a switch with the ports 1 to ``count``."""

    def __init__(self, count: int = 2) -> None:
        self.said: list[Command] = []
        self.news: list[tuple[PortId, tuple[int, ...]]] = []
        self.announcements = Announcements(
            self.said.append, lambda: self.news, lambda: [[n, n] for n in range(1, count + 1)]
        )

    def in_use(self) -> list[list[object]]:
        """Return the rows of addresses that were said since the last call."""
        rows = [row for each in self.said if each.name == "in_use" for row in each.arguments["ports"]]
        self.said.clear()
        return rows


def test_a_new_gateway_is_told_everything_and_a_present_one_what_has_changed() -> None:
    told = Told()
    told.announcements.begin()
    assert [each.name for each in told.said] == ["ports", "resolvers"]
    assert told.said[0].arguments == {"ports": [[1, 1], [2, 2]]}
    told.news = [(PortId(1, 1), (50, 51))]
    told.announcements.tell()
    assert told.in_use() == [[1, 1, [50, 51]]]
    told.announcements.tell()
    assert told.said == []
    told.news = [(PortId(1, 1), (51,)), (PortId(2, 2), ())]
    told.announcements.tell()
    assert told.in_use() == [[1, 1, [51]]]
    told.news = []
    told.announcements.begin()  # the next gateway
    assert told.in_use() == [[1, 1, [51]]]


def test_addresses_of_a_port_that_has_left_are_told_no_more() -> None:
    told = Told()
    told.news = [(PortId(1, 1), (50,))]
    told.announcements.tell()
    told.news = []
    port = PortRecord(1, 1, 1, "vm-1", "bess", Policy())
    told.announcements.left(port)
    assert told.said[-1] == Command("left", {"port": 1, "born": 1})
    told.announcements.joined(port)
    assert told.said[-1] == Command("joined", {"port": 1, "born": 1})
    told.said.clear()
    told.announcements.begin()
    assert told.in_use() == []


def test_many_ports_are_told_in_bounded_messages() -> None:
    told = Told()
    told.news = [(PortId(n, n), (n,)) for n in range(1, 2 * PORTS_EACH + 2)]
    told.announcements.tell()
    messages = [each.arguments["ports"] for each in told.said if each.name == "in_use"]
    assert [len(each) for each in messages] == [PORTS_EACH, PORTS_EACH, 1]
