"""Addresses and routes of the namespace: the one place that knows netlink's library.

- ``lan0``, a TAP, has the gateway's MAC and addresses. Its other end is a port of the switch.
- ``out0``, a TUN, brings in the packets that the host side writes; nothing leaves by it.
- ``lo`` takes the connections that the packet filter has marked.

The host alias is not an address of this machine, or the kernel would answer for it. Instead ``lan0`` answers
ARP for it (a proxied neighbour), and its route is ``out0``.
"""

import errno
from contextlib import suppress
from pathlib import Path
from socket import AF_INET, AF_INET6

from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]

from forwarder.errors import LocalError
from forwarder.names import GATEWAY_MAC, format_mac
from gateway.inside.nft import MARK, TABLE
from gateway.settings import Settings

LAN = "lan0"
OUT = "out0"
OUT_MTU = 65520
_NODAD = 0x02
_PROXY = 0x08
_PERMANENT = 0x80


def set_up(settings: Settings) -> None:
    """Give the namespace its addresses and routes. Raises LocalError."""
    for key, value in _SYSCTLS:
        with suppress(FileNotFoundError):  # a kernel without it
            Path("/proc/sys/net", key).write_text(value)
    try:
        with IPRoute() as netlink:
            _Setup(netlink).run(settings)
    except NetlinkError as error:
        raise LocalError(
            f"cannot set up the gateway's namespace: {errno.errorcode.get(error.code)}"
        ) from None


_SYSCTLS = (
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/lan0/rp_filter", "0"),
    ("ipv4/conf/out0/rp_filter", "0"),
    # The relay speaks for the gateway's own address when it tells a guest of an error.
    ("ipv4/conf/out0/accept_local", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/lan0/send_redirects", "0"),
    ("ipv6/conf/lan0/accept_ra", "0"),
    ("ipv6/conf/all/proxy_ndp", "1"),
    ("ipv6/conf/lan0/proxy_ndp", "1"),
    # A guest that asks for the host alias is answered at once, not after a router's polite pause.
    ("ipv4/neigh/lan0/proxy_delay", "0"),
    ("ipv6/neigh/lan0/proxy_delay", "0"),
    # A packet that waits for a guest's ARP answer is charged to the socket that serves all guests.
    ("ipv4/neigh/lan0/unres_qlen_bytes", "4096"),
    ("ipv6/neigh/lan0/unres_qlen_bytes", "4096"),
    # Each forwarded connection that the client ended leaves its port in TIME-WAIT here, for a minute. With
    # timestamps a port is safe to use again after a millisecond (older kernels: always after a second).
    ("ipv4/ip_local_port_range", "1024 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv4/tcp_tw_reuse_delay", "1"),
    # Half-open connections are bounded by the relay's dials, which wait no longer
    # (gateway.relay.tcp.ANSWERED_S).
    ("ipv4/tcp_synack_retries", "2"),
    ("ipv4/tcp_syncookies", "0"),
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
        for family, everything in ((AF_INET, "0.0.0.0/0"), (AF_INET6, "::/0")):
            self._netlink.rule("add", family=family, fwmark=MARK, table=TABLE, priority=TABLE)
            self._netlink.route(
                "add", family=family, dst=everything, oif=self._lo, table=TABLE, type="local", scope=254
            )
        self._way_out(settings)

    def _way_out(self, settings: Settings) -> None:
        policy = settings.policy
        index = self._index(OUT)
        self._netlink.link("set", index=index, mtu=OUT_MTU, state="up")
        for family, everything, alias in (
            (AF_INET, "0.0.0.0/0", policy.host4),
            (AF_INET6, "::/0", policy.host6),
        ):
            self._netlink.route("add", family=family, dst=everything, oif=index)
            self._netlink.route("add", family=family, dst=f"{alias}/{alias.max_prefixlen}", oif=index)
            self._netlink.neigh(
                "add", family=family, dst=str(alias), ifindex=self._lan, flags=_PROXY, state=_PERMANENT
            )

    def _index(self, name: str) -> int:
        found = self._netlink.link_lookup(ifname=name)
        return int(found[0])

    def _address(self, address: str, length: int, flags: int = 0) -> None:
        self._netlink.addr("add", index=self._lan, address=address, prefixlen=length, flags=flags)
