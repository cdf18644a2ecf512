"""The relay's budget of descriptors: one for connections and flows together, shared fairly.

A connection counts as the most descriptors that it can have, a flow of datagrams as one. ``fair_share`` has
the rule: an owner with many descriptors gets no more when few are left, so that others find some.
"""

import resource

from gateway.fair_share import Shares

OF_A_CONNECTION = 6
"""Two sockets, and a pipe in each direction while both readers are stalled."""

OF_A_FLOW = 1

MOST = 16_384 * OF_A_CONNECTION
"""Upper bound of the budget, since the kernel's buffers for so many sockets cost memory."""


def budget() -> Shares:
    """Return the number of descriptors to share; a quarter of all is kept for other uses."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Shares(max(OF_A_CONNECTION, min(MOST, soft * 3 // 4)))
