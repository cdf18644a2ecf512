"""Stub of what ``engine/`` has: the forwarding engine of one port.

Descriptors given to it are borrowed unless said otherwise: memory is mapped at once, and the caller may close
them afterwards. The VM's descriptor and the doorbells must stay open as long as the engine.
"""

from typing import Final

EVENT_CONTROL: Final[int]
"""A watched control descriptor is readable (or a signal arrived)."""
EVENT_LINK_DOWN: Final[int]
"""The VM's link is finished; ``Engine.link_error`` says why. Nothing is read or written any more."""
EVENT_WANTED: Final[int]
"""``Engine.wanted()`` has ports to which a ring is needed."""
EVENT_UNFINISHED: Final[int]
EVENT_GUARDED: Final[int]
"""``Engine.unfinished`` has changed."""

class Engine:
    """Forwarding engine of one port: sole user of the VM's descriptor."""

    link_error: str
    unfinished: bool
    """Whether the VM leaves checksums undone, although ``infer`` was not called."""

    def __init__(
        self,
        *,
        port: int,
        epoch: int,
        kind: str,
        vm: int,
        doorbell: int,
        flood_doorbell: int,
        stats: int,
        flood: int,
        waiter: int = -1,
    ) -> None:
        """``kind``: "stream", "stream16", "seqpacket", "dgram", "tap" or "vhost".

        On streams each frame follows its length: in 32 bits, big-endian, or in 16 bits, little-endian.
        ``waiter``: of ``waiter_create``, now the engine's; -1: the engine makes one.
        """

    def watch(self, fd: int) -> None:
        """Make ``run`` return EVENT_CONTROL when ``fd`` is readable (level triggered)."""

    def unwatch(self, fd: int) -> None: ...
    def run(self, timeout: float) -> int:
        """Forward for at most ``timeout`` seconds, GIL released, or until an event. Returns EVENT_* bits."""

    def pulse(self, interval: float) -> None:
        """Publish to the statistics page every ``interval`` seconds even if nothing happens; at first 1.0."""

    def capture(self, number: int, fd: int, program: bytes, snap: int, /) -> None:
        """Copy every frame to a capture ring of this port and epoch, until ``end_capture`` of ``number``.

        A capture that has this number ends. ``program``: classic BPF (``struct bpf_insn``) that chooses
        frames; empty: all. ``snap``: most bytes kept of one. Raises OSError (EINVAL: the program is none).
        """

    def end_capture(self, number: int, /) -> None:
        """Copy no more for that number; one that there is not is ignored."""

    def end_captures(self) -> None: ...
    def hold(self, held: bool) -> None:
        """Leave the VM unread and unwatched; False: go on, as a new engine does."""

    def wanted(self) -> list[int]:
        """Ports that frames were addressed to and that have no ring yet; each is returned once."""

    def peer_join(self, port: int, epoch: int, attachment: int) -> None:
        """Port ``port`` exists (again) under ``epoch``; an older epoch's rings are detached.

        ``attachment``: the epoch of the port's first worker, which distinguishes one VM from the next with
        the same number.
        """

    def peer_leave(self, port: int) -> None: ...
    def attach_flood(self, port: int, epoch: int, fd: int, *, from_start: bool) -> None:
        """Read the flood ring of ``port``: from its start, or from now on.

        An engine that follows another one of its port within seconds reads on from where that has stopped.
        An earlier ring of that port is read to its end first, as far as the VM accepts its frames.
        """

    def move_floods(self, fd: int) -> None:
        """Write the VM's floods to this ring from now on. Raises OSError; the old ring stays then."""

    def floods_are_over(self, port: int) -> bool:
        """Whether ``port`` has moved to another flood ring and the one here was read to its end."""

    def attach_tx(self, port: int, epoch: int, ring: int, tail: int, doorbell: int) -> None:
        """The ring towards ``port``. Takes ownership of ``doorbell``."""

    def attach_rx(self, port: int, epoch: int, ring: int, tail: int) -> None: ...
    def pin(self, port: int, macs: list[bytes]) -> None:
        """Pin exactly these addresses to ``port``; for the own port, other sources are spoofed then."""

    def set_guard(self, enabled: bool) -> None:
        """Whether to drop messages of the VM that only the gateway or another VM may send (``guard.h``)."""

    def limit_questions(self, gateway: bytes) -> None:
        """Limit the names, leases and connections that the VM asks of the gateway with this MAC address.

        Empty: no limit. The limits are in ``asking.h``; more is dropped and counted as ``over_rate``.
        Raises ValueError for another length.
        """

    def limit_sources(self) -> None:
        """Bound the IP addresses from which each port is heard here: this is the gateway's port.

        The bounds are in ``sources.h``; frames from more are dropped and counted as ``sources``. For a VM
        that takes messages. Raises MemoryError.
        """

    def set_owners(self, owners: list[tuple[bytes, int]]) -> None:
        """The port of each address; any port may use other addresses.

        An address has 16 bytes; IPv4 is ``::ffff:a.b.c.d``.
        """

    def guarded(self) -> list[tuple[str, bytes, bytes]]:
        """First refusals of the guard: kind, source MAC, claimed address (zero: none).

        The kinds: group, pause, router, server, address, hidden, sources. Call it when ``run`` returns
        EVENT_GUARDED.
        """

    def set_limits(self, *, broadcast: int, multicast: int, unknown: int, bytes: int, macs: int) -> None:
        """Bound what the VM may send; 0: no bound.

        Broadcast, multicast and unknown unicast in frames a second (more is dropped, counted as ``storm``),
        ``bytes`` of frames a second (a faster VM is read later, nothing is dropped), addresses behind it.
        """

    def set_reach(self, port: int, allowed: bool) -> bool:
        """Whether frames pass between this port and that one; true for a port that joins.

        A port out of reach has no ring to or from this one, and none is accepted. Returns whether this has
        changed.
        """

    def idle_rings(self) -> list[int]:
        """Ports whose ring from here is empty and was not written to since the last call."""

    def detach_tx(self, port: int) -> bool:
        """Unmap the ring towards ``port`` if it is empty; return whether it was."""

    def detach_rx(self, port: int) -> None:
        """Unmap the ring from ``port``, which its producer has given up."""

    def set_flood_unknown(self, enabled: bool) -> None:
        """Whether unknown unicast is delivered to this port's VM."""

    def give_up_ring(self, port: int) -> None:
        """There is no ring to ``port`` for now: flood the frames that wait for it, until ``attach_tx``."""

    def infer(self, mtu: int) -> None:
        """The VM, on a socket, leaves checksums and segments undone; its packets have ``mtu`` bytes at most.

        The missing ``virtio_net_hdr`` of its frames is made here. 0, the default: its frames are finished.
        """

    def limit(self, longest: int) -> None:
        """Send the VM no longer frame, whatever it accepts; at first MAX_FRAME."""

    def take(self, takes: int, longest: int) -> None:
        """Set the offloads that the VM accepts; other workers see them with their next frame for it.

        ``takes``: TAKES_* bits; ``longest``: bytes of the longest frame of one segment. A frame under way
        that needs more is refused on arrival and counted. At first a TAP accepts everything but TAKES_LARGE,
        and any other VM plain frames of any length.
        """

    def age(self, now: int) -> None:
        """Coarse monotonic clock in seconds, for the ageing of the MAC table; call it every few seconds."""

    def progress(self) -> tuple[int, int]:
        """(bytes written to the VM so far, bytes waiting for the VM)."""

    def vhost_add_region(self, guest: int, size: int, front_end: int, offset: int, fd: int) -> None:
        """Map ``size`` bytes of the guest's memory from ``offset`` in the file ``fd``, closed by the caller.

        ``guest``, ``front_end``: the region's addresses there. This and the following methods are for kind
        "vhost" only. Raises ValueError for senseless values, OSError (ENOSPC: too many regions; or mmap's).
        """

    def vhost_remove_region(self, guest: int, size: int, front_end: int) -> None:
        """Unmap a region, if it exists; a queue in it stops."""

    def vhost_set_features(self, features: int) -> None:
        """Set the features that the driver has accepted, ``VIRTIO_*`` as bits."""

    def vhost_start_queue(
        self,
        *,
        which: int,
        entries: int,
        index: int,
        descriptors: int,
        available: int,
        used: int,
        kick: int,
        call: int,
        resumed: bool,
    ) -> None:
        """Use queue 0 (to the guest) or 1 (from it), at the front-end's addresses, beginning at ``index``.

        ``resumed``: begin where the last worker stopped instead. The engine waits for ``kick`` and writes to
        ``call`` (-1: none); both must stay open. Raises OSError (EFAULT: not in the guest's memory; EPERM: no
        kick).
        """

    def vhost_stop_queue(self, which: int) -> int:
        """Stop a queue; return the index at which it would go on."""

    def vhost_enable_queue(self, which: int, enabled: bool) -> None: ...
    def vhost_set_call(self, which: int, call: int) -> None: ...
    def vhost_note(self, number: int) -> None:
        """Note the number of the stored session state, for the next worker."""

    def vhost_answer(self, fd: int, digest: int, reply: bytes) -> int:
        """Note that the message with this digest is answered, and send the answer; return the bytes sent.

        Raises OSError.
        """

    def vhost_take_out(self, fd: int, size: int) -> int:
        """Remove an answered message of ``size`` bytes from the socket."""

    def vhost_noted(self) -> tuple[int, int]:
        """Return the last noted number and digest, by this or an earlier worker."""

    def close(self) -> None: ...
