"""Halves of rings that came before their port, or before its flood ring: at most one of each kind."""

from typing import NamedTuple

from forwarder.channel import close_all


class Early(NamedTuple):
    """A ring that came before its port."""

    epoch: int
    descriptors: tuple[int, ...]


def keep(early: dict[int, Early], port: int, what: Early) -> None:
    """Keep an early ring in place of an earlier one."""
    discard(early, port, before=what.epoch + 1)
    early[port] = what


def discard(early: dict[int, Early], port: int, before: int) -> None:
    """Close early rings of epochs before that."""
    if port in early and early[port].epoch < before:
        close_all(early.pop(port).descriptors)
