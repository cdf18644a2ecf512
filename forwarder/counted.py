"""The names of all counters with their meaning: for help, for the documentation and for JSON.

``DROPS`` is the table of the ports, ``REFUSED``, ``RELAYED`` and ``SERVED`` those of the gateway. A counter
of a table is always shown, also while it is zero, so all answers of one version have the same keys.
"""

from collections.abc import Mapping

DROPS = {
    "egress_full": "for this VM, which did not read fast enough: its ring was full, or a flood overtook it",
    "runt": "from this VM, shorter than an Ethernet header",
    "oversize": "from this VM, longer than the longest frame",
    "spoofed": "from this VM, with a source address that is pinned elsewhere",
    "guarded": "from this VM: refused by its guard, from a group address or zero, or a PAUSE frame",
    "over_rate": "from this VM: questions and connections to the gateway above its rate",
    "storm": "from this VM, broadcast, multicast or unknown unicast above its limit",
    "isolated": "from this VM, to a port that it may not reach",
    "offload": "from this VM, with a senseless offload, or too long and impossible to cut",
    "mac_limit": "from this VM, from a MAC address beyond its limit",
    "sources": "for this VM, the gateway: from more new IP addresses than the sender's port may use",
    "stale_ring": "for this VM, in a ring that its writer left or damaged",
    "refused": "for this VM: too long for its mtu or its socket, or its device is down",
}
"""Why frames of a port are dropped; "from" is counted at the sender, "for" at the destination."""

FLOWS = {
    "tcp": "TCP connections that are carried now",
    "udp": "UDP flows that are open now",
    "ping": "pings that are open now",
}

REFUSED = {
    "denied": "to a network that --deny names",
    "metadata": "to a cloud's metadata address, which --allow does not name",
    "spoofed": "from an address that is not of the LAN",
    "sources": "from more new addresses than a port may use at once",
    "not_carried": "a packet of a kind that the gateway does not carry",
    "damaged": "a packet with a wrong length or checksum",
    "no_outbound": "to the outside, which --no-outbound forbids",
    "no_host_access": "to the host, which --no-host-access forbids",
    "unroutable": "to an address that is not one station outside the LAN",
    "over_limit": "a connection beyond the share of its guest or forward",
    "no_descriptor": "a flow for which the gateway had no descriptor",
    "no_ping_socket": "a ping; the host's net.ipv4.ping_group_range does not allow it",
    "flooded": "a question, or a TCP segment of no connection, dropped by the kernel: too many in a second",
    "over_rate": "a question for a lease, a name or a router beyond the share of its port",
    "no_port": "a question or packet from an address without a port: its VM has just left",
    "dhcp_spoofed": "a DHCP message for a MAC address other than its sender's",
    "dhcp_no_address": "a lease: the share of its port is used up, or no address is left",
    "dhcp_name_in_use": "a name of a guest that another guest has",
}
"""Why the gateway refuses a guest's request."""

RELAYED = {
    "joined": "TCP connections that were made",
    "ended": "TCP connections that ended in order",
    "reset": "TCP connections that were reset",
    "refused": "connections that the far end refused",
    "timed_out": "connections that the far end did not answer",
    "unreachable": "connections and datagrams to a destination without a route",
    "failed": "connections that failed for another reason",
    "near_gone": "connections whose own end left before the far end answered",
    "stray": "unexpected connections",
    "guest_gone": "TCP connections that were reset because their VM has left",
    "errors_passed": "ICMP errors about datagrams that were passed on",
    "frames_lost": "packets of VMs that came faster than the gateway reads them",
    "fragments_dropped": "fragments of datagrams that never became whole, or beyond the sender's share",
    "datagrams_dropped": "datagrams that a socket or the queue did not accept",
    "unasked": "datagrams from an address that the guest had not sent to",
    "flows_pushed_out": "flows that ended early to make room for others",
    "forwards": "forwards now",
    "dials": "TCP connections that wait for their far end now",
    "pipes": "pipes that hold bytes of TCP connections now",
    "connections_most": "TCP connections at most",
}
"""Further counters of the gateway's relay since its process began."""


SERVED = {
    "dhcp_leases": "leases given or renewed",
    "dhcp_refused": "requests for an address that is not the guest's",
    "dhcp_declined": "addresses that a guest has found in use",
    "dhcp_malformed": "malformed DHCP messages",
    "names_answered": "questions answered by the gateway itself",
    "names_asked": "questions passed on to the host's resolvers",
    "names_resolved": "of these, those that a resolver answered",
    "names_unanswered": "of these, those that no resolver answered",
    "names_failed": "of these, those that every resolver refused",
    "names_pushed_out": "questions and connections that ended early to make room for others",
    "names_silent": "connections for questions that ended because they were silent",
    "names_malformed": "malformed questions",
    "lan_malformed": "malformed frames for the gateway",
    "lan_dropped": "answers that the LAN did not accept",
    "lan_lost": "questions that came faster than the gateway reads them",
}
"""Counters of the gateway's leases and names since its process began."""


def in_order(counted: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return a gateway's counters in groups: ``flows``, ``refused``, ``relayed`` and ``served``.

    Each counter of the tables is there, and every other one that was counted. The relay counts all flows of
    datagrams as ``flows``; some of them are ``pings``.
    """
    pings = counted.get("pings", 0)
    flows = {"tcp": counted.get("connections", 0), "udp": counted.get("flows", 0) - pings, "ping": pings}
    known = {"connections", "flows", "pings", *REFUSED, *RELAYED, *SERVED}
    return {
        "flows": {word: flows[word] for word in FLOWS},
        "refused": {word: counted.get(word, 0) for word in REFUSED},
        "relayed": {word: counted.get(word, 0) for word in RELAYED}
        | {word: value for word, value in sorted(counted.items()) if word not in known},
        "served": {word: counted.get(word, 0) for word in SERVED},
    }
