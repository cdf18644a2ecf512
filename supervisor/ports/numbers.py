"""Numbers and epochs for ports and their workers.

A number is used again as late as possible: by then every worker has learned that its last owner is gone. So
numbers go round. Each worker of a port has an epoch of its own; epochs only grow, also from one supervisor to
the next.

    ports 1 and 2 come, 2 leaves, a third one comes    numbers 1, 2, 3; epochs 1, 2, 3
    port 1 gets another worker                         number 1, epoch 4
"""

from collections.abc import Iterator

from forwarder.names import MAX_PORTS


class Numbers:
    """The numbers and epochs of one switch."""

    def __init__(self, first_epoch: int) -> None:
        """``first_epoch`` must be greater than every epoch of an earlier supervisor."""
        self._epoch = first_epoch - 1
        self._last = 0

    def __iter__(self) -> Iterator[int]:
        """All numbers, the one that was used last comes last."""
        last = self._last
        return ((last + step) % (MAX_PORTS - 1) + 1 for step in range(MAX_PORTS - 1))

    def use(self, number: int) -> None:
        """Note the number of a new port."""
        self._last = number

    def next_epoch(self) -> int:
        """Return an epoch that no worker has had."""
        self._epoch += 1
        return self._epoch

    def adopt(self, number: int, epoch: int) -> None:
        """Note a port that an earlier supervisor has numbered."""
        self._epoch = max(self._epoch, epoch)
        self._last = max(self._last, number)
