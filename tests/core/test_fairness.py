"""Shares of a busy VM are fair in bytes, for all lengths of frames and all kinds of sockets."""

from __future__ import annotations

import pytest

from forwarder import _core
from tests.helpers.core.mini_switch import BROADCAST, KINDS, MiniSwitch, frame, mac


@pytest.mark.parametrize("kind", KINDS)
def test_short_frames_get_as_many_bytes_as_long_ones(kind: str) -> None:
    lengths = {2: 1514, 3: 120, 4: 9014}
    with MiniSwitch() as switch:
        busy = switch.add(1, kind)
        for port in lengths:
            switch.add(port, kind)
        for port in (1, *lengths):
            switch.vms[port].send(frame(BROADCAST, mac(port)))
            switch.settle()
        busy.received()
        for _ in range(400):  # until all rings are full
            for port, length in lengths.items():
                switch.vms[port].send(*[frame(mac(1), mac(port), size=length)] * min(32, 18028 // length))
            switch.turn()
            switch.turn()
        assert all(_core.StatsPage(switch.stats[port]).losses() for port in lengths)
        busy.received()  # what was written before they had to share
        came = dict.fromkeys(lengths, 0)
        while sum(came.values()) < 1_200_000:
            for each in busy.received():
                came[each[11]] += len(each)
            switch.turn()
        mean = sum(came.values()) / len(came)
        assert all(abs(count - mean) < mean / 5 for count in came.values()), came


def test_a_source_that_was_alone_lets_another_one_in_soon() -> None:
    """Alone, a source may write more at a time; another one waits only until that is written."""
    granted, run = 262_144, 65_536
    with MiniSwitch() as switch:
        slow = switch.add(1, "stream", buffer=1 << 16)
        for port in (2, 3):
            switch.add(port, "stream")
        for port in (1, 2, 3):
            switch.vms[port].send(frame(BROADCAST, mac(port)))
            switch.settle()
        slow.received()
        for _ in range(30):
            switch.vms[2].send(*[frame(mac(1), mac(2), size=1514)] * 24)
            switch.settle()
        slow.received()  # what the kernel held
        switch.turn()
        switch.vms[3].send(frame(mac(1), mac(3)))
        waited = 0
        while 3 not in (sources := [each[11] for each in slow.received()]):
            waited += 1514 * len(sources)
            switch.turn()
        waited += 1514 * sources.index(3)
        assert waited < granted + run


@pytest.mark.parametrize("kind", KINDS)
def test_unicast_of_a_lone_source_does_not_overtake_its_earlier_floods(kind: str) -> None:
    """More floods wait than the staging holds, which ends before the source's share does."""
    with MiniSwitch() as switch:
        one, two = switch.add(1, kind), switch.add(2, "stream")
        switch.greet()
        two.send(frame(mac(1), mac(2)))  # asks for the ring
        switch.settle()
        one.received()
        floods = [frame(BROADCAST, mac(2), number.to_bytes(4, "big"), 60) for number in range(4300)]
        for at in range(0, len(floods), 100):
            two.send(*floods[at : at + 100])
            switch.engines[2].run(0)
        last = frame(mac(1), mac(2), b"last")
        two.send(last)
        switch.engines[2].run(0)
        assert switch.read_out(one) == [*floods, last]
