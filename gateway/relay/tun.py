"""Write IP packets into the gateway's namespace, through a TUN device.

A written packet enters the namespace as if from the outside, with any source: answers for guests, which the
kernel routes to the LAN, and delayed SYNs. With sockets (TPROXY) instead, each remote address would need its
own socket to answer from, made in the namespace, passed out, and kept as long as the flow. The device is
never read: guests' traffic is read where it comes in (``frames``), and the packet filter lets nothing out by
it.

Packets have the kernel's ``virtio_net_hdr`` in front, so the kernel computes their checksums.
"""

import fcntl
import os
import struct

from gateway.ip.answers import Written, refusal
from gateway.relay.counts import Counts

_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUNSETIFF = 0x400454CA


def open_tun(name: str) -> int:
    """Make the TUN device ``name`` in the caller's network namespace and return its non-blocking descriptor.

    The device is gone when the descriptor is closed. Raises OSError without the tun module, or without the
    right.
    """
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(tun)
        raise
    return tun


class Tun:
    """The device, for writing."""

    def __init__(self, descriptor: int, counts: Counts) -> None:
        """Use the descriptor, and close it in ``close``."""
        self._descriptor = descriptor
        self._counts = counts

    def write(self, packet: Written) -> None:
        """Send one packet into the namespace; count it if the device does not accept it."""
        try:
            os.writev(self._descriptor, packet)
        except OSError:
            self._counts["datagrams_dropped"] += 1

    def close(self) -> None:
        """Close the device."""
        os.close(self._descriptor)


class Speaker:
    """The device, with the gateway's own addresses as source of errors."""

    def __init__(self, tun: Tun, addresses: dict[int, bytes]) -> None:
        """``addresses``: the gateway's, by IP version."""
        self.write = tun.write
        self._addresses = addresses

    def refuse(
        self,
        guest: bytes,
        kind_and_code: tuple[int, int],
        packet: bytes | memoryview,
        info: int = 0,
        source: bytes | None = None,
    ) -> None:
        """Send a guest an ICMP error about ``packet``, from ``source`` or the gateway."""
        speaker = source or self._addresses[4 if len(guest) == 4 else 6]
        self.write(refusal(speaker, guest, kind_and_code, info, packet))
