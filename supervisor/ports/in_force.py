"""Which settings concern the workers of other ports, and what of a change is not in force yet."""

from typing import NamedTuple

from forwarder.names import Policy

WIDE = ("pinned", "isolated", "reaches")
"""The settings of a port that the workers of all other ports enforce, too."""


class Missing(NamedTuple):
    """What is not in force yet, by port."""

    workers: frozenset[int] = frozenset()
    """Ports whose workers have not confirmed the change."""
    floods: frozenset[int] = frozenset()
    """Ports that may still write their floods to rings that the change takes away from others."""


NOTHING = Missing()


def is_wide(before: Policy, after: Policy) -> bool:
    """Whether a change of settings concerns the workers of other ports, too."""
    return any(getattr(before, name) != getattr(after, name) for name in WIDE)
