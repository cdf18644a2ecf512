"""Parse the addresses at which VMs attach: URLs of listeners and names of TAP devices.

An ``Attachment`` holds an address with its settings, from the command line, the configuration file or
``supervisor attach``. Its ``url`` is its identity, so the same text detaches it again. Parsing checks
everything that can be checked without the system.
"""

import os
import socket
from typing import NamedTuple

from forwarder.errors import LocalError
from forwarder.names import MAX_NAME, Policy, valid_name
from forwarder.socket_address import port_number
from forwarder.unix_sockets import SOCKET_PATH_BYTES
from supervisor.base.paths import absolute

INTERFACE_BYTES = 15
NETNS_DIR = "/run/netns"

SCHEMES = {
    "qemu": ("unix", "tcp"),
    "bess": ("unixpacket",),
    "vfkit": ("unixgram",),
    "connect": ("unix",),
    "vhost": ("unix",),
    "dial_vhost": ("unix",),
}
"""For each transport that listens: its URL schemes, that of a socket with a path first."""

ANY_USER = ",allow=any"
"""Suffix of a TCP address: accept connections of every user of this machine, not only of our own and root."""

LISTEN_FLAGS = {
    "qemu": "listen-qemu",
    "bess": "listen-bess",
    "vfkit": "listen-vfkit",
    "connect": "listen",
    "vhost": "listen-vhost",
    "dial_vhost": "dial-vhost",
}
"""Transport to its flag on the command line and key in the configuration file, as gvproxy names them."""

SOCKET_TYPES = {
    "qemu": socket.SOCK_STREAM,
    "bess": socket.SOCK_SEQPACKET,
    "vfkit": socket.SOCK_DGRAM,
    "connect": socket.SOCK_STREAM,
    "vhost": socket.SOCK_STREAM,
}


class Listen(NamedTuple):
    """A socket that VMs connect to; ``path`` for all but tcp, ``host`` and ``port`` for tcp."""

    transport: str
    url: str
    path: str = ""
    host: str = ""
    port: int = 0
    any_user: bool = False
    """Whether a port on loopback takes connections of every user of the machine."""


class Tap(NamedTuple):
    """A TAP device; ``netns`` is the path of the network namespace that it is made in, or empty."""

    url: str
    name: str
    netns: str = ""


class PortOptions(NamedTuple):
    """Name and settings of the ports of one listener or TAP device."""

    name: str | None = None
    """The name of the first port; further ports of the same listener get ``-2``, ``-3``…"""
    policy: Policy = Policy()

    def checked(self) -> "PortOptions":
        """Return these settings. Raises LocalError if the name cannot be a port's."""
        if self.name is not None and not valid_name(self.name):
            raise LocalError(
                f"{self.name!r} cannot name a port; use up to {MAX_NAME} letters, digits and ._:@+-"
            )
        return self


class Attachment(NamedTuple):
    """One listener or TAP device with its settings."""

    address: Listen | Tap
    settings: PortOptions = PortOptions()


def same_place(one: str, other: str) -> bool:
    """Whether two URLs of attachments are of one socket or device: a socket has one kind."""
    return one.partition("://")[2] == other.partition("://")[2]


def parse_listen(transport: str, url: str) -> Listen:
    """Parse the value of a flag that listens: a URL, or the path alone. Raises LocalError."""
    allowed = SCHEMES[transport]
    path = path_in(url, allowed[0])
    if path is not None:
        return Listen(transport, f"{allowed[0]}://{path}", path)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in allowed:
        path = rest if separator and rest.startswith("/") else "/PATH"
        forms = " or ".join("tcp://HOST:PORT" if each == "tcp" else f"{each}://{path}" for each in allowed)
        raise LocalError(f"{url!r} is no address for {transport}; write it as {forms}")
    any_user = rest.endswith(ANY_USER)
    host, port = _host_and_port(url, rest.removesuffix(ANY_USER))
    return Listen(transport, url, host=host, port=port, any_user=any_user)


def path_in(url: str, scheme: str = "unix") -> str | None:
    """Return the absolute path in the URL of a socket, or in the path alone; None: it is another URL.

    Raises LocalError, with the right spelling, if no socket can have that path.
    """
    found, separator, rest = url.partition("://")
    if is_path(url):
        rest = absolute(url)
    elif not separator or found != scheme:
        return None
    if rest and not rest.startswith("/"):
        path = absolute(rest) if rest.startswith(".") else f"/{rest}"
        raise LocalError(
            f"{url!r} has a relative path; write {scheme}://{path} (three slashes) or the path alone"
        )
    return _socket_path(rest, url)


def is_path(text: str) -> bool:
    """Whether ``text`` is the path of a file, which may stand for the URL of a socket."""
    return text.startswith(("/", "./", "../"))


def _socket_path(path: str, what: str) -> str:
    if not path or "\0" in path:
        raise LocalError(f"{what!r} names no file; give the path of the socket")
    path = absolute(path)
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES:
        raise LocalError(
            f"{path} is too long: {size} bytes, and a socket has {SOCKET_PATH_BYTES} at most; shorten it"
        )
    return path


def parse_tap(text: str) -> Tap:
    """Parse ``NAME[,netns=NAME]``. Raises LocalError."""
    name, separator, option = text.partition(",")
    key, _, netns = option.partition("=")
    if separator and (key != "netns" or not netns):
        raise LocalError(f"{text!r} is no TAP device; write it as NAME or NAME,netns=NAME")
    size = len(os.fsencode(name))
    if not 0 < size <= INTERFACE_BYTES or "/" in name or not valid_name(name):
        raise LocalError(f"{name!r} cannot name an interface; use 1 to {INTERFACE_BYTES} letters and digits")
    if netns and "/" not in netns:
        netns = f"{NETNS_DIR}/{netns}"
    return Tap(f"tap://{text}", name, netns)


def parse_any(url: str) -> str:
    """Return the identity of the listener or TAP device that an operator names.

    A path stands for the listener with that socket, and becomes absolute. Other text stays as it is.
    """
    if is_path(url):
        return absolute(url)
    scheme, separator, rest = url.partition("://")
    if separator and scheme in ("unix", "unixpacket", "unixgram"):
        return f"{scheme}://{absolute(rest)}"
    return url


def _host_and_port(url: str, rest: str) -> tuple[str, int]:
    host, _, digits = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    port = port_number(digits)
    if not host or port is None:
        raise LocalError(
            f"{url!r} is no address; write it as tcp://HOST:PORT, with 0.0.0.0 for every address"
        )
    return host, port
