"""The reserve: ports that all workers know before there is a VM for them.

Theory of operation. When a VM attaches, every other worker has to map its flood ring, which costs each a turn
of its loop. With 250 workers on two cores that takes 50 ms, in which the VM waits. So some ports are made
known while nothing happens: each has a number, an epoch and a flood ring, and its record has no name. A VM
that attaches gets the first of them. The others know and hear it already; only its own worker has to hear of
its record at once. ``TOGETHER`` ports are made known in one message, so a worker turns once for so many VMs.

A reserved port has the reach of a port with default settings and without a name that others reach. If a VM
has others (isolated, pinned addresses), it gets the number with another epoch, and is introduced when it is
there. A worker that may not talk to reserved ports has not got their rings; when some port becomes isolated,
all reserved ports get other rings, since its worker keeps what it has.

Example: ports 1 to 9 are live and 10 to 13 are reserved. A VM attaches, is port 10 and is read as soon as its
worker hears all others. Two more leave port 13; 20 ms after the last one, 14 to 17 are reserved.

Pure: the registry asks, and publishes what has changed.
"""

from collections.abc import Container, Iterator
from itertools import islice

from forwarder.names import Policy, PortRecord
from supervisor.ports.numbers import Numbers

TOGETHER = 4
"""Ports that workers hear of together: each has a page of memory, and a mapping in each worker."""
LEFT = 1
"""So few are left when the next ones are reserved: one for a VM that comes meanwhile."""
PAUSE_S = 0.02
"""After a VM has come, so that its first frames do not wait for the crowd."""
AGAIN_S = 0.5
"""Pause after a lack of numbers, descriptors or memory."""


class Reserve:
    """The reserved ports, in the order of use."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self.open = False
        """Whether to reserve: not while workers of a dead supervisor may bring their ports."""
        self._records: dict[int, PortRecord] = {}
        self._not_before = 0.0

    def __iter__(self) -> Iterator[int]:
        """All numbers, in the order of use."""
        return iter(self._records)

    def get(self, number: int) -> PortRecord | None:
        """Return the record of a reserved port."""
        return self._records.get(number)

    def more(self, used: Container[int], now: float) -> list[PortRecord]:
        """Reserve the next ports, without numbers that are ``used``; return them."""
        free = (number for number in self._numbers if number not in used and number not in self._records)
        chosen = list(islice(free, TOGETHER))
        if len(chosen) < TOGETHER:
            self.pause(now)
        for number in chosen:
            self._numbers.use(number)
        return [self._add(number) for number in chosen]

    def anew(self) -> tuple[list[PortRecord], list[PortRecord]]:
        """Give every reserved port another epoch, and so another ring; return them before and after."""
        before = list(self._records.values())
        return before, [self._add(record.port) for record in before]

    def take(self, number: int, now: float) -> PortRecord | None:
        """Take a port for a VM that attaches, if it is reserved."""
        self._not_before = max(self._not_before, now + PAUSE_S)
        return self._records.pop(number, None)

    def give_up(self, number: int, now: float) -> None:
        """Forget a port that cannot be reserved now."""
        self.pause(now)
        self._records.pop(number, None)

    def pause(self, now: float) -> None:
        """Reserve nothing for a while: something that is needed is used up."""
        self._not_before = now + AGAIN_S

    def deadline(self) -> float:
        """When the next ``TOGETHER`` ports are to be reserved; infinity while enough are left."""
        return self._not_before if self.open and len(self._records) <= LEFT else float("inf")

    def _add(self, number: int) -> PortRecord:
        epoch = self._numbers.next_epoch()
        self._records[number] = PortRecord(number, epoch, epoch, "", "qemu", Policy())
        return self._records[number]
