"""The DHCP server, without sockets: a guest's message and its port in, an answer out (RFC 2131 4.3).

Each guest is answered at once, from the table alone. The server does not probe an address first, which would
take seconds and delay all others. A guest that probes its address itself reports a duplicate (DECLINE).

A guest's message is a claim. If its ``chaddr`` is not the source of its frame, it is dropped and counted
(``dhcp_spoofed``). Its identifier (option 61) is ignored, since clones of one disk share it. A lease, its
release and its name belong to the MAC address and the port.

**Names.** A guest may choose its name. The name must be one label, must not be reserved (``RESERVED``, and
names that the operator has given), and must not belong to another lease in use. A name that looks like a MAC
address with dashes is allowed for that address only. A guest without a name is named after its MAC address,
with dashes.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import NamedTuple

from forwarder.names import format_mac, parse_mac
from gateway.api import names
from gateway.lan.frames import HEADERS
from gateway.leases import dhcp
from gateway.leases.dhcp import Message
from gateway.leases.lease import LASTS, LEASE_S, Lease, LeaseState
from gateway.leases.news import News
from gateway.leases.table import Leases
from gateway.ports import Port
from gateway.relay.counts import Counts
from gateway.settings import DOMAIN, Settings

RESERVED = frozenset(
    {
        *("localhost", "localdomain", "ip6-localhost", "ip6-loopback", "broadcasthost", "local", "invalid"),
        *("host", "gateway", "router", "dns", "wpad", "isatap"),
        *("_gateway", "_outbound", "_localdnsstub", "_localdnsproxy"),
    }
)
"""Names that a guest never gets: the gateway's, and those that programs look up by themselves (proxies,
tunnels; those with a line in front are systemd's, nss-myhostname(8))."""

_MAC_LIKE = re.compile(r"[0-9a-f]{2}(-[0-9a-f]{2}){5}")
_EVERYBODY = IPv4Address("255.255.255.255")
_NOBODY = IPv4Address(0)


class Answer(NamedTuple):
    """An answer: it goes to the Ethernet address that asked, and to this IP address."""

    to: IPv4Address
    payload: bytes


class Server:
    """The DHCP server of one gateway."""

    def __init__(
        self,
        settings: Settings,
        leases: Leases,
        is_configured: Callable[[str], bool],
        counters: Counts,
        news: News,
    ) -> None:
        """``is_configured`` says whether the operator has given this name."""
        self.own = settings.policy.gateway4
        self._leases = leases
        self._is_configured = is_configured
        self._counters = counters
        self._news = news
        leases.ended = news.ended
        self._fixed_names = {parse_mac(each.mac): each.name for each in settings.leases if each.name}
        self._options = _options(settings)
        self._most = settings.mtu - HEADERS[4]

    def answer(self, payload: bytes, mac: bytes, port: Port, now: float) -> Answer | None:
        """Answer a message that came in a frame from ``mac`` through ``port``."""
        message = dhcp.parse(payload)
        if message is None or message.relayed:
            self._counters["dhcp_malformed"] += 1
            return None
        if message.mac != mac:
            self._refuse("dhcp_spoofed", port, mac, f"for {format_mac(message.mac)}")
            return None
        if message.kind == dhcp.DISCOVER:
            return self._discover(message, port, now)
        if message.kind == dhcp.REQUEST:
            return self._request(message, port, now)
        if message.kind == dhcp.INFORM:
            to = _EVERYBODY if message.own == _NOBODY else message.own
            return Answer(to, self._reply(message, dhcp.ACK, _NOBODY, ()))
        self._give_up(message, port, now)
        return None

    def _discover(self, message: Message, port: Port, now: float) -> Answer | None:
        asked = message.address(dhcp.WANTED) or _NOBODY
        lease = self._leases.offer(message.mac, port, int(asked), now)
        if lease is None:
            self._counters["dhcp_no_address"] += 1
            self._news.refused("no-address", port, message.mac)
            return None
        if dhcp.RAPID_COMMIT in message.options:
            return self._granted(message, port, lease.address, now, ((dhcp.RAPID_COMMIT, b""),))
        return self._given(message, dhcp.OFFER, lease, ())

    def _request(self, message: Message, port: Port, now: float) -> Answer | None:
        server = message.address(dhcp.SERVER)
        wanted = message.address(dhcp.WANTED) or message.own
        if server is not None and server != self.own:
            mine = self._leases.of(message.mac, port)  # the guest has taken another server's offer
            if mine is not None:
                self._leases.release(message.mac, port, mine.address, now, "other-server")
            return None
        return self._granted(message, port, int(wanted), now, ())

    def _granted(
        self, message: Message, port: Port, address: int, now: float, more: tuple[tuple[int, bytes], ...]
    ) -> Answer:
        before = self._leases.of(message.mac, port)
        again = before is not None and before.state is LeaseState.BOUND
        lease = self._leases.bind(message.mac, port, address, now)
        if lease is None:
            self._counters["dhcp_refused"] += 1
            self._news.refused(self._why_not(address), port, message.mac, address)
            refusal = dhcp.reply(message, dhcp.NAK, self.own, _NOBODY, (), most=self._most)
            return Answer(_EVERYBODY, refusal)
        self._counters["dhcp_leases"] += 1
        self._name(lease, message.name)
        self._news.granted(lease, again=again)
        return self._given(message, dhcp.ACK, lease, more)

    def _why_not(self, address: int) -> str:
        """Return why an address cannot be leased to a guest that asks for it, as a word of ``news``."""
        holder = self._leases.at(address)
        return "in-use" if holder is not None and holder.state in LASTS else "not-offered"

    def _give_up(self, message: Message, port: Port, now: float) -> None:
        if message.kind == dhcp.RELEASE:
            self._leases.release(message.mac, port, int(message.own), now)
            return
        declined = message.address(dhcp.WANTED) or message.own
        if self._leases.decline(message.mac, port, int(declined), now):
            self._counters["dhcp_declined"] += 1
            self._news.refused("declined", port, message.mac, int(declined))

    def _name(self, lease: Lease, said: str) -> None:
        fixed = self._fixed_names.get(lease.mac)
        wanted = fixed or said.partition(".")[0].lower()
        own = format_mac(lease.mac).replace(":", "-")
        if not fixed and not self._may_be_called(wanted, own):
            wanted = lease.name or own
        if not self._leases.call(lease, wanted):
            self._refuse("dhcp_name_in_use", lease.port, lease.mac, wanted)
            if not lease.name:
                self._leases.call(lease, own)

    def _refuse(self, word: str, port: Port, mac: bytes, what: str) -> None:
        self._counters.refuse(word, f"port {port.number} ({format_mac(mac)})", what)

    def _may_be_called(self, name: str, own: str) -> bool:
        try:
            names.label(name)
        except ValueError:
            return False
        if name in RESERVED or self._is_configured(name) or name in self._fixed_names.values():
            return False
        return name == own or _MAC_LIKE.fullmatch(name) is None

    def _given(
        self, message: Message, kind: int, lease: Lease, more: tuple[tuple[int, bytes], ...]
    ) -> Answer:
        times = [
            (code, int(seconds).to_bytes(4, "big"))
            for code, seconds in (
                (dhcp.LEASE_TIME, LEASE_S),
                (dhcp.T1, LEASE_S / 2),
                (dhcp.T2, LEASE_S * 7 / 8),
            )
        ]
        yours = IPv4Address(lease.address)
        fixed = self._fixed_names.get(lease.mac)
        host = [(dhcp.HOST_NAME, fixed.encode())] if fixed else []
        payload = self._reply(message, kind, yours, (*more, *times, *host))
        if message.own != _NOBODY:
            return Answer(message.own, payload)
        return Answer(_EVERYBODY if message.wants_broadcast else yours, payload)

    def _reply(
        self, message: Message, kind: int, yours: IPv4Address, more: tuple[tuple[int, bytes], ...]
    ) -> bytes:
        return dhcp.reply(message, kind, self.own, yours, (*more, *self._options), most=self._most)


def _options(settings: Settings) -> tuple[tuple[int, bytes], ...]:
    """Return the options that every guest gets, the longest last."""
    policy = settings.policy
    own = policy.gateway4.packed
    return (
        (dhcp.MASK, policy.subnet.netmask.packed),
        (dhcp.ROUTER, own),
        (dhcp.DNS, own),
        (dhcp.BROADCAST, policy.subnet.broadcast_address.packed),
        (dhcp.MTU, settings.mtu.to_bytes(2, "big")),
        (dhcp.DOMAIN, DOMAIN.encode()),
        (dhcp.SEARCH, dhcp.search_list(settings.search)),
    )
