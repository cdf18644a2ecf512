"""The settings of the worker's own port: apply a policy to the engine, but only what has changed.

Settings of other ports are not applied here: ``links`` and ``pins`` read pinned addresses and reach from
their records.
"""

from forwarder._core import LARGEST_FRAME, LINK_BYTES, MAX_FRAME, TAKES_LARGE, Engine
from forwarder.names import GATEWAY_MAC, SAY_THEMSELVES, TRANSPORT_KIND, Policy, mtu_of


class OwnSettings:
    """The limits, guard, floods and offloads in force at the engine of one port."""

    def __init__(self, engine: Engine, transport: str) -> None:
        self._engine = engine
        self._transport = transport
        self._limits: tuple[int, ...] = ()
        """The limits in force: setting them again would grant another burst."""
        self._offloads: tuple[int, ...] = ()
        """The offload settings in force: setting them again would forget the samples."""

    def apply(self, policy: Policy) -> None:
        """Put a policy into force."""
        self._engine.set_flood_unknown(policy.flood_unknown)
        self._engine.set_guard(bool(policy.guard))
        if self._transport == "gateway":
            self._engine.limit_sources()
        self._engine.limit_questions(GATEWAY_MAC if policy.guard else b"")
        self._set_limits(policy)
        self._set_offloads(policy)

    def _set_limits(self, policy: Policy) -> None:
        broadcast, multicast, unknown = policy.broadcast_per_s, policy.multicast_per_s, policy.unknown_per_s
        limits = (broadcast, multicast, unknown, policy.bytes_per_s, policy.max_macs)
        if limits != self._limits:
            self._limits = limits
            self._engine.set_limits(
                broadcast=broadcast,
                multicast=multicast,
                unknown=unknown,
                bytes=policy.bytes_per_s,
                macs=policy.max_macs,
            )

    def _set_offloads(self, policy: Policy) -> None:
        mtu, large = mtu_of(policy), policy.receive == "large"
        undone, longest = mtu if policy.offload == "tso" else 0, mtu + LINK_BYTES if mtu else MAX_FRAME
        if (undone, longest, large) == self._offloads:
            return
        self._offloads = (undone, longest, large)
        self._engine.limit(MAX_FRAME if large else longest)
        if TRANSPORT_KIND[self._transport] not in SAY_THEMSELVES:
            self._engine.infer(undone)
            self._engine.take(TAKES_LARGE if large else 0, LARGEST_FRAME if large else MAX_FRAME)
