"""The network device of the vhost-user protocol, implemented by the engine."""

import errno

from forwarder._core import Engine
from forwarder.errors import LocalError, PeerError
from forwarder.vhost_session import Region, Ring


class EngineDevice:
    """Two queues and a guest's memory in an engine of kind "vhost"."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_region(self, region: Region, descriptor: int) -> None:
        """Map a region. Raises PeerError if it makes no sense, LocalError if there is no room."""
        try:
            self._engine.vhost_add_region(
                region.guest, region.size, region.front_end, region.offset, descriptor
            )
        except ValueError as error:
            raise PeerError(str(error)) from None
        except OSError as error:
            raise LocalError(f"the guest's memory cannot be mapped: {error.strerror}") from None

    def remove_region(self, region: Region) -> None:
        """Unmap a region; a ring in it stops."""
        self._engine.vhost_remove_region(region.guest, region.size, region.front_end)

    def set_features(self, features: int) -> None:
        """Set the features that the driver has accepted."""
        self._engine.vhost_set_features(features)

    def start_ring(self, index: int, ring: Ring, kick: int, call: int, *, resumed: bool) -> None:
        """Start a ring. Raises PeerError if it is not in the guest's memory, or its kick is unusable."""
        try:
            self._engine.vhost_start_queue(
                which=index,
                entries=ring.entries,
                index=ring.base,
                descriptors=ring.descriptors,
                available=ring.available,
                used=ring.used,
                kick=kick,
                call=call,
                resumed=resumed,
            )
        except OSError as error:
            memory = error.errno == errno.EFAULT
            raise PeerError(
                f"ring {index} is not in the guest's memory; is all of it shared (share=on)?"
                if memory
                else "its kick cannot be waited for"
            ) from None

    def stop_ring(self, index: int) -> int:
        """Stop a ring; return the index at which it would go on."""
        return self._engine.vhost_stop_queue(index)

    def enable_ring(self, index: int, enabled: bool) -> None:
        """Enable or disable a ring."""
        self._engine.vhost_enable_queue(index, enabled)

    def set_call(self, index: int, call: int) -> None:
        """Set the descriptor that calls the driver; -1: do not call."""
        self._engine.vhost_set_call(index, call)
