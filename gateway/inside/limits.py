"""What the kernel keeps from the gateway's packet sockets: floods of questions, by sender.

Each question is held against its port's share by the host side (``gateway.lan.station``), which costs some
microseconds even for one that is refused. So the kernel drops what an address sends in a second beyond a rate
that is above every share, where frames come in (the ingress hook comes before packet sockets that are bound
to one EtherType), and counts it as ``flooded``.

Questions that the packet sockets have heard are dropped before the namespace's own sockets would look for
them: nobody is there, and the kernel would say so to the guest.
"""

import json

from gateway.inside import nft

MOST_SENDERS = 65_535
FORGET_S = 10
"""An address that has been silent for so long has its whole burst again anyway."""

RATES = {
    "dns": ("udp dport 53", 2000, 1000),
    "dhcp": ("udp dport 67", 500, 2500),
    "openings": ("tcp dport 53 tcp flags & (syn|ack) == syn", 100, 200),
    "solicitations": ("icmpv6 type nd-router-solicit", 10, 50),
    "trials": ("ip6 saddr :: icmpv6 type nd-neighbor-solicit", 10, 50),
}
"""Name to what it is, packets a second, and packets at one moment."""

TABLE = "bulkhead"


def rules(interface: str) -> str:
    """Return the rules, as ``nft -f`` reads them."""
    sets = "".join(
        f"    set {name} {{ type ether_addr; flags dynamic; size {MOST_SENDERS}; timeout {FORGET_S}s; }}\n"
        for name in RATES
    )
    drops = "".join(
        f"        {what} update @{name} {{ ether saddr limit rate over {rate}/second burst {burst} packets }}"
        f" counter name flooded drop\n"
        for name, (what, rate, burst) in RATES.items()
    )
    return f"""
table netdev {TABLE} {{
    counter flooded {{ }}
{sets}    chain questions {{
        type filter hook ingress device "{interface}" priority 0; policy accept;
{drops}    }}
}}
table inet {TABLE} {{
    chain heard {{
        type filter hook input priority filter; policy accept;
        iifname "{interface}" udp dport {{ 53, 67 }} drop
    }}
}}
"""


def flooded() -> int:
    """Return how many frames have been dropped. Raises LocalError."""
    listed = nft.run("-j", "list", "counter", "netdev", TABLE, "flooded")
    return int(
        next(each["counter"]["packets"] for each in json.loads(listed)["nftables"] if "counter" in each)
    )
