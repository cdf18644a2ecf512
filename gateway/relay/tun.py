"""The way into the gateway's namespace for what is no socket's: a TUN device, written as IP packets.

What is written here comes into the namespace as if from the outside, with any source at all: answers for
guests, which the kernel routes to the LAN, and the SYNs that were held back. Intercepting datagrams with
sockets (TPROXY) instead needs, for each remote address, a socket of its own to answer from: made in the
namespace by the process there, passed out, kept as long as the flow. Nothing is read from it: what guests
send is taken where it comes in (``frames``), and the packet filter lets nothing go out by it.

Packets carry the kernel's ``virtio_net_hdr``, so checksums are the kernel's work: it is told where one
belongs.
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

    The device is gone when the descriptor is closed. Raises OSError: no tun module, or no right to it.
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
    """The device, to be written to."""

    def __init__(self, descriptor: int, counts: Counts) -> None:
        """Take over the descriptor."""
        self._descriptor = descriptor
        self._counts = counts

    def write(self, packet: Written) -> None:
        """Send one packet into the namespace; one that it does not take is counted."""
        try:
            os.writev(self._descriptor, packet)
        except OSError:
            self._counts["datagrams_dropped"] += 1

    def close(self) -> None:
        """Close the device."""
        os.close(self._descriptor)


class Speaker:
    """The device, with the gateway's own addresses: what is said to guests in the gateway's name."""

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
        """Tell a guest of an error about ``packet``, from ``source`` or the gateway."""
        speaker = source or self._addresses[4 if len(guest) == 4 else 6]
        self.write(refusal(speaker, guest, kind_and_code, info, packet))
