"""The namespace's packet filter: whose packets come in, and which connections are taken out of the network.

TPROXY rather than redirect: a connection is taken where its first frame comes in, before routing, and the
socket that accepts it *has the address that the guest asked for* (``getsockname``). So IPv4 and IPv6 are
alike, and no connection is tracked: no table that fills up, no time-out that is not TCP's own.

What is taken: TCP of guests to anything that is no address of the LAN, and to the host alias. What is not
for anybody outside (loopback, "this host") is dropped here, before the host side could take it for its own.

A guest's source address is a claim, and answers go to it. So a source that is not of the LAN, or is the
gateway's own, is dropped where it comes in (``sources``, and ``claims`` for ARP), and nothing that came by
the way out leaves by it again: else one packet with a false source would make the gateway talk to itself.
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
        type filter hook prerouting priority -450; policy accept;
        iifname != "{interface}" accept
        ip saddr 0.0.0.0 udp dport 67 accept
        ip saddr {{ {own4} }} drop
        ip saddr != {policy.subnet} drop
        ip6 saddr {{ {settings.gateway6}, {policy.host6} }} drop
        ip6 saddr != {{ {policy.prefix}, fe80::/10, :: }} drop
    }}
    chain prerouting {{
        type filter hook prerouting priority mangle; policy accept;
        iifname != "{interface}" accept
        ip daddr {{ 0.0.0.0/8, 127.0.0.0/8 }} drop
        ip6 daddr {{ ::/127, ::ffff:0.0.0.0/96 }} drop
        meta l4proto != tcp accept
        ip daddr {policy.host4} meta l4proto tcp tproxy ip to 127.0.0.1:{TCP_PORT} meta mark set {MARK} accept
        ip6 daddr {policy.host6} meta l4proto tcp tproxy ip6 to [::1]:{TCP_PORT} meta mark set {MARK} accept
        ip daddr {{ {policy.subnet}, 169.254.0.0/16, 224.0.0.0/3 }} accept
        ip6 daddr {{ {policy.prefix}, fe80::/10, ff00::/8 }} accept
        meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{TCP_PORT} meta mark set {MARK} accept
        meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{TCP_PORT} meta mark set {MARK} accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        oifname "{interface}" iifname "{interface}" drop
        oifname != "{interface}" iifname != "{interface}" drop
        meta l4proto tcp drop
    }}
}}
"""


def load(text: str) -> None:
    """Put rules in force in this process's namespace. Raises LocalError."""
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
        raise LocalError(f"nft refused the gateway's rules: {line}; does the kernel have nft_tproxy?")
