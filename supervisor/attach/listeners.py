"""All listeners and TAP devices of a switch: open, close and find them by URL, and tell them about their VMs.

A stream listener of many VMs does not know their ports. Other listeners, and TAP devices, have one port at a
time and keep its ``PortId``; the registry holds the port.

After the supervisor was replaced, workers bring ports back (``adopt``) before their listeners are open. The
socket of a vfkit VM, or a TAP device, comes with the port and is kept as if it had been opened. Opening the
same URL then only changes the settings, since a listener must not bind over a socket that a VM is connected
to. The socket of a stream listener does not come back. If such a listener pins addresses, it is opened anew
and continues with the adopted port that has one of them: the next VM waits for the end of that port, as
before.

Example: ``--listen-qemu unix:///q --pin 02::1`` had port 4 when the supervisor was killed. The worker brings
port 4 back, the listener is opened and holds. The VM reconnects, which ends port 4, and is then accepted.
"""

import os
import socket
from collections.abc import Iterator

from forwarder.acceptor import Pauses
from forwarder.errors import LocalError
from forwarder.loop import Loop
from forwarder.names import PortId, PortRecord, format_mac
from forwarder.unix_sockets import SocketFile
from supervisor.attach.addresses import Attachment, Listen, PortOptions, Tap, same_place
from supervisor.attach.datagram import PROBE_S, VfkitListener
from supervisor.attach.dial_vhost import VhostDialer
from supervisor.attach.listener_common import VHOST_DESCRIPTORS, VmHandler, check_room
from supervisor.attach.places import Places
from supervisor.attach.stream import StreamListener
from supervisor.attach.tap import TapDevice
from supervisor.base.logs import log
from supervisor.base.saved_state import SavedState

Listener = StreamListener | VfkitListener | VhostDialer | TapDevice

TOGETHER_S = 0.1
"""Probes that are due within this time run when the loop is awake anyway."""


class Listeners:
    """The listeners and TAP devices of one switch."""

    def __init__(self, loop: Loop, pauses: Pauses, owner: VmHandler, saved: SavedState) -> None:
        self._loop = loop
        self._pauses = pauses
        self._owner = owner
        self._places = Places(saved)
        self._saves = False
        self._open: list[Listener] = []
        self._unclaimed: set[PortId] = set()
        """Ports of stream VMs that workers brought back and no listener has continued with yet."""
        self._vhost: set[PortId] = set()
        """Ports whose VM shares its memory."""
        self._probe_at = float("inf")

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._open)

    def open(self, attachment: Attachment) -> str:
        """Open a listener or TAP device; return its real URL. Raises LocalError."""
        url = self._opened(attachment)
        self.save()
        return url

    def _opened(self, attachment: Attachment) -> str:
        address, settings = attachment
        known = self._find_adopted(attachment)
        self.check_pins(settings.policy.pinned, url=address.url, port=None if known is None else known.port)
        if known is not None:
            known.settings = settings
            known.url = address.url
            known.unclaimed = False
            if isinstance(known, TapDevice) and isinstance(address, Tap):
                known.address = address
            return known.url
        for each in self._open:
            if same_place(each.url, address.url):
                raise LocalError(f"{each.url} is attached already")
        made: Listener
        if isinstance(address, Tap):
            made = TapDevice(address, settings, self)
        elif address.transport == "vfkit":
            made = VfkitListener(self._loop, address, settings, self)
        elif address.transport == "dial_vhost":
            made = VhostDialer(address, settings, self)
        else:
            made = _stream_listener(address.transport)(self._loop, self._pauses, address, settings, self)
            port = self._adopted_port(attachment)
            if port is not None:
                self._unclaimed.discard(port)
                made.go_on_with(port)
        self._open.append(made)
        return made.url

    def goes_on_with(self, attachment: Attachment) -> int:
        """Return the number of the adopted port that this attachment would continue with; 0 if none."""
        known = self._find_adopted(attachment)
        port = known.port if known is not None else self._adopted_port(attachment)
        return 0 if port is None else port.port

    def arrive(self, transport: str, vm: int, settings: PortOptions, url: str) -> PortRecord:
        """Pass a VM on, if there is room for it. Raises LocalError."""
        sharing = len(self._vhost) + (transport == "vhost")
        listening = sum(each.descriptors for each in self._open)
        check_room(self._owner.port_count(), listening + sharing * VHOST_DESCRIPTORS)
        record = self._owner.arrive(transport, vm, settings, url)
        self._note(record)
        return record

    def gone(self, port: PortId, reason: str) -> None:
        """Pass on that a VM has gone."""
        self._owner.gone(port, reason)

    def current(self, port: PortId) -> PortRecord | None:
        """Pass on what a port is now."""
        return self._owner.current(port)

    def port_count(self) -> int:
        """Pass on how many ports there are."""
        return self._owner.port_count()

    def save(self) -> None:
        """Save devices and socket files from now on, for the next supervisor.

        What the one before has saved is needed until all workers have brought their ports.
        """
        self._saves = True
        self._save_changes()

    def close(self, url: str) -> PortId | None:
        """Close a listener or TAP device, by URL or path; return the port that ends with it, if any.

        Raises LocalError.
        """
        each = self.find(url)
        if each is None:
            raise LocalError(f"nothing is attached as {url}; `supervisor status` lists the listeners")
        self._open.remove(each)
        each.close()
        self._save_changes()
        return None if isinstance(each, StreamListener) else each.port

    def find(self, target: str) -> Listener | None:
        """Return the listener with this URL, path, or name of its ports; None if there is none."""
        for each in self._open:
            if target in (each.url, each.url.partition("://")[2], each.settings.name):
                return each
        return None

    def close_all(self) -> None:
        """Close all; ports are not touched."""
        for each in self._open:
            each.close()
        self._open.clear()

    def adopt(self, record: PortRecord, vm: int) -> None:
        """Note a port that a worker brought; a vfkit VM's descriptor *is* the listening socket."""
        self._note(record)
        if record.transport == "tap":
            self._open.append(TapDevice.adopted(record, self._places.tap(record.id)))
        elif record.transport == "vhost":
            self._adopt_vhost(record, vm)
        elif record.transport == "vfkit":
            sock = socket.socket(fileno=os.dup(vm))
            path = sock.getsockname()
            if not isinstance(path, str) or SocketFile.at(path).identity is None:
                log.warning("port %d (%s): its socket %r is gone", record.port, record.name, path)
                sock.close()
                return
            address = Listen("vfkit", f"unixgram://{path}", path)
            settings = PortOptions(None, record.policy)
            file = self._places.file(path) or SocketFile.at(path)
            self._open.append(VfkitListener(self._loop, address, settings, self, (record.id, sock, file)))
        elif not record.is_gateway:
            self._unclaimed.add(record.id)

    def _adopt_vhost(self, record: PortRecord, vm: int) -> None:
        """Note the path of a dialled port: it is the peer address of the connection."""
        sock = socket.socket(fileno=os.dup(vm))
        try:
            path = sock.getpeername()
        except OSError:
            path = ""  # the VM has gone; its worker will see that
        sock.close()
        if path and isinstance(path, str):
            address = Listen("dial_vhost", f"unix://{path}", path)
            self._open.append(VhostDialer.adopted(address, record, self))
        else:
            self._unclaimed.add(record.id)

    def _note(self, record: PortRecord) -> None:
        if record.transport == "vhost":
            self._vhost.add(record.id)

    def check_pins(self, pinned: tuple[bytes, ...], *, url: str = "", port: PortId | None = None) -> None:
        """Raise LocalError if an address is pinned to a listener other than that of ``url`` or ``port``."""
        for each in self._open:
            own = each.url == url or (port is not None and each.port == port)
            for mac in () if own else set(each.settings.policy.pinned).intersection(pinned):
                taken = f"{format_mac(mac)} is already pinned to {each.url}"
                raise LocalError(f"{taken}; detach that first, or pin another address")

    def disconnect(self, port: PortId) -> None:
        """Prepare for a port to be released although its VM lives."""
        for each in self._open:
            if isinstance(each, VfkitListener) and each.port == port:
                each.disconnect()

    def released(self, port: PortId, reason: str = "") -> None:
        """Note that a port, and its worker, are gone, and why."""
        for each in self._open:
            if isinstance(each, (StreamListener, VhostDialer)):
                each.ended(port, reason)
        self._unclaimed.discard(port)
        self._vhost.discard(port)
        for each in [each for each in self._open if each.port == port]:
            if isinstance(each, TapDevice):
                self._open.remove(each)
            else:
                each.released()
        self._save_changes()

    def mend(self) -> list[SocketFile]:
        """Make the sockets again whose files were deleted; return the files of all."""
        mended = [each.mend() for each in self._open if isinstance(each, (StreamListener, VfkitListener))]
        self._save_changes()
        return [file for file in mended if file is not None]

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now < self.deadline() - TOGETHER_S:
            return
        self._probe_at = float("inf")
        for each in self._open:
            if not isinstance(each, TapDevice):
                each.tick(now)
            if isinstance(each, VfkitListener) and each.port is not None:
                self._probe_at = now + PROBE_S
        self._save_changes()

    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        waiting = [each for each in self._open if not isinstance(each, TapDevice)]
        probed = [each for each in waiting if isinstance(each, VfkitListener) and each.port is not None]
        if self._probe_at == float("inf") and probed:
            return 0.0
        return min([self._probe_at, *(each.deadline() for each in waiting)])

    def _find_adopted(self, attachment: Attachment) -> VfkitListener | VhostDialer | TapDevice | None:
        """Return the device, socket or path that a worker brought back and this attachment opens again."""
        for each in self._open:
            if isinstance(each, TapDevice):
                if each.unclaimed and each.is_of(attachment):
                    return each
            elif not isinstance(each, (VfkitListener, VhostDialer)):
                continue
            elif each.unclaimed and each.url == attachment.address.url:
                return each
        return None

    def _save_changes(self) -> None:
        if not self._saves:
            return
        devices = [each for each in self._open if isinstance(each, TapDevice)]
        taps = [(each.port, each.address) for each in devices]
        files = [each.file for each in self._open if isinstance(each, VfkitListener)]
        self._places.put([(port, tap) for port, tap in taps if port and tap], files)

    def _adopted_port(self, attachment: Attachment) -> PortId | None:
        """Return the port of a stream VM that a worker brought back and that has one of these addresses."""
        address, settings = attachment
        pinned = set(settings.policy.pinned)
        for port in self._unclaimed:
            record = self._owner.current(port)
            if record is None or isinstance(address, Tap) or record.transport != address.transport:
                continue
            if pinned.intersection(record.policy.pinned):
                return port
        return None


def _stream_listener(transport: str) -> type[StreamListener]:
    if transport != "connect":
        return StreamListener
    from supervisor.attach.connect import ConnectListener  # noqa: PLC0415 - only this one speaks HTTP

    return ConnectListener
