"""The compiled core: shared-memory rings, MAC table, counters and the forwarding engine of one port.

Descriptors returned by the ``*_create`` functions belong to the caller. Descriptors given to
``Engine`` and ``StatsPage`` are borrowed unless said otherwise: memory is mapped at once, and the caller
may close them afterwards; the VM's descriptor and the doorbells must stay open as long as the engine.
"""

from collections.abc import Sequence
from typing import Final

LAYOUT: Final[int]
"""Version of every shared-memory layout; two processes must agree on it before they share a ring."""
COUNTERS: Final[tuple[str, ...]]
"""The names of a port's counters, in the order of ``StatsPage.snapshot``."""
MAX_PORTS: Final[int]
"""Port numbers run from 1 to MAX_PORTS - 1."""
MIN_FRAME: Final[int]
MAX_FRAME: Final[int]
"""Frame lengths in bytes, Ethernet header included, FCS excluded."""

LARGEST_FRAME: Final[int]
"""Bytes of the longest frame that a VM with ``receive=large`` takes."""
LINK_BYTES: Final[int]
"""Bytes of headers in front of an IP packet, in the longest frame that a VM takes."""
TAKES_SUM: Final[int]
"""Bits of unfinished work that a VM accepts: a partial checksum (and its header), frames to be segmented."""
TAKES_TSO4: Final[int]
TAKES_TSO6: Final[int]
TAKES_ECN: Final[int]
TAKES_USO4: Final[int]
TAKES_USO6: Final[int]
TAKES_LARGE: Final[int]
"""The VM accepts finished frames of many segments, without a header."""

EVENT_CONTROL: Final[int]
"""A watched control descriptor is readable (or a signal arrived)."""
EVENT_LINK_DOWN: Final[int]
"""The VM's link is finished; ``Engine.link_error`` says why. Nothing is read or written any more."""
EVENT_WANTED: Final[int]
"""``Engine.wanted()`` has ports to which a ring is needed."""
EVENT_UNFINISHED: Final[int]
EVENT_GUARDED: Final[int]
"""``Engine.unfinished`` has changed."""

def doorbell_create() -> int:
    """A new bell: an eventfd that is always readable, to be waited for edge-triggered."""

def waiter_create() -> int:
    """What an engine sleeps on: an epoll instance."""

def ring_create(size: int, src_port: int, src_epoch: int, dst_port: int, dst_epoch: int) -> tuple[int, int]:
    """A new unicast ring, two sealed memfds: what its producer writes, and its consumer's tail.

    ``size``: data bytes, a power of two. The producer maps its memory for writing; after that no process can.
    """

def flood_create(size: int, port: int, epoch: int) -> int:
    """A new flood ring as a sealed memfd; its writer maps it first, all later processes may only read."""

def capture_create(size: int, port: int, epoch: int) -> int:
    """A new capture ring as a sealed memfd: a worker's copies of frames, and its reader's cursor."""

def stats_page_create() -> int:
    """A new statistics page of a port (counters and MAC table) as a sealed memfd."""

def tap_open(name: str, netns: int = -1) -> tuple[int, str]:
    """Open (make) TAP device ``name``, up, in the network namespace of descriptor ``netns`` if >= 0.

    Its frames are behind a ``virtio_net_hdr`` of 10 bytes each, little-endian, with offloads as far as the
    kernel has them. Returns the non-blocking descriptor and the kernel's name for it. Raises OSError.
    """

def finish_offload(data: bytes) -> list[bytes]:
    """Finish a frame as its ``virtio_net_hdr`` asks: return the frames to send instead, in order.

    Raises ValueError if the header makes no sense.
    """

def shorten_offload(data: bytes) -> bytes:
    """Remove the last segment of a frame behind its ``virtio_net_hdr``; empty if it has fewer than two."""

def infer_offload(frame: bytes, mtu: int) -> bytes:
    """The ``virtio_net_hdr`` for a frame that came without one: its checksums and length show what is undone.

    ``mtu``: bytes of the longest IP packet that is not to be cut.
    """

def flow_of(frame: bytes) -> int:
    """The label, 16 bits, of the flow that a frame belongs to."""

CELL_PARTS: Final[tuple[str, ...]]
"""Names of all parts of a cell."""

def cell_restrict(kind: str, readable: Sequence[str] = ..., /) -> tuple[list[str], int]:
    """Give up for good what the process does not need: the parts of its cell that precede its other threads.

    ``kind``: ``worker``, ``gateway``, ``namespace`` or ``web``. ``readable``: paths, 64 at most, below which
    it may read and execute files.

    Returns the names of the parts in force, and Landlock's ABI (0: none). Raises nothing: a part that the
    kernel lacks is left out.
    """

def cell_filter(kind: str, /) -> list[str]:
    """Enter the last parts, for all threads: limits, and the filter of calls. Returns those in force."""

def cell_refused() -> tuple[int, int]:
    """How many system calls of this thread the filter has refused, and the number of the last (-1: none)."""

def fork_sibling() -> int:
    """Fork a process that is a child of our parent. Returns its number, and 0 in it.

    Raises OSError: out of processes or memory. Only for a process with one thread.
    """

def end_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent has ended."""

class EarlyDrop:
    """Early drop at one ring, by itself."""

    def __init__(self) -> None: ...
    def put(self, flow: int, size: int, half_full: bool) -> bool:
        """Put ``size`` bytes of a flow into a ring, half full or not; False if they are dropped."""

class StatsPage:
    """Read-only view of a port's stats page: the state that its worker published last."""

    def __init__(self, fd: int) -> None: ...
    def counters(self) -> dict[str, int]:
        """All counters by name, since the page was made (they outlive a worker)."""

    def at_boundary(self) -> bool:
        """Whether a stream's worker, if it is dead now, died at the end of a record in both directions.

        Only then can another worker go on with the stream.
        """

    def memory_gone(self) -> bool:
        """Whether a guest that shared its memory took it away, which ended the port's worker."""

    def published_at(self) -> float:
        """When the page's worker last published, in monotonic seconds; 0.0 if never.

        What is read afterwards is of that time or later.
        """

    def losses(self) -> list[tuple[int, int, int, int]]:
        """(peer port, its attachment, frames lost towards it, its floods lost here), non-zero rows only."""

    def sent(self) -> list[tuple[int, int]]:
        """(peer port, bytes of frames for it alone, those lost on the way included), non-zero rows only."""

    def dealings(self) -> list[tuple[int, int, int, float, int, float]]:
        """(peer port, its attachment, frames sent to it, when the last, bytes of the longest, when data).

        Without zeros. Times are monotonic seconds. The longest is of the frames that began a run. Data are
        frames other than ARP and neighbour discovery; 0.0: none.
        """

    def questions(self) -> list[tuple[bytes, bytes, float, float, int, int]]:
        """(sender, target, first, last, times, VLAN) of flooded ARP requests and neighbour solicitations.

        Answers, and questions to one port alone, are rows without a target: the sender says its address.
        Addresses have 16 bytes, IPv4 as ::ffff:a.b.c.d, zeros where nothing was said; times are monotonic
        seconds. Questions within five seconds of each other are one series, from ``first`` to ``last``. The
        VLAN is 0 without a tag.
        """

    def snapshot(self) -> bytes:
        """All counters in the order of ``COUNTERS``, 8 bytes each, in the machine's own byte order."""

    def macs(self, port: int) -> list[tuple[bytes, int, bool]]:
        """MAC addresses of ``port`` in the page's table: (address, seconds since seen, pinned).

        For the page's own port, these are the addresses behind its VM.
        """

    def port_of(self, mac: bytes) -> tuple[int, int]:
        """The port from which the page's worker last took a frame of ``mac`` (6 bytes), and its attachment.

        The port is 0 if it is unknown. The attachment is the epoch of the port's first worker.
        """

class Splices:
    """Connections of two sockets each, from the dial to the end (relay/splices.h, relay/dials.h).

    Its sockets do not block and belong to it. Addresses have 4 or 16 bytes.
    """

    def __init__(self) -> None: ...
    def watch(self, fd: int, bit: int, /) -> None:
        """Have ``wait`` return when the caller's descriptor is readable. Raises OSError."""

    def wait(self, until: float, /) -> tuple[int, list[tuple[int, int, int]]]:
        """Move what can be moved until something is to be told, or until then (monotonic, in seconds).

        Return the bits of the caller's readable descriptors, and what has become of connections: (number, one
        of SPLICE_ANSWERED, _JOINED, _FAILED, _OVER, _LINGERS, errno or 0). End one that has failed; one that
        lingers has an end that has failed: ask ``settle``; one that is over is forgotten.
        """

    def begin(self, near: int, is_unix: bool, /) -> int:
        """Begin a connection with this near end, or with none (-1); its number.

        Raises OSError, or ValueError after ``close``; the near end is closed then.
        """

    def connect(
        self, number: int, far: int, address: bytes, port: int, is_here: bool, options: bytes, /
    ) -> int:
        """Dial the far end, from a socket of the caller's or a new one (-1).

        0: it has answered; EINPROGRESS: a report will say; else why it failed. ``options`` are packed as
        ``forwarder.tcp_options`` does; ``is_here``: the address is this host's.
        """

    def join(self, number: int, near: int, /) -> None:
        """Give an answered connection its near end. Raises OSError: end it."""

    def accept(self, listener: int, with_own: bool, /) -> list[tuple[int, bytes, bytes]]:
        """Accept some clients: descriptor, the peer's address and port, and the own ones if asked for.

        Each is an address followed by 2 bytes of port, or empty (a unix socket). Raises OSError: none, for
        lack of descriptors or memory.
        """

    def sockets(self, number: int, /) -> tuple[int, int]:
        """The descriptors of both ends, which stay the connection's; -1: none."""

    def settle(self, number: int, /) -> int:
        """The errno to end a connection with whose end has failed; -1: the other has bytes to take."""

    def end(self, number: int, is_reset: bool, /) -> None:
        """End a connection and close its sockets; one that is over is ignored."""

    def lent(self) -> int:
        """How many pipes have bytes in them."""

    def close(self) -> None:
        """Reset all connections and close the pipes."""

SPLICE_PIPE_BYTES: Final[int]
"""What a direction moves at once."""
SPLICE_KEPT_PIPES: Final[int]
"""Empty pipes that are kept for the next connections."""
SPLICE_COPIED: Final[int]
"""Most bytes of a message that is copied instead of spliced."""
SPLICE_BULKY: Final[int]
"""Connections with more that a turn moves with their events, and again from its queue."""
SPLICE_ANSWERED: Final[int]
SPLICE_JOINED: Final[int]
SPLICE_FAILED: Final[int]
SPLICE_OVER: Final[int]
SPLICE_LINGERS: Final[int]

class Datagrams:
    """Carry the relay's datagrams in batches, along ways that the relay has decided (relay/datagrams.h).

    Descriptors are borrowed. A socket is known from ``open`` to ``forget``, which makes all its ways void. A
    way lives for 10 seconds. Addresses have 4 or 16 bytes.
    """

    def __init__(self, network: bytes, mask: bytes, prefix: bytes, /) -> None:
        """``network`` and ``mask``: the LAN's IPv4 addresses; ``prefix``: 8 bytes of its IPv6 addresses."""

    def speak_by(self, tun: int, mtu: int, /) -> None:
        """Write datagrams for guests to this TUN device; ``mtu`` is the LAN's."""

    def open(self, fd: int, /) -> None:
        """Know a new socket; ways of an earlier socket with this number are void."""

    def forget(self, fd: int, /) -> None:
        """Carry no more datagrams from and to this socket."""

    def used(self, fd: int, /) -> float:
        """Return the monotonic time of the last datagram that the core sent by a socket; 0.0: none."""

    def from_guest(
        self,
        mac: bytes,
        source: bytes,
        destination: bytes,
        port: int,
        hops: int,
        keep: bool,
        fd: int,
        target: bytes,
        /,
    ) -> None:
        """Enter a way: send such datagrams of a guest through ``fd`` to ``target``, and keep their port."""

    def to_guest(self, fd: int, peer: bytes, asked: bytes, guest: bytes, port: int, /) -> None:
        """Enter a way: write datagrams of ``peer`` at ``fd`` for a guest's port, with source ``asked``."""

    def to_socket(
        self,
        fd: int,
        peer: bytes,
        peer_port: int,
        local: bytes,
        out: int,
        target: bytes,
        port: int,
        source: bytes,
        /,
    ) -> None:
        """Enter a way: send datagrams at ``fd`` from a peer to ``local`` (may be empty) through ``out``.

        ``target`` is empty if ``out`` is connected, ``source`` if it has only one address.
        """

    def read_frames(self, fd: int, /) -> tuple[int, int, list[bytes | tuple[bytes, bytes, int, bytes]]]:
        """Read frames of a packet socket; return the numbers of read and of carried frames, and the others.

        Each begins with its virtio_net_hdr. The first segment of a connection is read already: MAC address of
        its source, key (address and port of the source, and of the destination), hops, and the packet with
        its header for a TUN device. Raises BlockingIOError if there is none.
        """

    def read(
        self, fd: int, by_port: bool, /
    ) -> tuple[int, int, list[tuple[bytes, bytes, int, int, bytes, int]]]:
        """Read datagrams of a socket; return the same. ``by_port``: each port of a peer has its own way.

        A datagram is (data, peer, its port, its scope, the local address if the socket tells it, the bytes of
        each datagram in it if it holds several). Raises BlockingIOError if there is none, OSError for an
        error of the socket.
        """

    def shed(self, mac: bytes, kind: int, seconds: float, /) -> None:
        """Only count frames of a kind (SHED_SYN, SHED_FORGED) from ``mac``, for so many seconds."""

    def take_counts(self) -> tuple[int, int, int]:
        """Return the dropped datagrams, shed SYNs and shed forged packets since the last call."""

SHED_SYN: Final[int]
SHED_FORGED: Final[int]

class CaptureReader:
    """The reader of a capture: the frames that one port's worker has copied."""

    def __init__(self, fd: int, port: int, epoch: int, /) -> None: ...
    @property
    def lost(self) -> int:
        """Frames that had no room in the ring, since they came faster than they were read."""

    def read(self) -> list[tuple[int, int, int, str, int, bytes]]:
        """Some new frames: (monotonic ns, way, peer, reason, length of the frame, the kept bytes).

        ``way``: 1 from the VM, 2 to the VM, 3 dropped; then ``reason`` is the drop's counter and ``peer`` the
        port that the frame was for, or 0. A damaged ring yields nothing more.
        """

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

    def progress(self) -> tuple[int, int, int]:
        """(turns done, bytes written to the VM so far, bytes waiting for the VM)."""

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

class Fdb:
    """A MAC table by itself. ``secret`` keys its hash."""

    def __init__(self, secret: int = 0) -> None: ...
    def learn(self, mac: bytes, port: int) -> bool:
        """False: refused (a group address, or pinned to another port)."""

    def pin(self, mac: bytes, port: int) -> bool: ...
    def lookup(self, mac: bytes) -> int:
        """The port, 0 if unknown."""

    def age(self, now: int) -> None: ...
    def forget(self, port: int) -> None: ...
    def count(self, port: int) -> int:
        """Entries of ``port``, including those that have aged out since the last change of generation."""

class RingWriter:
    """Producer's end of a ring."""

    broken: bool

    def __init__(
        self, ring: int, tail: int, src_port: int, src_epoch: int, dst_port: int, dst_epoch: int
    ) -> None: ...
    def put(self, records: bytes, src: bytes, vnet: bool = False) -> int:
        """Append one run of whole records; returns how many of its frames fitted.

        ``vnet``: each frame is behind a ``virtio_net_hdr``.
        """

    def commit(self, records: bytes, src: bytes, vnet: bool = False, gap: int = 0) -> int:
        """The same for records that were read in place, ``gap`` bytes behind the last run."""

    def publish(self) -> bool: ...

class RingReader:
    """Consumer's end of a ring."""

    broken: bool

    def __init__(
        self, ring: int, tail: int, src_port: int, src_epoch: int, dst_port: int, dst_epoch: int
    ) -> None: ...
    vnet: bool
    """Whether the frames of the last run taken have a ``virtio_net_hdr`` in front."""

    def take(self, most: int) -> bytes:
        """Consume at most ``most`` bytes of records, from one run."""

    def unread_frames(self) -> int: ...
