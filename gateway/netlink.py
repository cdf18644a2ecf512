"""Addresses, routes and neighbours of the namespace: the one place that knows netlink's library.

``lan0`` is the TAP: it has the gateway's MAC and addresses, and the switch has its other end, as a port.
"""

import errno
from contextlib import suppress
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]

from forwarder.errors import LocalError
from forwarder.names import GATEWAY_MAC, format_mac
from gateway.settings import Settings

LAN = "lan0"
_NODAD = 0x02


def set_up(settings: Settings) -> None:
    """Give the namespace its addresses and routes. Raises LocalError."""
    for key, value in _SYSCTLS:
        with suppress(FileNotFoundError):  # a kernel without IPv6
            Path("/proc/sys/net", key).write_text(value)
    try:
        with IPRoute() as netlink:
            _Setup(netlink).run(settings)
    except NetlinkError as error:
        raise LocalError(
            f"cannot set up the gateway's namespace: {errno.errorcode.get(error.code)}"
        ) from None


_SYSCTLS = (
    ("ipv6/conf/lan0/accept_ra", "0"),
    ("ipv6/conf/all/forwarding", "1"),
)


class _Setup:
    def __init__(self, netlink: IPRoute) -> None:
        self._netlink = netlink
        self._lo, self._lan = self._index("lo"), self._index(LAN)

    def run(self, settings: Settings) -> None:
        policy = settings.policy
        self._netlink.link("set", index=self._lo, state="up")
        mac = format_mac(GATEWAY_MAC)
        self._netlink.link("set", index=self._lan, address=mac, mtu=settings.mtu, state="up")
        self._address(str(policy.gateway4), policy.subnet.prefixlen)
        self._address(str(settings.gateway6), policy.prefix.prefixlen, flags=_NODAD)

    def _index(self, name: str) -> int:
        found = self._netlink.link_lookup(ifname=name)
        return int(found[0])

    def _address(self, address: str, length: int, flags: int = 0) -> None:
        self._netlink.addr("add", index=self._lan, address=address, prefixlen=length, flags=flags)
