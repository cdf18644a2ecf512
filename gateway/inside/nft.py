"""The namespace's packet filter: whose packets come in, and what of them its kernel is to see.

**A guest's source address is a claim**, and answers go to it. So a source that is not of the LAN, or is the
gateway's own, is dropped where it comes in (``sources``, and ``claims`` for ARP), and nothing that came by
the way out leaves by it again: else one packet with a false source would make the gateway talk to itself.

**What guests send to the outside is the relay's**, which has seen it by its packet sockets already
(``held``): it is dropped here, but for segments of connections that there are, and ICMP errors about them.

**Connections** are taken by TPROXY rather than redirect: a segment is taken where it comes in, before
routing, and the socket that accepts *has the address that the guest asked for* (``getsockname``). So IPv4 and
IPv6 are alike, and no connection is tracked: no table that fills up, no time-out that is not TCP's own. The
SYN comes not from the guest but by the TUN device, from the relay, when the far side has answered.
"""

import subprocess

from forwarder.errors import LocalError
from gateway.settings import Settings

TCP_PORT = 7
"""Where the taken connections are accepted: a port in the namespace that guests cannot reach by its number,
since what they send to the gateway's own address is not taken and meets no listener at its address."""

MARK = 1
TABLE = 100
"""Frames that are taken are marked, and a rule of routing says that what is marked is for this machine."""


BEFORE_FRAGMENTS = -450
"""Priority of what is dropped before the kernel puts fragments together: those are the relay's, too."""


def rules(settings: Settings, interface: str) -> str:
    """Return the rules, as ``nft -f`` reads them."""
    policy = settings.policy
    own4 = f"{policy.gateway4}, {policy.host4}, {policy.subnet[0]}, {policy.subnet[-1]}"
    return f"""
table arp bulkhead {{
    chain claims {{
        type filter hook input priority filter; policy accept;
        iifname "{interface}" arp saddr ip {{ {own4} }} drop
        iifname "{interface}" arp saddr ip != {{ {policy.subnet}, 0.0.0.0 }} drop
    }}
}}
table inet bulkhead {{
    chain sources {{
        type filter hook prerouting priority {BEFORE_FRAGMENTS}; policy accept;
        iifname != "{interface}" accept
        ip saddr 0.0.0.0 udp dport 67 accept
        ip saddr {{ {own4} }} drop
        ip saddr != {policy.subnet} drop
        ip6 saddr {{ {settings.gateway6}, {policy.host6} }} drop
        ip6 saddr != {{ {policy.prefix}, fe80::/10, :: }} drop
        ip daddr {policy.host4} goto held
        ip6 daddr {policy.host6} goto held
        ip daddr {{ {policy.subnet}, 224.0.0.0/4, 255.255.255.255 }} accept
        ip6 daddr {{ {policy.prefix}, fe80::/10, ff00::/8 }} accept
        goto held
    }}
    chain held {{
        icmp type {{ destination-unreachable, time-exceeded }} meta mark set {MARK} accept
        icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded }} meta mark set {MARK} accept
        meta l4proto != tcp drop
        tcp flags & (syn | ack) == syn drop
        ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 240.0.0.0/4 }} drop
        ip6 daddr {{ ::/127, ::ffff:0.0.0.0/96 }} drop
        meta mark set {MARK}
    }}
    chain connections {{
        type filter hook prerouting priority mangle; policy accept;
        iifname "{interface}" meta mark != {MARK} accept
        iifname != "{interface}" tcp flags & (syn | ack) != syn accept
        meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{TCP_PORT} meta mark set {MARK} accept
        meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{TCP_PORT} meta mark set {MARK} accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{interface}" drop
        oifname != "{interface}" drop
    }}
}}
"""


def load(text: str) -> None:
    """Put rules in force in this process's namespace. Raises LocalError."""
    try:
        run("-f", "-", text=text)
    except LocalError as error:
        raise LocalError(f"{error}; does the kernel have nft_tproxy?") from None


def run(*words: str, text: str = "") -> str:
    """Run nft in this process's namespace on ``text``, and return what it says. Raises LocalError."""
    try:
        done = subprocess.run(
            ["nft", *words], input=text, capture_output=True, text=True, check=False, timeout=20
        )
    except FileNotFoundError:
        raise LocalError("nft is missing; install nftables") from None
    except subprocess.TimeoutExpired:
        raise LocalError("nft did not end; is the machine out of memory?") from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise LocalError(f"nft refused the gateway's rules: {line}")
    return done.stdout
