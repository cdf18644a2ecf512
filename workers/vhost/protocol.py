"""The back-end of vhost-user, sans-I/O: messages in, calls to a device and answers out.

Theory of operation. A front-end (QEMU, Cloud Hypervisor, crosvm, DPDK, User-Mode Linux) announces the guest's
memory, the accepted features and the two rings. After that, kicks and calls need no messages. Each message is
a row of a table (``messages``) and a method of the same name below. An answer never waits: front-ends block
until they have theirs, QEMU with its whole VM.

A ring starts when it gets its kick and stops when its base is asked for. Earlier settings stay: QEMU enables
rings once and starts them at each boot of the guest.

This object holds the session's descriptors by number. Descriptors that it no longer uses are in ``released``;
the caller closes them when a successor cannot need them any more. ``kept`` is everything that a successor
needs.
"""

from collections.abc import Callable
from typing import Protocol

from forwarder.errors import LocalError, PeerError
from forwarder.vhost_session import MOST_ENTRIES, RINGS, Region, Ring, VhostSession
from workers.vhost import messages
from workers.vhost.messages import (
    FEATURES,
    NO_DESCRIPTOR,
    ONE_REGION,
    PAIRS,
    PROTOCOL_FEATURES,
    PROTOCOL_REPLY_ACK,
    REGION,
    RING_MASK,
    RING_PLACE,
    RING_STATE,
    SLOTS,
    TABLE,
    U64,
    VHOST_USER_PROTOCOL_FEATURES,
    Message,
    answer,
    senseless,
)

DONE = U64.pack(0)
FAILED = U64.pack(1)


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


class Machine:
    """One session."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._features = 0
        self._protocol_features = 0
        self._regions: dict[Region, int] = {}
        self._rings = [Ring() for _ in range(RINGS)]
        self._kick = [-1] * RINGS
        self._call = [-1] * RINGS
        self._backend = -1
        self._handlers: dict[int, Callable[[Message], bytes]] = {
            number: getattr(self, f"_{request.name.lower()}") for number, request in messages.REQUESTS.items()
        }
        self.released: list[int] = []
        """Unused descriptors; the caller closes and clears them."""
        self.unknown: set[int] = set()
        """Unknown requests that have come."""

    def kept(self) -> tuple[VhostSession, tuple[int, ...]]:
        """Return the session and its descriptors, which stay this object's."""
        rings = tuple(self._rings)
        session = VhostSession(
            self._features, self._protocol_features, tuple(self._regions), rings, self._backend >= 0
        )
        ends = [end for pair in zip(self._kick, self._call, strict=True) for end in pair if end >= 0]
        backend = [self._backend] if self._backend >= 0 else []
        return session, (*self._regions.values(), *ends, *backend)

    def resume(self, session: VhostSession, descriptors: tuple[int, ...]) -> None:
        """Go on with the session of a lost worker. Raises PeerError or LocalError if that is impossible."""
        left = list(descriptors)
        self._features = session.features
        self._protocol_features = session.protocol_features
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

    def receive(self, header: bytes, payload: bytes, descriptors: tuple[int, ...]) -> bytes:
        """Take one message with its descriptors, which this object keeps; return the answer.

        Raises PeerError if the message makes no sense: the session is over then.
        """
        message = messages.parse(header, payload, descriptors)
        if isinstance(message, int):
            self.unknown.add(message)
            self.released += descriptors
            needs_reply = bool(messages.HEADER.unpack(header)[1] & messages.NEED_REPLY)
            return answer(message, FAILED) if needs_reply and self._acknowledges() else b""
        try:
            reply = self._handlers[message.request.number](message)
        except LocalError:
            if not (message.needs_reply and self._acknowledges()):
                raise
            reply = FAILED
        if message.request.answered:
            return answer(message.request.number, reply)
        if message.needs_reply and self._acknowledges():
            return answer(message.request.number, reply or DONE)
        return b""

    def _acknowledges(self) -> bool:
        return bool(self._protocol_features & 1 << PROTOCOL_REPLY_ACK)

    # One method for each row of the table.

    def _get_features(self, _: Message) -> bytes:
        return U64.pack(FEATURES)

    def _set_features(self, message: Message) -> bytes:
        (features,) = U64.unpack(message.payload)
        if features & ~FEATURES:
            raise senseless(message.request, f"features {features & ~FEATURES:#x} were not offered")
        self._features = features
        self._device.set_features(features)
        for index in range(RINGS):
            self._device.enable_ring(index, self._is_enabled(index))
        return b""

    def _set_owner(self, _: Message) -> bytes:
        return b""

    def _reset_owner(self, _: Message) -> bytes:
        for index in range(RINGS):
            self._enable(index, enabled=False)
        return b""

    def _get_protocol_features(self, _: Message) -> bytes:
        return U64.pack(PROTOCOL_FEATURES)

    def _set_protocol_features(self, message: Message) -> bytes:
        (features,) = U64.unpack(message.payload)
        if features & ~PROTOCOL_FEATURES:
            raise senseless(message.request, f"features {features & ~PROTOCOL_FEATURES:#x} were not offered")
        self._protocol_features = features
        return b""

    def _get_queue_num(self, _: Message) -> bytes:
        return U64.pack(PAIRS)

    def _get_max_mem_slots(self, _: Message) -> bytes:
        return U64.pack(SLOTS)

    def _set_backend_req_fd(self, message: Message) -> bytes:
        self._one_descriptor(message, wanted=True)
        self._let_go(self._backend)
        self._backend = message.descriptors[0]
        return b""

    def _set_mem_table(self, message: Message) -> bytes:
        count, _ = TABLE.unpack_from(message.payload)
        if TABLE.size + count * REGION.size > len(message.payload) or count != len(message.descriptors):
            shared = f"{count} regions with {len(message.descriptors)} descriptors"
            hint = "" if message.descriptors else "; is the guest's memory shared (share=on)?"
            raise senseless(message.request, shared + hint)
        regions = [
            _region(REGION.unpack_from(message.payload, TABLE.size + at * REGION.size)) for at in range(count)
        ]
        for region in list(self._regions):
            self._remove(region)
        for region, descriptor in zip(regions, message.descriptors, strict=True):
            self._add(message, region, descriptor)
        return b""

    def _add_mem_reg(self, message: Message) -> bytes:
        region = _region(ONE_REGION.unpack(message.payload)[1:])
        if not message.descriptors:
            raise senseless(message.request, "no descriptor; is the guest's memory shared (share=on)?")
        if region in self._regions:
            self.released += message.descriptors  # sent twice, by a front-end whose last worker was lost
            return b""
        self._add(message, region, message.descriptors[0])
        return b""

    def _rem_mem_reg(self, message: Message) -> bytes:
        guest, size, front_end, _ = ONE_REGION.unpack(message.payload)[1:]
        for region in list(self._regions):
            if (region.guest, region.size, region.front_end) == (guest, size, front_end):
                self._remove(region)
        return b""

    def _set_vring_num(self, message: Message) -> bytes:
        index, entries = self._ring_state(message)
        if not 0 < entries <= MOST_ENTRIES or entries & entries - 1:
            raise senseless(message.request, f"a ring of {entries} entries")
        self._change(index, self._rings[index]._replace(entries=entries))
        return b""

    def _set_vring_addr(self, message: Message) -> bytes:
        index, _flags, descriptors, used, available, _log = RING_PLACE.unpack(message.payload)
        self._check_index(message, index)
        ring = self._rings[index]._replace(descriptors=descriptors, used=used, available=available)
        self._change(index, ring)
        return b""

    def _set_vring_base(self, message: Message) -> bytes:
        index, base = self._ring_state(message)
        if base > 0xFFFF:
            raise senseless(message.request, f"index {base}")
        self._stop(index)
        self._rings[index] = self._rings[index]._replace(base=base)
        return b""

    def _get_vring_base(self, message: Message) -> bytes:
        index, _ = self._ring_state(message)
        self._stop(index)
        return RING_STATE.pack(index, self._rings[index].base)

    def _set_vring_kick(self, message: Message) -> bytes:
        index, descriptor = self._ring_end(message)
        if descriptor < 0:
            raise senseless(message.request, "no descriptor, which asks for polling")
        self._stop(index)
        ring = self._rings[index]
        if not ring.entries:
            raise senseless(message.request, "the ring has no size yet")
        self._kick[index] = descriptor
        self._rings[index] = ring._replace(started=True, has_kick=True)
        try:
            self._device.start_ring(index, self._rings[index], descriptor, self._call[index], resumed=False)
        except PeerError as error:
            raise senseless(message.request, str(error)) from None
        return b""

    def _set_vring_call(self, message: Message) -> bytes:
        index, descriptor = self._ring_end(message)
        self._let_go(self._call[index])
        self._call[index] = descriptor
        self._rings[index] = self._rings[index]._replace(has_call=descriptor >= 0)
        self._device.set_call(index, descriptor)
        return b""

    def _set_vring_err(self, message: Message) -> bytes:
        _, descriptor = self._ring_end(message)
        self._let_go(descriptor)  # an error ends the session, which the front-end notices anyway
        return b""

    def _set_vring_enable(self, message: Message) -> bytes:
        index, enabled = self._ring_state(message)
        if enabled > 1:
            raise senseless(message.request, f"{enabled} is neither 0 nor 1")
        self._enable(index, enabled=bool(enabled))
        return b""

    # Shared by these methods.

    def _check_index(self, message: Message, index: int) -> None:
        if index >= RINGS:
            raise senseless(message.request, f"there is no ring {index}")

    def _ring_state(self, message: Message) -> tuple[int, int]:
        index, number = RING_STATE.unpack(message.payload)
        self._check_index(message, index)
        return index, number

    def _ring_end(self, message: Message) -> tuple[int, int]:
        """Return the ring, and the descriptor or -1."""
        (value,) = U64.unpack(message.payload)
        index = value & RING_MASK
        self._check_index(message, index)
        wanted = not value & NO_DESCRIPTOR
        self._one_descriptor(message, wanted=wanted)
        return index, message.descriptors[0] if wanted else -1

    def _one_descriptor(self, message: Message, *, wanted: bool) -> None:
        if len(message.descriptors) != wanted:
            raise senseless(message.request, f"{len(message.descriptors)} descriptors")

    def _change(self, index: int, changed: Ring) -> None:
        """Note a setting for the next start of the ring."""
        if changed != self._rings[index]:
            self._stop(index)
            base = self._rings[index].base
            self._rings[index] = changed._replace(base=base, started=False, has_kick=False)

    def _stop(self, index: int) -> None:
        """Stop a running ring: some front-ends begin anew without stopping it (User-Mode Linux)."""
        ring = self._rings[index]
        if ring.started:
            base = self._device.stop_ring(index)
            self._rings[index] = ring._replace(base=base, started=False, has_kick=False)
            self._let_go(self._kick[index])
            self._kick[index] = -1

    def _is_enabled(self, index: int) -> bool:
        """Whether a ring is enabled: without the protocol's features it is from its start."""
        return self._rings[index].enabled or not self._features & 1 << VHOST_USER_PROTOCOL_FEATURES

    def _enable(self, index: int, *, enabled: bool) -> None:
        self._rings[index] = self._rings[index]._replace(enabled=enabled)
        self._device.enable_ring(index, self._is_enabled(index))

    def _add(self, message: Message, region: Region, descriptor: int) -> None:
        try:
            self._device.add_region(region, descriptor)
        except PeerError as error:
            raise senseless(message.request, str(error)) from None
        except LocalError:
            self._let_go(descriptor)
            raise
        self._regions[region] = descriptor

    def _remove(self, region: Region) -> None:
        self._device.remove_region(region)
        self._let_go(self._regions.pop(region))

    def _let_go(self, descriptor: int) -> None:
        if descriptor >= 0:
            self.released.append(descriptor)


def _region(numbers: tuple[int, ...]) -> Region:
    guest, size, front_end, offset = numbers
    return Region(guest, size, front_end, offset)
