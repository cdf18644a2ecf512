"""A QEMU guest: a whole Linux kernel on an emulated machine, attached to the switch by QEMU's own netdevs.

The machine is a ``microvm`` under TCG, so that it needs no KVM, and boots in a second and a half.
``tsc_early_khz`` is there because an emulated clock is measured wrongly about once in twenty boots, and such
a guest hangs before init.

QEMU 7.2 starts without a word, and with a dead interface, when a stream netdev finds no listener: this class
refuses to start before the listener's path exists, and a test asserts that the switch has the port. When QEMU
ends it leaves the local path of a ``dgram`` netdev behind, as real ones do; another may bind it again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.helpers.guests.console_machine import ConsoleMachine

KERNEL_WORDS = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check tsc=reliable 8250.nr_uarts=1 "
    "rcupdate.rcu_expedited=1 cryptomgr.notests random.trust_cpu=on nowatchdog"
)


def unix_stream(path: Path) -> str:
    """Return the netdev of a VM that connects to a ``unix://`` listener."""
    _must_exist(path)
    return f"stream,id=n0,server=off,addr.type=unix,addr.path={path}"


def datagram(switch: Path, local: Path) -> str:
    """Return the netdev of a VM that speaks to a ``unixgram://`` socket from a path of its own."""
    _must_exist(switch)
    return f"dgram,id=n0,local.type=unix,local.path={local},remote.type=unix,remote.path={switch}"


class Board(NamedTuple):
    """What QEMU emulates, and how the guest's network card is on it."""

    machine: str = "microvm"
    card: str = "virtio-net-device"
    options: tuple[str, ...] = ()


MICROVM = Board()
SHARED = ("-object", "memory-backend-memfd,id=m,size=160M,share=on")
VHOST_BOARDS = {
    "legacy": Board("microvm,memory-backend=m", options=SHARED),
    "modern": Board(
        "microvm,memory-backend=m", options=(*SHARED, "-global", "virtio-mmio.force-legacy=false")
    ),
    # With interrupt vectors QEMU 7.2 ends itself under TCG when a vhost-user device starts.
    "q35": Board("q35,memory-backend=m", "virtio-net-pci,romfile=,vectors=0", SHARED),
}
"""Boards whose guests share their memory."""


def vhost_user(path: Path, *, listens: bool = False, reconnects: bool = False) -> tuple[str, str]:
    """Return chardev and netdev of a VM of vhost-user that connects to ``path``, or listens there."""
    if not listens:
        _must_exist(path)
    how = ",server=on,wait=off" if listens else ",reconnect=1" if reconnects else ""
    return f"socket,id=c0,path={path}{how}", "vhost-user,chardev=c0,id=n0"


class QemuGuest(ConsoleMachine):
    """One running QEMU. The constructor starts it, ``wait_ready`` waits for its boot, so boots overlap."""

    def __init__(
        self,
        name: str,
        netdev: str,
        mac: str,
        *,
        vmlinux: Path,
        initramfs: Path,
        board: Board = MICROVM,
        chardev: str = "",
    ) -> None:
        super().__init__(
            name,
            "eth0",
            [
                "qemu-system-x86_64",
                *("-M", board.machine, "-cpu", "qemu64,+rdrand", "-m", "160", "-accel", "tcg", "-smp", "1"),
                *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
                *("-kernel", str(vmlinux), "-initrd", str(initramfs)),
                *("-append", f"{KERNEL_WORDS} tsc_early_khz={_host_tsc_khz()}"),
                *(("-chardev", chardev) if chardev else ()),
                *("-netdev", netdev, "-device", f"{board.card},netdev=n0,mac={mac}"),
                *board.options,
            ],
        )

    def close(self) -> None:
        """Kill the guest, as a VM dies, and wait until it is gone."""
        self.process.kill()
        self.process.communicate()


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there yet: QEMU would start with a dead interface")


def _host_tsc_khz() -> int:
    match = re.search(r"^cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return round(float(match[1]) * 1000) if match else 2_500_000
