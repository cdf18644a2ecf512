"""Kernel rules that drop floods of questions, by sender, before they reach the gateway's packet sockets.

The host side checks each question against its port's share (``gateway.lan.station``). This costs some
microseconds even if the question is refused. So the kernel drops questions that one address sends above a
rate, and counts them as ``flooded``. The rate is above every share. The ingress hook drops them, which comes
before packet sockets that are bound to one EtherType.

The kernel also bounds how many new IP addresses one Ethernet address may use, since each becomes a neighbour
of the gateway (``gateway.relay.sources``).

A last rule drops the questions behind the packet sockets: no socket of the namespace is bound to those
ports, so the kernel would answer the guest with an error.
"""

from gateway.relay.sources import BURST, RATE

MOST_SENDERS = 8192
"""Of each set: eight for each of the 1,024 neighbours that the kernel knows. The kernel makes and clears room
for all of them at the start, 0.1 ms and 16 KiB for each thousand."""
FORGET_S = 10
"""An address that is silent this long would have its whole burst again anyway."""

RATES = {
    "dns": ("udp dport 53", 2000, 1000),
    "dhcp": ("udp dport 67", 500, 2500),
    "openings": ("tcp dport 53 tcp flags & (syn|ack) == syn", 100, 200),
    "solicitations": ("icmpv6 type nd-router-solicit", 10, 50),
    "trials": ("ip6 saddr :: icmpv6 type nd-neighbor-solicit", 10, 50),
}
"""Name of the rule: match, packets a second, packets in a burst."""

SOURCES = {
    "claims": ("ipv4_addr", "arp saddr ip", "0.0.0.0"),
    "sources": ("ipv6_addr", "ip6 saddr", "::"),
}
"""Name of the set: its type, the sender's address, and the address of a sender without one. Of IPv4 only ARP,
which is rare, and makes the neighbours."""

KNOWN_S = 60
"""Seconds for which an address is known; then it counts as new again."""

TABLE = "bulkhead"
COUNTER = "flooded"
"""Of this table, and of another one of that name (``nft``)."""


def rules(interface: str) -> str:
    """Return the rules in the syntax of ``nft -f``."""
    sets = "".join(
        f"    set {name} {{ type ether_addr; flags dynamic; size {MOST_SENDERS}; timeout {FORGET_S}s; }}\n"
        for name in RATES
    )
    drops = "".join(
        f"        {what} update @{name} {{ ether saddr limit rate over {rate}/second burst {burst} packets }}"
        f" counter name {COUNTER} drop\n"
        for name, (what, rate, burst) in RATES.items()
    )
    dynamic = f"flags dynamic; size {MOST_SENDERS}; timeout {KNOWN_S}s;"
    addresses = "".join(
        f"    set {name} {{ type ether_addr . {kind}; {dynamic} }}\n"
        f"    set new_{name} {{ type ether_addr; {dynamic} }}\n"
        for name, (kind, *_) in SOURCES.items()
    )
    news = "".join(
        f"        {address} != {none} ether saddr . {address} @{name} accept\n"
        f"        {address} != {none} update @new_{name} {{ ether saddr limit rate over {RATE}/second"
        f" burst {BURST} packets }} counter name {COUNTER} drop\n"
        f"        {address} != {none} add @{name} {{ ether saddr . {address} }}\n"
        for name, (_, address, none) in SOURCES.items()
    )
    return f"""
table netdev {TABLE} {{
    counter {COUNTER} {{ }}
{sets}{addresses}    chain questions {{
        type filter hook ingress device "{interface}" priority 0; policy accept;
{drops}{news}    }}
}}
table inet {TABLE} {{
    chain heard {{
        type filter hook input priority filter; policy accept;
        iifname "{interface}" udp dport {{ 53, 67 }} drop
    }}
}}
"""
