"""A switch of two engines: a guest with queues at port 1, a VM on a socket at port 2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from forwarder import _core
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, Vm, frame, mac
from tests.helpers.guests.virtio_driver import FRONT_END, GUEST, MEMORY_BYTES, MRG_RXBUF, VERSION_1, Driver


def start_queues(engine: _core.Engine, driver: Driver, *, index: int = 0, resumed: bool = False) -> None:
    """What a front-end says before its driver is at work."""
    engine.vhost_set_features(driver.features)
    engine.vhost_add_region(GUEST, MEMORY_BYTES, FRONT_END, 0, driver.fd)
    for which, queue in enumerate(driver.queues):
        engine.vhost_enable_queue(which, True)
        engine.vhost_start_queue(
            which=which,
            entries=queue.entries,
            index=index,
            descriptors=FRONT_END + queue.descriptors,
            available=FRONT_END + queue.available,
            used=FRONT_END + queue.used,
            kick=queue.kick,
            call=queue.call,
            resumed=resumed,
        )


class World:
    """Port 1 has a guest with queues, port 2 a VM on a socket."""

    def __init__(self, switch: MiniSwitch, driver: Driver, peer: Vm) -> None:
        self.switch, self.driver, self.peer = switch, driver, peer

    @property
    def engine(self) -> _core.Engine:
        return self.switch.engines[1]

    def counters(self) -> dict[str, int]:
        return self.switch.counters(1)

    def introduce(self) -> None:
        """Each learns where the other is."""
        self.driver.send(frame(BROADCAST, mac(1)))
        self.switch.settle()
        self.peer.send(frame(BROADCAST, mac(2)))
        self.switch.settle()
        self.peer.received()
        self.driver.frames()


@contextmanager
def a_world(features: int = VERSION_1 | MRG_RXBUF, entries: int = 64) -> Iterator[World]:
    driver = Driver(features, entries)
    try:
        with MiniSwitch() as switch:
            switch.attach(1, "vhost", os.eventfd(0))
            peer = switch.add(2, "dgram")
            start_queues(switch.engines[1], driver)
            yield World(switch, driver, peer)
    finally:
        driver.close()
