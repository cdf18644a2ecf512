"""All that VMs can attach to: opened, closed and found by URL, and told what becomes of their VMs.

A listener of many VMs knows nothing of their ports. Others, and TAP devices, have one port at a time, which
``released`` and ``disconnect`` find by its number and first epoch. What workers bring back after the
supervisor was replaced is kept as if it had been opened, and opening the same URL then only sets its
settings: a listener must not bind over a socket that a VM is connected to.
"""

import os
import socket
from collections.abc import Iterator

from forwarder import unix_sockets
from forwarder.acceptor import Pauses
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import PortRecord, format_mac
from supervisor.attach.addresses import Attachment, Listen, PortOptions, Tap
from supervisor.attach.connect import ConnectListener
from supervisor.attach.datagram import PROBE_S, VfkitListener
from supervisor.attach.listener_common import VmHandler, check_room
from supervisor.attach.stream import StreamListener
from supervisor.attach.tap import TapDevice, matches
from supervisor.base.logs import log

Listener = StreamListener | VfkitListener | TapDevice

TOGETHER_S = 0.1
"""Probes that are due within this are made when the loop is awake anyway."""


class Listeners:
    """The listeners and TAP devices of one switch."""

    def __init__(self, loop: Loop, pauses: Pauses, owner: VmHandler) -> None:
        self._loop = loop
        self._pauses = pauses
        self._owner = owner
        self._open: list[Listener] = []
        self._ports: set[tuple[int, int]] = set()
        """Number and first epoch of every port that there is."""
        self._probe_at = float("inf")

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._open)

    def open(self, attachment: Attachment) -> str:
        """Open one; return its URL as it turned out. Raises LocalError."""
        address, settings = attachment
        known = self._find_adopted(attachment)
        port = None if known is None else known.record
        self.check_pins(settings.policy.pinned, url=address.url, port=port)
        if known is not None:
            known.settings = settings
            known.url = address.url
            return known.url
        if any(each.url == address.url for each in self._open):
            raise LocalError(f"{address.url} is attached already")
        made: Listener
        if isinstance(address, Tap):
            made = TapDevice(address, settings, self)
        elif address.transport == "vfkit":
            made = VfkitListener(self._loop, address, settings, self)
        elif address.transport == "connect":
            made = ConnectListener(self._loop, self._pauses, address, settings, self)
        else:
            made = StreamListener(self._loop, self._pauses, address, settings, self)
        self._open.append(made)
        return made.url

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        """Pass a VM on, if there is room for another one. Raises LocalError."""
        check_room(len(self._ports), sum(each.descriptors for each in self._open))
        record = self._owner.arrive(transport, vm, settings, url)
        self._ports.add((record.port, record.born))
        return record

    def gone(self, record: PortRecord, reason: str) -> None:
        """Pass on that a VM has gone."""
        self._owner.gone(record, reason)

    def close(self, url: str) -> PortRecord | None:
        """Close one; return the port that cannot be without it, if there is one. Raises LocalError."""
        for each in self._open:
            if each.url == url:
                self._open.remove(each)
                each.close()
                return None if isinstance(each, StreamListener) else each.record
        raise LocalError(f"nothing is attached as {url}; `supervisor status` lists what is")

    def close_all(self) -> None:
        """Close every one; ports are not touched."""
        for each in self._open:
            each.close()
        self._open.clear()

    def adopt(self, record: PortRecord, vm: int) -> None:
        """Note the port that a worker brought; for a vfkit VM its descriptor *is* the listening socket."""
        self._ports.add((record.port, record.born))
        if record.transport == "tap":
            self._open.append(TapDevice.adopted(record))
        elif record.transport == "vfkit":
            sock = socket.socket(fileno=os.dup(vm))
            path = sock.getsockname()
            if not isinstance(path, str) or unix_sockets.SocketFile.at(path).identity is None:
                log.warning("port %d (%s): its socket %r is gone", record.port, record.name, path)
                sock.close()
                return
            address = Listen("vfkit", f"unixgram://{path}", path)
            settings = PortOptions(None, record.policy)
            self._open.append(VfkitListener(self._loop, address, settings, self, (record, sock)))

    def check_pins(self, pinned: tuple[bytes, ...], *, url: str = "", port: PortRecord | None = None) -> None:
        """Raise LocalError if an address is kept for a listener other than that of ``url`` or ``port``."""
        for each in self._open:
            own = each.url == url or (port is not None and _is(each.record, port))
            for mac in () if own else set(each.settings.policy.pinned).intersection(pinned):
                raise LocalError(f"{format_mac(mac)} is pinned to {each.url} already; pin it to one of them")

    def disconnect(self, record: PortRecord) -> None:
        """Prepare for a port to be released although its VM lives."""
        for each in self._open:
            if isinstance(each, VfkitListener) and _is(each.record, record):
                each.disconnect()

    def released(self, record: PortRecord) -> None:
        """Note that a port, and its worker, are gone."""
        self._ports.discard((record.port, record.born))
        for each in list(self._open):
            if _is(each.record, record):
                if isinstance(each, TapDevice):
                    self._open.remove(each)
                else:
                    each.released()

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self.deadline() - TOGETHER_S:
            return
        self._probe_at = float("inf")
        for each in self._open:
            if isinstance(each, (VfkitListener, ConnectListener)):
                each.tick(now)
            if isinstance(each, VfkitListener) and each.record is not None:
                self._probe_at = now + PROBE_S

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        waiting = [each for each in self._open if isinstance(each, (VfkitListener, ConnectListener))]
        probed = [each for each in waiting if isinstance(each, VfkitListener) and each.record is not None]
        if self._probe_at == float("inf") and probed:
            return 0.0
        return min([self._probe_at, *(each.deadline() for each in waiting)])

    def _find_adopted(self, attachment: Attachment) -> VfkitListener | TapDevice | None:
        for each in self._open:
            if isinstance(each, TapDevice) and matches(attachment, each.record):
                return each
            if (
                isinstance(each, VfkitListener)
                and each.url == attachment.address.url
                and each.record is not None
            ):
                return each
        return None


def _is(one: PortRecord | None, other: PortRecord) -> bool:
    return one is not None and (one.port, one.born) == (other.port, other.born)
