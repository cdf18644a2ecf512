"""The state of a session: the guest's memory, both rings, and the descriptors that belong to them.

Each change goes to the device at once. A ring that runs is stopped before anything of it changes, since some
front-ends begin anew without stopping it (User-Mode Linux). Settings stay when a ring stops: QEMU enables
rings once and starts them at each boot of the guest.

This object holds the session's descriptors by number. Descriptors that it no longer uses are in ``released``;
the caller closes them when a successor cannot need them any more. ``kept`` is everything that a successor
needs.
"""

from typing import Protocol

from forwarder.vhost_session import RINGS, Region, Ring, VhostSession
from workers.vhost.messages import VHOST_USER_PROTOCOL_FEATURES


class Device(Protocol):
    """The device that the messages control."""

    def add_region(self, region: Region, descriptor: int) -> None:
        """Map a region. Raises PeerError if it makes no sense, LocalError if there is no room."""

    def remove_region(self, region: Region) -> None:
        """Unmap a region; a ring in it stops."""

    def set_features(self, features: int) -> None:
        """Set the features that the driver has accepted."""

    def start_ring(self, index: int, ring: Ring, kick: int, call: int, *, resumed: bool) -> None:
        """Start a ring; ``call`` is -1 if the driver polls.

        Raises PeerError if it is not in the guest's memory.
        """

    def stop_ring(self, index: int) -> int:
        """Stop a ring; return the index at which it would go on."""

    def enable_ring(self, index: int, enabled: bool) -> None:
        """Enable or disable a ring."""

    def set_call(self, index: int, call: int) -> None:
        """Set the descriptor that calls the driver; -1: do not call."""


class SessionState:
    """The state of one session. ``index`` is a ring's, below RINGS."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._features = 0
        self.protocol_features = 0
        """Those that the front-end has accepted; they change nothing here."""
        self._regions: dict[Region, int] = {}
        self._rings = [Ring() for _ in range(RINGS)]
        self._kick = [-1] * RINGS
        self._call = [-1] * RINGS
        self._backend = -1
        self.released: list[int] = []
        """Unused descriptors; the caller closes and clears them."""

    @property
    def regions(self) -> list[Region]:
        """The regions of the guest's memory."""
        return list(self._regions)

    def kept(self) -> tuple[VhostSession, tuple[int, ...]]:
        """Return the session and its descriptors, which stay this object's."""
        rings = tuple(self._rings)
        session = VhostSession(
            self._features, self.protocol_features, tuple(self._regions), rings, self._backend >= 0
        )
        ends = [end for pair in zip(self._kick, self._call, strict=True) for end in pair if end >= 0]
        backend = [self._backend] if self._backend >= 0 else []
        return session, (*self._regions.values(), *ends, *backend)

    def resume(self, session: VhostSession, descriptors: tuple[int, ...]) -> None:
        """Go on with the session of a lost worker. Raises PeerError or LocalError if that is impossible."""
        left = list(descriptors)
        self._features = session.features
        self.protocol_features = session.protocol_features
        self._rings = list(session.rings)
        self._regions = {region: left.pop(0) for region in session.regions}
        for index, ring in enumerate(session.rings):
            self._kick[index] = left.pop(0) if ring.has_kick else -1
            self._call[index] = left.pop(0) if ring.has_call else -1
        self._backend = left.pop(0) if session.has_backend else -1
        self._device.set_features(self._features)
        for region, descriptor in self._regions.items():
            self._device.add_region(region, descriptor)
        for index, ring in enumerate(self._rings):
            self._device.enable_ring(index, self._is_enabled(index))
            if ring.started:
                self._device.start_ring(index, ring, self._kick[index], self._call[index], resumed=True)

    def set_features(self, features: int) -> None:
        """Set the features that the driver has accepted."""
        self._features = features
        self._device.set_features(features)
        for index in range(RINGS):
            self._device.enable_ring(index, self._is_enabled(index))

    def set_backend(self, descriptor: int) -> None:
        """Keep the front-end's socket for requests, over which nothing is ever sent."""
        self.release(self._backend)
        self._backend = descriptor

    def add_region(self, region: Region, descriptor: int) -> None:
        """Map a region. Raises PeerError if it makes no sense, LocalError if there is no room."""
        self._device.add_region(region, descriptor)
        self._regions[region] = descriptor

    def remove_region(self, region: Region) -> None:
        """Unmap one of ``regions``."""
        self._device.remove_region(region)
        self.release(self._regions.pop(region))

    def ring(self, index: int) -> Ring:
        """Return a ring's settings and position."""
        return self._rings[index]

    def change_ring(self, index: int, changed: Ring) -> None:
        """Note settings for the next start of a ring; its position stays."""
        if changed != self._rings[index]:
            self.stop_ring(index)
            base = self._rings[index].base
            self._rings[index] = changed._replace(base=base, started=False, has_kick=False)

    def move_ring(self, index: int, base: int) -> None:
        """Set the position at which a ring starts."""
        self.stop_ring(index)
        self._rings[index] = self._rings[index]._replace(base=base)

    def start_ring(self, index: int, kick: int) -> None:
        """Start a ring that is stopped. Raises PeerError if it is not in the guest's memory."""
        self._kick[index] = kick
        self._rings[index] = self._rings[index]._replace(started=True, has_kick=True)
        self._device.start_ring(index, self._rings[index], kick, self._call[index], resumed=False)

    def stop_ring(self, index: int) -> None:
        """Stop a ring, if it runs, and note its position."""
        ring = self._rings[index]
        if ring.started:
            base = self._device.stop_ring(index)
            self._rings[index] = ring._replace(base=base, started=False, has_kick=False)
            self.release(self._kick[index])
            self._kick[index] = -1

    def set_call(self, index: int, descriptor: int) -> None:
        """Set the descriptor that calls the driver; -1: do not call."""
        self.release(self._call[index])
        self._call[index] = descriptor
        self._rings[index] = self._rings[index]._replace(has_call=descriptor >= 0)
        self._device.set_call(index, descriptor)

    def enable_ring(self, index: int, *, enabled: bool) -> None:
        """Enable or disable a ring."""
        self._rings[index] = self._rings[index]._replace(enabled=enabled)
        self._device.enable_ring(index, self._is_enabled(index))

    def release(self, *descriptors: int) -> None:
        """Note descriptors that are not used any more; -1 is none."""
        self.released += [each for each in descriptors if each >= 0]

    def _is_enabled(self, index: int) -> bool:
        """Whether a ring is enabled: without the protocol's features it is from its start."""
        return self._rings[index].enabled or not self._features & 1 << VHOST_USER_PROTOCOL_FEATURES
