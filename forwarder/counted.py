"""The words of what is counted, each with its meaning: for help, for the documentation and for JSON.

One table for each place that counts: ``DROPS`` for the ports, ``REFUSED``, ``RELAYED`` and ``SERVED`` for the
gateway. A word that is in a table is always shown, also while it is zero; so two answers of one version have
the same keys.
"""

from collections.abc import Mapping

DROPS = {
    "egress_full": "for this VM, which did not read fast enough: its ring was full, or a flood overtook it",
    "runt": "from this VM, shorter than an Ethernet header",
    "oversize": "from this VM, longer than the longest frame",
    "spoofed": "from this VM, with a source address that is pinned elsewhere",
    "guarded": "from this VM, what its guard refuses, from a group's address, or a PAUSE frame",
    "storm": "from this VM, broadcast, multicast or unknown unicast above its limit",
    "isolated": "from this VM, to a port that it may not reach",
    "offload": "from this VM, with an offload that makes no sense, or too long and not to be cut",
    "mac_limit": "from this VM, with one source address more than it may have",
    "stale_ring": "for this VM, in a ring whose writer left or broke it",
    "refused": "for this VM, longer than its mtu or its socket takes, or its device is down",
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
    "not_carried": "a packet of a kind that the gateway does not carry",
    "damaged": "a packet with a wrong length or checksum",
    "no_outbound": "to the outside, which --no-outbound forbids",
    "no_host_access": "to the host, which --no-host-access forbids",
    "unroutable": "to an address that is no single station elsewhere",
    "over_limit": "a connection beyond the share of its guest or forward",
    "no_descriptor": "a flow for which the gateway had no descriptor",
    "no_ping_socket": "a ping; the host's net.ipv4.ping_group_range does not allow it",
    "flooded": "a question whose sender had asked thousands in a second, dropped by the kernel",
    "over_rate": "a question for a lease, a name or a router beyond the share of its port",
    "no_port": "a question from an address that is behind no port: its VM has just left",
    "dhcp_spoofed": "a DHCP message for another MAC address than that which sent it",
    "dhcp_no_address": "a lease: the share of its port is used up, or no address is left",
    "dhcp_name_in_use": "a name of a guest that another guest has",
}
"""What the gateway does not do for a guest, by reason."""

RELAYED = {
    "joined": "TCP connections that were made",
    "ended": "TCP connections that ended in order",
    "reset": "TCP connections that were reset",
    "refused": "connections that the far end refused",
    "timed_out": "connections that the far end did not answer",
    "unreachable": "connections and datagrams to where there is no way",
    "failed": "connections that failed for another reason",
    "near_gone": "connections whose own end left before the far end answered",
    "stray": "connections that came without having been asked for",
    "guest_gone": "TCP connections that were reset because their VM has left",
    "errors_passed": "ICMP errors about datagrams that were passed on",
    "frames_lost": "packets of VMs that came faster than the gateway takes them",
    "fragments_dropped": "fragments of datagrams that never became whole, or beyond the sender's share",
    "datagrams_dropped": "datagrams that a socket or the queue did not take",
    "unasked": "datagrams from an address that the guest has not asked",
    "flows_pushed_out": "flows that ended early to make room for others",
    "forwards": "forwards that there are now",
    "dials": "TCP connections that wait for their far end now",
    "pipes": "pipes that hold bytes of TCP connections now",
    "connections_most": "TCP connections that there may be",
}
"""What else the gateway counts since its process began."""


SERVED = {
    "dhcp_leases": "leases given or renewed",
    "dhcp_refused": "requests for an address that is not the guest's",
    "dhcp_declined": "addresses that a guest has found in use",
    "dhcp_malformed": "DHCP messages that make no sense",
    "names_answered": "questions for names that are ours",
    "names_asked": "questions passed on to the host's resolvers",
    "names_unanswered": "of these, those that no resolver answered",
    "names_failed": "of these, those that every resolver refused",
    "names_pushed_out": "questions and connections that ended early to make room for others",
    "names_silent": "connections for questions that ended because they were silent",
    "names_malformed": "questions that make no sense",
    "lan_malformed": "frames for the gateway that make no sense",
    "lan_dropped": "answers that the LAN did not take",
}
"""What the gateway has done for leases and names since its process began."""


def in_order(counted: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return what a gateway counted as ``flows``, ``refused``, ``relayed`` and ``served``.

    Each word of the tables is there, and every other one that was counted. The relay counts all flows of
    datagrams as ``flows``, of which some are ``pings``.
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
