"""What ``supervisor run`` can be told about the gateway: the names, and what kind of value each has.

One table for flags and file. What a value means is checked by the gateway itself, before the switch is
ready; here only what TOML or a shell can get wrong is: the name, and whether it is a number or a list.
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
    "subnet": Option(str, "NETWORK", "Of the LAN; the gateway is .1 of it.  [default: 192.168.127.0/24]"),
    "mtu": Option(int, "BYTES", "Of the LAN, told to the VMs.  [default: 1500]"),
    "outbound": Option(bool, "", "Let the VMs reach nothing but the host."),
    "host-access": Option(bool, "", "Let the VMs not reach the host's loopback at .254."),
    "deny": Option(list, "NETWORK", "What the VMs may not reach."),
    "allow": Option(list, "NETWORK", "Let the VMs reach metadata addresses of clouds, which they may not."),
    "forward": Option(
        list, "FORWARD", "A port or socket of the host that leads to a VM: `forward add --help`."
    ),
    "ssh-port": Option(int, "PORT", "Forward that port of the host's loopback to SSH of the VM at .2."),
    "resolver": Option(list, "ADDRESS[:PORT]", "Who knows other names.  [default: as /etc/resolv.conf]"),
    "services": Option(str, "unix://PATH", "Serve gvproxy's HTTP API there."),
    "search-domain": Option(list, "NAME", "Told to the VMs.  [default: containers.internal]"),
    "static-lease": Option(list, "MAC=ADDRESS[,NAME]", "The address of one VM, and its name."),
    "dns-record": Option(list, "NAME=ADDRESS", "A name that the VMs can look up."),
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
