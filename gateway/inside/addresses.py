"""Addresses and routes of the namespace, set with iproute2's ``ip -batch``, which costs no import.

- ``lan0``, a TAP, has the gateway's MAC and addresses. Its other end is a port of the switch.
- ``out0``, a TUN, brings in the packets that the host side writes; nothing leaves by it.
- ``lo`` takes the connections that the packet filter has marked.

The host alias is not an address of this machine, or the kernel would answer for it. Instead ``lan0`` answers
ARP for it (a proxied neighbour), and its route is ``out0``.
"""

import subprocess
from contextlib import suppress
from pathlib import Path

from forwarder.errors import LocalError
from gateway.inside.interfaces import LAN, OUT
from gateway.inside.nft import MARK, TABLE
from gateway.settings import Settings

OUT_MTU = 65520


def set_up(settings: Settings) -> None:
    """Give the namespace its addresses and routes. Raises LocalError."""
    for key, value in _SYSCTLS:
        with suppress(FileNotFoundError):  # a kernel without it
            Path("/proc/sys/net", key).write_text(value)
    policy = settings.policy
    links = [
        "link set dev lo up",
        f"link set dev {LAN} mtu {settings.mtu} up",
        f"link set dev {OUT} mtu {OUT_MTU} up",
    ]
    own4 = f"address add {policy.gateway4}/{policy.subnet.prefixlen} dev {LAN}"
    own6 = f"address add {settings.gateway6}/{policy.prefix.prefixlen} dev {LAN} nodad"
    _ip("-4", [*links, own4, *_routes("0.0.0.0/0", f"{policy.host4}")])
    _ip("-6", [own6, *_routes("::/0", f"{policy.host6}")])


def _routes(everything: str, alias: str) -> list[str]:
    """Return the lines of one family: marked packets are delivered here, all else leaves."""
    return [
        f"rule add fwmark {MARK} lookup {TABLE} priority {TABLE}",
        f"route add local {everything} dev lo table {TABLE}",
        f"route add {everything} dev {OUT}",
        f"route add {alias} dev {OUT}",
        f"neighbour add proxy {alias} dev {LAN}",
    ]


def _ip(family: str, lines: list[str]) -> None:
    """Run lines of ip(8), up to the first one that fails. Raises LocalError."""
    try:
        done = subprocess.run(
            ("ip", family, "-batch", "-"),
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise LocalError("ip is missing; install iproute2") from None
    if done.returncode:
        why = " ".join(done.stderr.split())
        raise LocalError(f"cannot set up the gateway's namespace: {why}")


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
    # A VM may take the IP address of one that has left, and the kernel does not hear of its MAC address. So
    # the kernel asks all stations again within seven seconds: a client still repeats its SYN then. By default
    # it asks only if the address was unused for minutes. It goes on for a minute. If it stopped, it would
    # forget the MAC address of a VM that hangs, and the relay could not find that VM's connections later.
    *(
        (f"ipv{version}/neigh/lan0/{key}", value)
        for version in (4, 6)
        for key, value in (
            ("base_reachable_time_ms", "3000"),
            ("delay_first_probe_time", "1"),
            ("ucast_solicit", "1"),
            ("mcast_resolicit", "60"),
        )
    ),
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
