"""The back-end of vhost-user, sans-I/O: messages in, calls to a device and answers out.

Theory of operation. A front-end (QEMU, Cloud Hypervisor, crosvm, DPDK, User-Mode Linux) announces the guest's
memory, the accepted features and the two rings. After that, kicks and calls need no messages. Each message is
a row of a table (``messages``) and a method of the same name below. An answer never waits: front-ends block
until they have theirs, QEMU with its whole VM.

A ring starts when it gets its kick and stops when its base is asked for (``state``). Here each message is
checked; what is sound changes the state.
"""

from collections.abc import Callable

from forwarder.errors import LocalError, PeerError
from forwarder.vhost_session import MOST_ENTRIES, RINGS, Region
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
    Message,
    answer,
    senseless,
)
from workers.vhost.state import SessionState

DONE = U64.pack(0)
FAILED = U64.pack(1)


class Machine:
    """One session."""

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._asked_for_pairs = False
        self._handlers: dict[int, Callable[[Message], bytes]] = {
            number: getattr(self, f"_{request.name.lower()}") for number, request in messages.REQUESTS.items()
        }

    def receive(self, header: bytes, payload: bytes, descriptors: tuple[int, ...]) -> bytes:
        """Take one message with its descriptors, which this object keeps; return the answer.

        Raises PeerError if the message makes no sense: the session is over then.
        """
        message = messages.parse(header, payload, descriptors)
        if isinstance(message, int):
            self._state.release(*descriptors)
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

    def hint(self) -> str:
        """Return what may be why the front-end closes its link; "" if its driver has set a ring up.

        QEMU with ``queues=2`` hears of one pair, and connects again at once, without an end.
        """
        if not self._asked_for_pairs or any(self._state.ring(index).entries for index in range(RINGS)):
            return ""
        return " before a driver used it (a port has one pair of queues; did the VM want more, by queues=?)"

    def _acknowledges(self) -> bool:
        return bool(self._state.protocol_features & 1 << PROTOCOL_REPLY_ACK)

    # One method for each row of the table.

    def _get_features(self, _: Message) -> bytes:
        return U64.pack(FEATURES)

    def _set_features(self, message: Message) -> bytes:
        (features,) = U64.unpack(message.payload)
        if features & ~FEATURES:
            raise senseless(message.request, f"features {features & ~FEATURES:#x} were not offered")
        self._state.set_features(features)
        return b""

    def _set_owner(self, _: Message) -> bytes:
        return b""

    def _reset_owner(self, _: Message) -> bytes:
        for index in range(RINGS):
            self._state.enable_ring(index, enabled=False)
        return b""

    def _get_protocol_features(self, _: Message) -> bytes:
        return U64.pack(PROTOCOL_FEATURES)

    def _set_protocol_features(self, message: Message) -> bytes:
        (features,) = U64.unpack(message.payload)
        if features & ~PROTOCOL_FEATURES:
            raise senseless(message.request, f"features {features & ~PROTOCOL_FEATURES:#x} were not offered")
        self._state.protocol_features = features
        return b""

    def _get_queue_num(self, _: Message) -> bytes:
        self._asked_for_pairs = True
        return U64.pack(PAIRS)

    def _get_max_mem_slots(self, _: Message) -> bytes:
        return U64.pack(SLOTS)

    def _set_backend_req_fd(self, message: Message) -> bytes:
        self._one_descriptor(message, wanted=True)
        self._state.set_backend(message.descriptors[0])
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
        for region in self._state.regions:
            self._state.remove_region(region)
        for region, descriptor in zip(regions, message.descriptors, strict=True):
            self._add(message, region, descriptor)
        return b""

    def _add_mem_reg(self, message: Message) -> bytes:
        region = _region(ONE_REGION.unpack(message.payload)[1:])
        if not message.descriptors:
            raise senseless(message.request, "no descriptor; is the guest's memory shared (share=on)?")
        if region in self._state.regions:
            self._state.release(*message.descriptors)  # sent twice, by a front-end whose last worker was lost
            return b""
        self._add(message, region, message.descriptors[0])
        return b""

    def _rem_mem_reg(self, message: Message) -> bytes:
        guest, size, front_end, _ = ONE_REGION.unpack(message.payload)[1:]
        for region in self._state.regions:
            if (region.guest, region.size, region.front_end) == (guest, size, front_end):
                self._state.remove_region(region)
        return b""

    def _set_vring_num(self, message: Message) -> bytes:
        index, entries = self._ring_state(message)
        if not 0 < entries <= MOST_ENTRIES or entries & entries - 1:
            raise senseless(message.request, f"a ring of {entries} entries")
        self._state.change_ring(index, self._state.ring(index)._replace(entries=entries))
        return b""

    def _set_vring_addr(self, message: Message) -> bytes:
        index, _flags, descriptors, used, available, _log = RING_PLACE.unpack(message.payload)
        self._check_index(message, index)
        ring = self._state.ring(index)
        placed = ring._replace(descriptors=descriptors, used=used, available=available)
        self._state.change_ring(index, placed)
        return b""

    def _set_vring_base(self, message: Message) -> bytes:
        index, base = self._ring_state(message)
        if base > 0xFFFF:
            raise senseless(message.request, f"index {base}")
        self._state.move_ring(index, base)
        return b""

    def _get_vring_base(self, message: Message) -> bytes:
        index, _ = self._ring_state(message)
        self._state.stop_ring(index)
        return RING_STATE.pack(index, self._state.ring(index).base)

    def _set_vring_kick(self, message: Message) -> bytes:
        index, descriptor = self._ring_end(message)
        if descriptor < 0:
            raise senseless(message.request, "no descriptor, which asks for polling")
        self._state.stop_ring(index)
        if not self._state.ring(index).entries:
            raise senseless(message.request, "the ring has no size yet")
        try:
            self._state.start_ring(index, descriptor)
        except PeerError as error:
            raise senseless(message.request, str(error)) from None
        return b""

    def _set_vring_call(self, message: Message) -> bytes:
        index, descriptor = self._ring_end(message)
        self._state.set_call(index, descriptor)
        return b""

    def _set_vring_err(self, message: Message) -> bytes:
        _, descriptor = self._ring_end(message)
        self._state.release(descriptor)  # an error ends the session, which the front-end notices anyway
        return b""

    def _set_vring_enable(self, message: Message) -> bytes:
        index, enabled = self._ring_state(message)
        if enabled > 1:
            raise senseless(message.request, f"{enabled} is neither 0 nor 1")
        self._state.enable_ring(index, enabled=bool(enabled))
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

    def _add(self, message: Message, region: Region, descriptor: int) -> None:
        try:
            self._state.add_region(region, descriptor)
        except PeerError as error:
            raise senseless(message.request, str(error)) from None
        except LocalError:
            self._state.release(descriptor)
            raise


def _region(numbers: tuple[int, ...]) -> Region:
    guest, size, front_end, offset = numbers
    return Region(guest, size, front_end, offset)
