"""VMs that are a namespace behind a TAP, whose frames are pumped to a link of the switch (load/pump.c)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from scripts.benchmarks.lab import generator
from tests.helpers.guests.fake_vm import FakeVM, connect
from tests.helpers.guests.netns import TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, VIRTIO_HEADER, Namespace
from tests.helpers.guests.vhost_vm import GuestVM

CARD = 20_000
"""Frames that the queue of a pumped VM's TAP holds, more than its connections send before they wait. A TAP
drops what its queue has no room for, where a VM's network card has its kernel wait."""
DRIVER = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
"""The offloads that load/guest.c negotiates."""


def as_qemu(vm: Namespace, mac: str, mtu: int, path: Path, stack: contextlib.ExitStack) -> None:
    """Give the VM its TAP, and carry its frames from and to a socket of QEMU's kind."""
    _carry(_tap(vm, mac, mtu), 0, "stream", connect(f"unix://{path}"), stack)


def as_krunkit(
    vm: Namespace, mac: str, mtu: int, path: Path, stack: contextlib.ExitStack, *, offloads: int
) -> None:
    """Do the same as libkrun does it, on a datagram socket; ``offloads``: TUN_F_* of its device."""
    link = connect(f"unixgram://{path}", local=path.with_name(f"{path.name}.vm"), handshake=True)
    _carry(_tap(vm, mac, mtu, offloads), VIRTIO_HEADER, "dgram", link, stack)


def as_guest(vm: Namespace, mac: str, mtu: int, path: Path, stack: contextlib.ExitStack) -> None:
    """Do the same as a guest that shares its memory, with the offloads of its driver."""
    _carry(_tap(vm, mac, mtu, DRIVER), VIRTIO_HEADER, "vhost", GuestVM(path), stack)


def _carry(tap: int, header: int, kind: str, link: FakeVM, stack: contextlib.ExitStack) -> None:
    stack.callback(link.close)
    words = (tap, header, kind, link.sock.fileno())
    stack.enter_context(generator.running("pump", words, (link,), (tap,)))


def _tap(vm: Namespace, mac: str, mtu: int, offloads: int | None = None) -> int:
    tap = vm.open_tap(mac, mtu=mtu, offloads=offloads)
    vm.run(f"ip link set {vm.interface} txqueuelen {CARD}")
    return tap
