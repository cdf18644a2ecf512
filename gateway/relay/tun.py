"""The way out of the gateway's namespace for what is not TCP: a TUN device, read and written as IP packets.

Whatever the namespace has no better route for (UDP and ICMP echo of guests) arrives
here whole, with source and destination, and answers are written with any source at all. Intercepting
datagrams with sockets (TPROXY) instead needs, for each remote address, a socket of its own to answer from:
made in the namespace by the process there, passed out, kept as long as the flow.

Packets carry the kernel's ``virtio_net_hdr``, so checksums are the kernel's work: it is told where one
belongs, and gives packets whose checksum is still to be made.
"""

import fcntl
import os
import struct

_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUN_F_CSUM = 0x01


def open_tun(name: str) -> int:
    """Make the TUN device ``name`` in the caller's network namespace and return its non-blocking descriptor.

    The device is gone when the descriptor is closed. Raises OSError: no tun module, or no right to it.
    """
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(tun, _TUNSETOFFLOAD, _TUN_F_CSUM)
    except OSError:
        os.close(tun)
        raise
    return tun
