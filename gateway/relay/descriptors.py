"""How many descriptors the relay may use, and how they are shared out: one budget for all that takes some.

A connection counts as the most that it can have, a flow of datagrams as one. ``fair_share`` has the rule: who
has much gets no more as soon as little is left, so that there is room for the next.
"""

import resource

from gateway.fair_share import Shares

OF_A_CONNECTION = 6
"""Two sockets, and a pipe in each direction while both readers are stalled."""

OF_A_FLOW = 1

MOST = 16_384 * OF_A_CONNECTION
"""However many descriptors there may be: what they cost the kernel in buffers has to end somewhere."""


def budget() -> Shares:
    """Return the descriptors that there are to share: a quarter is kept for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Shares(max(OF_A_CONNECTION, min(MOST, soft * 3 // 4)))
