"""The packet filter of the namespace: which packets of guests come in, and which of them its kernel sees.

**A guest's source address is a claim**, and answers go to it. So a packet is dropped on arrival if its source
is not of the LAN, or is the gateway's own (``sources``, and ``claims`` for ARP). A packet from the TUN never
leaves by the TUN: otherwise one packet with a false source would make the gateway talk to itself. A packet
meets the rules of its own IP version only, and few of them.

**The relay carries what guests send to the outside.** Its packet sockets have seen these packets already, so
they are dropped here (``held4``, ``held6``), except segments of existing connections and ICMP errors about
them. The relay also reassembles fragments for the gateway itself: the kernel has one queue of fragments for
all guests. A guest that asks the host alias itself whether it is still there (RFC 4861 7.3) is answered by
the kernel.

**Connections** arrive by TPROXY rather than by redirect. TPROXY takes a segment before routing, and the
accepting socket *has the address that the guest asked for* (``getsockname``). So IPv4 and IPv6 work alike,
and the kernel tracks no connection: no table can fill up, and all time-outs are TCP's own. The SYN does not
come from the guest: the relay writes it into the TUN when the far side has answered.

**A segment of no connection** would reach the transparent listener, and the kernel would answer it with a
reset: work of three processes for a guest that makes such segments up. So of those that one Ethernet address
sends above ``STRAYS`` the rest is dropped and counted as ``flooded`` (``limits``).
"""

import subprocess

from forwarder.errors import LocalError
from gateway.inside.limits import COUNTER, FORGET_S, MOST_SENDERS
from gateway.settings import Settings

TCP_PORT = 7
"""Port of the transparent listeners in the namespace. Guests cannot reach it by its number: TPROXY does not
take packets to the gateway's own address, and no socket listens there."""

MARK = 1
TABLE = 100
"""The mark of packets for the transparent listeners; a routing rule delivers marked packets locally."""


BEFORE_FRAGMENTS = -450
"""Priority before the kernel reassembles fragments: the relay carries fragments, too."""

STRAYS = (100, 1000)
"""Segments of no connection that are answered with a reset: a second, and in a burst. After the gateway's end
a guest sends one for each connection that it had; those that get no answer are sent again."""


def rules(settings: Settings, interface: str) -> str:
    """Return the rules in the syntax of ``nft -f``."""
    policy = settings.policy
    rate, burst = STRAYS
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
    counter {COUNTER} {{ }}
    set strays {{ type ether_addr; flags dynamic; size {MOST_SENDERS}; timeout {FORGET_S}s; }}
    chain sources {{
        type filter hook prerouting priority {BEFORE_FRAGMENTS}; policy accept;
        iifname != "{interface}" accept
        meta nfproto vmap {{ ipv4 : goto sources4, ipv6 : goto sources6 }}
    }}
    chain sources4 {{
        ip saddr != {policy.subnet} goto outsiders4
        ip saddr {{ {own4} }} drop
        ip daddr {policy.gateway4} ip frag-off & 0x3fff != 0 drop
        ip daddr {policy.host4} goto held4
        ip daddr {{ {policy.subnet}, 224.0.0.0/4, 255.255.255.255 }} accept
        goto held4
    }}
    chain outsiders4 {{
        ip saddr 0.0.0.0 udp dport 67 accept
        drop
    }}
    chain sources6 {{
        ip6 saddr {{ {settings.gateway6}, {policy.host6} }} drop
        ip6 saddr != {{ {policy.prefix}, fe80::/10, :: }} drop
        ip6 daddr {settings.gateway6} exthdr frag exists drop
        ip6 daddr {policy.host6} icmpv6 type nd-neighbor-solicit accept
        ip6 daddr {policy.host6} goto held6
        ip6 daddr {{ {policy.prefix}, fe80::/10, ff00::/8 }} accept
        goto held6
    }}
    chain held4 {{
        icmp type {{ destination-unreachable, time-exceeded }} meta mark set {MARK} accept
        meta l4proto != tcp drop
        ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 240.0.0.0/4 }} drop
        goto segments
    }}
    chain held6 {{
        icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded }} meta mark set {MARK} accept
        meta l4proto != tcp drop
        ip6 daddr {{ ::/127, ::ffff:0.0.0.0/96 }} drop
        goto segments
    }}
    chain segments {{
        tcp flags & (syn | ack) == syn drop
        socket transparent {{ 0, 1 }} meta mark set {MARK} accept
        update @strays {{ ether saddr limit rate over {rate}/second burst {burst} packets }} \
            counter name {COUNTER} drop
        meta mark set {MARK}
    }}
    chain connections {{
        type filter hook prerouting priority mangle; policy accept;
        meta mark {MARK} goto accepted
        iifname "{interface}" accept
        tcp flags & (syn | ack) == syn goto accepted
    }}
    chain accepted {{
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
    """Put rules into force in this process's namespace. Raises LocalError."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False, timeout=20
        )
    except FileNotFoundError:
        raise LocalError("nft is missing; install nftables") from None
    except subprocess.TimeoutExpired:
        raise LocalError("nft did not end; is the machine out of memory?") from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise LocalError(
            f"nft refused the gateway's rules: {line}; does the kernel have nft_tproxy and nft_socket?"
        )
