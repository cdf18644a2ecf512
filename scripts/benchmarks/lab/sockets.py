"""Ways from one VM's socket to another's, all started and plugged into alike.

``Bulkhead`` is a real ``supervisor run``. ``Relay`` is what the kernel's sockets allow for one hop
(load/relay.c); ``Direct`` has nothing in between, which shows what the load generator itself can do. Other
people's switches are in ``switches``.
"""

from __future__ import annotations

import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any

from scripts.benchmarks.lab import generator
from scripts.benchmarks.lab.generator import Pair
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, MessageVM, StreamVM, build_frame, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

KINDS = {"stream": "unix", "seqpacket": "unixpacket", "dgram": "unixgram"}
# The switch's socket buffers, set for all contenders.
SEND_BUFFER = 1 << 20
RECEIVE_BUFFER = 4 << 20
MEET_PATIENCE = 20.0
ATTACH_PATIENCE, ATTACHES_S = 20.0, 0.3
"""At least, and for each VM: a worker is born in some tens of milliseconds on a core of its own."""


class Contender(ABC):
    """A way between VMs of one kind of socket; a context. VMs have the addresses ``mac(1)`` and up."""

    name: str
    kind: str
    vms: list[FakeVM]
    most_in_flight: int | None = None
    """Frames of a flow beyond which it drops for lack of room, if that is known."""

    def __init__(self) -> None:
        self.vms = []
        self.stack = contextlib.ExitStack()

    def __enter__(self: Any) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    @property
    def wire(self) -> str:
        """How the load generator speaks to its VMs."""
        return self.kind

    def start(self, kind: str, count: int, largest: int) -> list[FakeVM]:
        """Start it with ``count`` VMs plugged in, that send frames of at most ``largest`` bytes.

        Every VM has made itself known to all that learn. Raises MissingError if it cannot be had here.
        """
        self.kind = kind
        self._start(count, largest)
        return self.vms

    @abstractmethod
    def _start(self, count: int, largest: int) -> None:
        """Start, and fill ``vms``."""

    def forwarders(self) -> list[int]:
        """Return the pids of the processes that handle the first two VMs' frames."""
        return []

    def pair(self, one: int, other: int) -> Pair:
        """Return two VMs, for the load generator."""
        return Pair(self.vms[one - 1], self.vms[other - 1], mac(one).hex(":"), mac(other).hex(":"))

    def announce(self) -> None:
        """Let every VM broadcast its address."""
        for number, vm in enumerate(self.vms, 1):
            vm.send(build_frame(BROADCAST, mac(number)))

    def meet(self, one: int, other: int) -> None:
        """Exchange frames between two VMs (numbered from 1) until each gets the other's at the first try.

        So the path is known, everything that first use makes is made, and no old frame is on its way.
        """
        wait_for(
            lambda: all(
                self._exchange(*way, attempt) for attempt in range(3) for way in ((one, other), (other, one))
            ),
            f"{self.name} to forward between two VMs",
            MEET_PATIENCE,
        )

    def _exchange(self, sender: int, receiver: int, seed: int) -> bool:
        wanted = build_frame(mac(receiver), mac(sender), seed=seed)
        self.vms[sender - 1].send(wanted)
        try:
            self.vms[receiver - 1].receive_matching(lambda frame: frame == wanted, 0.5)
        except TimeoutError:
            return False
        return True


class Direct(Contender):
    """Nothing in between: each VM has one end of a socket pair."""

    name = "no switch"

    def _start(self, count: int, largest: int) -> None:
        assert count == 2
        self.vms = [wrap(self.kind, end) for end in self._pair()]

    def _pair(self) -> tuple[socket.socket, socket.socket]:
        kinds = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "dgram": socket.SOCK_DGRAM}
        pair = socket.socketpair(socket.AF_UNIX, kinds[self.kind])
        for end in pair:
            self.stack.enter_context(end)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return pair


class Relay(Direct):
    """One process that only copies."""

    name = "bare relay"
    _pid = 0

    def _start(self, count: int, largest: int) -> None:
        assert count == 2
        (one, inner), (outer, other) = self._pair(), self._pair()
        self.vms = [wrap(self.kind, one), wrap(self.kind, other)]
        ends = [MessageVM(inner), MessageVM(outer)]
        words = (self.kind, largest, inner.fileno(), outer.fileno())
        self._pid = self.stack.enter_context(generator.running("relay", words, ends)).pid

    def forwarders(self) -> list[int]:
        """Return the relay's pid."""
        return [self._pid]


class Bulkhead(Contender):
    """The switch, started as a user starts it."""

    name = "bulkhead"
    switch: Switch
    flags: list[str]
    """The options of the switch, for another start."""

    def _start(self, count: int, largest: int) -> None:
        self.listen(self.kind, count)
        for number in range(1, count + 1):
            self.plug(number)
        self.announce()  # a datagram VM is not seen before it has said something
        patience = ATTACH_PATIENCE + ATTACHES_S * count
        self.switch.wait_live(count, patience)
        self.announce()
        wait_for(lambda: len(self.ports()) == count, f"{count} learned addresses", patience)

    def listen(self, kind: str, count: int) -> None:
        """Start it with room for ``count`` VMs of a kind and none plugged in."""
        self.kind = kind
        directory = self.stack.enter_context(short_directory())
        self.switch = Switch(directory)
        self.stack.push(end_of(self.switch))
        self.flags = self.switch.arguments(
            qemu=kind == "stream",
            bess=kind == "seqpacket",
            vfkit=count if kind == "dgram" else 0,
            vhost=kind == "vhost",
        )
        self.switch.start(*self.flags)

    def plug(self, number: int) -> FakeVM:
        """Connect one more VM."""
        vm = self.switch.connect(KINDS[self.kind], f"vm{number}", number)
        self.stack.callback(vm.close)
        self.vms.append(vm)
        return vm

    def ports(self) -> dict[int, int]:
        """Return the port of each VM, by number, as the switch has learned them."""
        rows = self.switch.json("macs")["macs"]
        known = {row["mac"]: row["port"] for row in rows}
        texts = {number: mac(number).hex(":") for number in range(1, len(self.vms) + 1)}
        return {number: known[text] for number, text in texts.items() if text in known}

    def workers(self, *numbers: int) -> list[int]:
        """Return the pids of the workers of these VMs."""
        by_port = {port["port"]: port["worker"]["pid"] for port in self.switch.ports()}
        ports = self.ports()
        return [by_port[ports[number]] for number in numbers]

    def forwarders(self) -> list[int]:
        """Return the pids of the first two VMs' workers."""
        return self.workers(1, 2)


def end_of(switch: Switch) -> Callable[..., None]:
    """Return what ends a switch at a context's end: in good order, or, if something is wrong, at once.

    A person's Ctrl-C reaches the switch, too, which then cannot be asked to stop any more.
    """

    def end(kind: type[BaseException] | None, *_: object) -> None:
        process = switch.process
        if process is None or process.returncode is not None:  # did not get ready, and was killed for it
            return
        try:
            if kind is None:
                switch.stop()
        finally:
            switch.kill()

    return end


def wrap(kind: str, sock: socket.socket) -> FakeVM:
    """Return a VM at a connected socket."""
    return StreamVM(sock) if kind == "stream" else MessageVM(sock)
