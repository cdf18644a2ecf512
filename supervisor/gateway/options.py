"""The options of ``supervisor run`` for the gateway: their names, and the kind of value of each.

One table for flags and file. Here only names and kinds are checked (a number, a list). The gateway itself
checks what a value means, before the switch is ready.
"""

from typing import NamedTuple

from forwarder.errors import LocalError


class Option(NamedTuple):
    """One row of OPTIONS."""

    kind: type
    """``str``, ``int``, ``bool``, or ``list`` of text."""
    form: str
    """How a value is written, for help."""
    help: str


OPTIONS = {
    "subnet": Option(
        str, "NETWORK", "IPv4 subnet of the LAN; the gateway gets .1.  [default: 192.168.127.0/24]"
    ),
    "mtu": Option(int, "BYTES", "MTU of the LAN, announced to the VMs.  [default: 1500]"),
    "outbound": Option(bool, "", "Refuse connections of the VMs to anything but the host.  [default: allow]"),
    "host-access": Option(
        bool, "", "Refuse connections of the VMs to the host's loopback, at .254.  [default: allow]"
    ),
    "deny": Option(list, "NETWORK", "Network that the VMs may not reach.  [default: none]"),
    "allow": Option(
        list, "NETWORK", "Network of cloud metadata addresses that the VMs may reach.  [default: none]"
    ),
    "forward": Option(
        list, "FORWARD", "Port or socket of the host to forward to a VM; `forward add --help` has the forms."
    ),
    "ssh-port": Option(
        int, "PORT", "Port of the host's loopback to forward to port 22 of the VM at .2.  [default: none]"
    ),
    "resolver": Option(list, "ADDRESS[:PORT]", "Upstream DNS server.  [default: those of /etc/resolv.conf]"),
    "services": Option(
        str, "PATH|unix://PATH", "Socket at which to serve gvproxy's HTTP API.  [default: none]"
    ),
    "search-domain": Option(
        list, "NAME", "DNS search domain announced to the VMs.  [default: containers.internal]"
    ),
    "static-lease": Option(
        list,
        "MAC=ADDRESS[,NAME]",
        "Fixed address of one VM, and its DNS name.  [default: .2 for podman's MAC]",
    ),
    "dns-record": Option(list, "NAME=ADDRESS", "DNS record for the VMs.  [default: host and gateway]"),
}


def checked(key: str, value: object) -> object:
    """Return ``value`` if it is of the right kind. Raises LocalError if not, or if there is no such key."""
    option = OPTIONS.get(key)
    if option is None:
        raise LocalError(f"unknown key in gateway; known are {', '.join(OPTIONS)}")
    if type(value) is not option.kind:
        raise LocalError(f"has to be {_KINDS[option.kind]}")
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise LocalError("has to be a list of text")
    return value


_KINDS = {str: "text", int: "a number", bool: "true or false", list: "a list"}
