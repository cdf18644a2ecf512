"""The settings of the gateway: read from plain data, checked, and completed with defaults.

The supervisor knows the keys and passes their values on as text, numbers and lists. Only this module knows
their meaning, so each check and its error line has one place. The defaults are gvproxy's, so that guests,
scripts and forwards made for it find the same addresses:

    gateway .1, host alias .254, and .2 for the MAC address that podman machine and others give to their VM.

The IPv6 prefix is a unique local one (RFC 4193), computed from the subnet. A random prefix would change with
each restart, and guests would keep addresses of the old one.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple, TypeVar, cast

from forwarder.errors import LocalError, UsageError
from forwarder.names import GATEWAY_MAC, parse_mac
from forwarder.socket_address import SocketAddress, numeric, port_number
from forwarder.unix_sockets import SOCKET_PATH_BYTES
from gateway.api import names
from gateway.api.names import Record, Zone
from gateway.relay.policy import Address, Network, OutboundPolicy

DEVICE_MAC = "5a:94:ef:e4:0c:ee"
"""The VM with this MAC address gets .2, as with gvproxy."""

SUBNET = "192.168.127.0/24"
MTU = 1500
LEAST_MTU, MOST_MTU = 1280, 65520
"""IPv6 needs 1280. A TAP takes up to 65,521; the largest multiple of 8 below is used."""

SMALLEST, LARGEST = 28, 8
"""Prefix lengths: room for the gateway, the host alias, .2 and some leases; and 16 million of them."""

NO_LANS = tuple(IPv4Network(each) for each in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "240.0.0.0/4"))
"""Private in name (RFC 6890), but no guest can have an address there."""

MOST_NAMES = 4096
"""Static leases or records, at most: several for each possible VM, and they fit one message."""

DOMAIN = "containers.internal"
ALIASES = (DOMAIN, "docker.internal")
"""Domains in which ``host`` and ``gateway`` are known: gvproxy's and Docker's own."""

T = TypeVar("T")


class StaticLease(NamedTuple):
    """A guest with a fixed address, and a name if one is given."""

    mac: str
    address: IPv4Address
    name: str = ""


class Settings(NamedTuple):
    """The settings of one gateway."""

    policy: OutboundPolicy
    mtu: int
    search: tuple[str, ...]
    leases: tuple[StaticLease, ...]
    records: tuple[Record, ...]
    """DNS records that belong to no zone."""
    zones: tuple[Zone, ...]
    forwards: tuple[str, ...]
    kept_forwards: tuple[str, ...]
    """Taken over from an earlier gateway; may be empty."""
    services: str
    lease_file: str
    resolvers: tuple[SocketAddress, ...]
    """Those that are asked instead of the host's, best first."""

    @property
    def own_addresses(self) -> tuple[Address, ...]:
        """The addresses that only the gateway may claim: its own, the host alias's, its link-local one."""
        policy = self.policy
        return (policy.gateway4, policy.host4, self.gateway6, policy.host6, link_local(GATEWAY_MAC))

    @property
    def gateway6(self) -> Address:
        """The gateway's own IPv6 address."""
        return self.policy.prefix[1]


def read(plain: Mapping[str, object]) -> Settings:
    """Return the settings in ``plain``. Raises UsageError, which names the wrong one and a right form."""
    subnet = _read(plain, "subnet", SUBNET, _subnet)
    prefix = _prefix(subnet)
    policy = OutboundPolicy(
        subnet,
        prefix,
        subnet[1],
        subnet[-2],
        prefix[0x254],
        no_outbound=plain.get("outbound") is False,
        host_access=plain.get("host-access") is not False,
        deny=_each(plain, "deny", _network),
        allow=_each(plain, "allow", _network),
    )
    leases = _each(plain, "static-lease", lambda text: _lease(text, policy))
    if not any(lease.address == subnet[2] for lease in leases):
        leases = (*leases, StaticLease(DEVICE_MAC, subnet[2]))
    for index, lease in enumerate(leases):
        for other in leases[:index]:
            if lease.mac == other.mac or lease.address == other.address:
                raise UsageError(f"static-lease: {lease.mac} or {lease.address} is there twice; keep one")
            if lease.name and lease.name == other.name:
                raise UsageError(f"static-lease: the name {lease.name} is there twice; change one")
    return Settings(
        policy,
        _read(plain, "mtu", MTU, _mtu),
        _each(plain, "search-domain", names.domain) or (DOMAIN,),
        leases,
        _each(plain, "dns-record", _record),
        zones(plain) or _own_zones(policy),
        (*_read(plain, "ssh-port", None, lambda port: _ssh(port, subnet[2])), *_each(plain, "forward", str)),
        _each(plain, "kept-forward", str),
        _read(plain, "services", None, _socket_url),
        str(plain.get("lease-file") or ""),
        _each(plain, "resolver", _resolver),
    )


def link_local(mac: bytes) -> Address:
    """Return the IPv6 address that an interface gives itself (RFC 4291, appendix A)."""
    identifier = bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]))
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


def lease_range(subnet: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    """Return the first and the last address of the pool for leases."""
    return subnet[3], subnet[-3]


def zones(plain: Mapping[str, object]) -> tuple[Zone, ...]:
    """Return the zones that an earlier gateway left, if there was one. Raises UsageError."""
    return _each(plain, "dns-zone", Zone.parse)


def _own_zones(policy: OutboundPolicy) -> tuple[Zone, ...]:
    records = [Record("gateway", policy.gateway4), Record("gateway", policy.prefix[1])]
    if policy.host_access:
        records += [Record("host", policy.host4), Record("host", policy.host6)]
    return tuple([Zone(name, tuple(records)) for name in ALIASES])


def _ssh(port: object, guest: IPv4Address) -> tuple[str, ...]:
    if port is None:
        return ()
    if type(port) is not int or not 0 < port < 65536:
        raise ValueError(f"{port!r} is not a number from 1 to 65535")
    return (f"tcp:127.0.0.1:{port}:{guest}:22",)


def _prefix(subnet: IPv4Network) -> IPv6Network:
    digest = _sha256(f"bulkhead {subnet}".encode())
    return IPv6Network((b"\xfd" + digest[:5] + bytes(10), 64))


def _sha256(data: bytes) -> bytes:
    """Compute it without OpenSSL, which ``hashlib`` loads: 2 MiB in each process of the gateway."""
    for name in ("_sha2", "_sha256", "hashlib"):  # of Python 3.12, of earlier ones, of one without either
        with suppress(ImportError):
            return cast("bytes", import_module(name).sha256(data).digest())
    raise AssertionError("Python has no SHA-256")


def _read(plain: Mapping[str, object], key: str, default: object, parse: Callable[[object], T]) -> T:
    try:
        return parse(plain.get(key, default))
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None


def _each(plain: Mapping[str, object], key: str, parse: Callable[[str], T]) -> tuple[T, ...]:
    values = plain.get(key, [])
    if not isinstance(values, list) or len(values) > MOST_NAMES:
        raise UsageError(f"{key}: has to be a list of at most {MOST_NAMES}")
    try:
        return tuple([parse(str(value)) for value in values])
    except ValueError as error:
        raise UsageError(f"{key}: {error}") from None


def _subnet(value: object) -> IPv4Network:
    try:
        subnet = IPv4Network(str(value), strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no IPv4 network; write it like {SUBNET}") from None
    if IPv4Interface(str(value)).ip != subnet.network_address:
        raise ValueError(f"{value!r} has host bits set; did you mean {subnet}?")
    if not LARGEST <= subnet.prefixlen <= SMALLEST:
        raise ValueError(f"{subnet} has to be a /{LARGEST} to /{SMALLEST}")
    if not subnet.is_private or any(subnet.overlaps(each) for each in NO_LANS):
        raise ValueError(f"{subnet} is no private network; choose one like {SUBNET} or 10.77.0.0/16")
    return subnet


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no network; write it like 10.0.0.0/8 or 2001:db8::/32") from None


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def _resolver(text: str) -> SocketAddress:
    """Read ``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``."""
    host, separator, port = text.rpartition(":")
    if text.count(":") != 1 and not text.startswith("["):
        host, separator, port = text, "", ""
    number = port_number(port) if separator else 53
    if not number:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    return numeric(str(_address((host if separator else text).strip("[]"))), number)


def _lease(text: str, policy: OutboundPolicy) -> StaticLease:
    mac, _, rest = text.partition("=")
    address, _, name = rest.partition(",")
    if not rest:
        raise ValueError(f"{text!r} is no static lease; write it as MAC=ADDRESS or MAC=ADDRESS,NAME")
    try:
        parse_mac(mac)
    except LocalError as error:
        raise ValueError(str(error)) from None
    found = _address(address)
    if not isinstance(found, IPv4Address) or found not in policy.subnet:
        raise ValueError(f"{found} is outside of {policy.subnet}; lease an address of the subnet")
    own = (policy.gateway4, policy.host4, policy.subnet[0], policy.subnet[-1])
    if found in own:
        raise ValueError(f"{found} is kept for the gateway; lease another address")
    return StaticLease(mac.lower().replace("-", ":"), found, names.label(name) if name else "")


def _record(text: str) -> Record:
    name, separator, address = text.partition("=")
    if not separator:
        raise ValueError(f"{text!r} is no record; write it like db.lab=10.0.0.9")
    return Record(names.domain(name), names.address(address))


def _socket_url(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    scheme, separator, path = text.partition("://")
    if not separator:
        scheme, path = "unix", text  # the path alone
    if scheme == "unix" and path and not path.startswith("/"):
        raise ValueError(
            f"{text!r} has a relative path; write unix:///{path} (three slashes) or an absolute path"
        )
    if scheme != "unix" or not 1 < len(path.encode()) <= SOCKET_PATH_BYTES:
        most = f"at most {SOCKET_PATH_BYTES} bytes of path"
        raise ValueError(f"{text!r} is no address; write it as unix:///PATH, with {most}")
    return path


def _mtu(value: object) -> int:
    if type(value) is not int or not LEAST_MTU <= value <= MOST_MTU:
        raise ValueError(f"{value!r} is not a number from {LEAST_MTU} to {MOST_MTU}")
    return value
