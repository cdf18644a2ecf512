"""A VM of krunkit or libkrun with offloading on, imitated where it shows: at the switch's socket.

The guest's kernel is a network namespace's, behind a TAP that promises what krunkit promises its guests
(checksums, and segmentation of TCP over IPv4; krunkit's COMPAT_NET_FEATURES). Its frames have a
``virtio_net_hdr`` in front, which does not go through the socket, as in libkrun: so 64 KiB of TCP come with a
sum that is begun, and nothing says so. What comes is shown to the kernel behind a header of zeros, so it
verifies every checksum itself and counts those that are wrong.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.helpers.guests.netns import TUN_F_CSUM, TUN_F_TSO4, VIRTIO_HEADER, Namespace
from tests.helpers.guests.pump import Pump

COMPAT = TUN_F_CSUM | TUN_F_TSO4


class Krunkit(Namespace):
    """One running imitation; it attaches at once."""

    def __init__(
        self, name: str, url: str, mac: str, local: Path | None = None, *, offloads: int = COMPAT
    ) -> None:
        super().__init__(name)
        with contextlib.ExitStack() as stack:
            stack.callback(super().close)
            tap = self.open_tap(mac, offloads=offloads)
            self.pump = Pump(tap, url, local, header=VIRTIO_HEADER)
            stack.pop_all()

    def close(self) -> None:
        """End the VM."""
        self.pump.close()
        super().close()
