"""Names for real guests: every type of record, TCP, resolvers that change, silent connections."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.gateway import dns_client
from tests.helpers.gateway.dns_client import Resolver, answer
from tests.helpers.gateway.place import FOUND, GATEWAY, OUTSIDE, NewNamespace, Place
from tests.helpers.guests import requirements
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.pump import Pump
from tests.helpers.guests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.guest

TYPES = ("A", "AAAA", "CNAME", "MX", "TXT", "NS", "SOA", "SRV", "HTTPS", "CAA", "PTR", "ANY")
MANY = [f"10.0.0.{number}" for number in range(100)]


@pytest.fixture
def resolver() -> Iterator[Callable[..., Resolver]]:
    """Make resolvers in a namespace: ``resolver(room, address, port)``."""
    with contextlib.ExitStack() as stack:

        def make(room: Namespace, address: str, port: int = 53, found: str = FOUND) -> Resolver:
            def reply(name: str, data: bytes, by_tcp: bool) -> bytes | None:
                if name.startswith("silent") or (name.startswith("streamed") and not by_tcp):
                    return None
                if name.startswith("long"):
                    return answer(data, *MANY) if by_tcp else answer(data, truncated=True)
                return answer(data, found)

            return stack.enter_context(
                contextlib.closing(room.inside(lambda: Resolver(reply, address, port)))
            )

        yield make


def dig(room: Namespace, *words: str) -> str:
    """Ask as people do; return what dig says."""
    return room.run(f"dig @{GATEWAY} +tries=1 +time=30 {' '.join(words)}")


def test_twelve_types_of_our_names_are_answered_here_and_of_others_there(
    place: Callable[..., Place], resolver: Callable[..., Resolver]
) -> None:
    requirements.require(("dig",))
    here = place("--dns-record", "api.shop.test=192.168.127.9", "--resolver", f"{OUTSIDE}:5300")
    outside = resolver(here.internet, OUTSIDE, 5300)
    for name in ("api.shop.test", "host.containers.internal", "gateway", "localhost"):
        for kind in TYPES:
            said = dig(here.guest, name, kind)
            assert "status: NOERROR" in said, (name, kind)
            assert ("ANSWER: 0" not in said) == (
                kind in ("A", "ANY") or (kind == "AAAA" and "shop" not in name)
            )
    for kind in TYPES:
        assert "status: NXDOMAIN" in dig(here.guest, "nobody", kind)
    assert "gateway.containers.internal." in dig(here.guest, "-x", GATEWAY)
    assert "status: NXDOMAIN" in dig(here.guest, "-x", "192.168.127.99")
    assert outside.asked == []
    for kind in TYPES:
        assert "status: NOERROR" in dig(here.guest, "www.example.com", kind)
    assert len(outside.asked) >= len(TYPES)  # again, where an answer was slow
    assert dig(here.guest, "+tcp", "+short", "www.example.com").strip() == FOUND
    assert dig(here.guest, "+short", "long.example.com").split() == MANY  # cut short, and asked again by TCP
    assert "status: REFUSED" in dig(here.guest, "-c", "CH", "version.bind", "TXT")
    assert "status: NOTIMP" in dig(here.guest, "+opcode=notify", "www.example.com")


def test_the_hosts_resolvers_are_asked_in_order_and_followed(
    place: Callable[..., Place], resolver: Callable[..., Resolver], tmp_path: Path
) -> None:
    requirements.require(("dig",))
    here = place(resolv_conf="nameserver fe80::1\nnameserver 127.0.0.9\nnameserver 127.0.0.1\n")
    resolver(here.host, "127.0.0.1")
    silent = here.host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with silent:
        silent.bind(("127.0.0.9", 53))
        for number in range(2):
            assert dig(here.guest, "+short", f"n{number}.example").strip() == FOUND
            assert dig(here.guest, "+tcp", "+short", f"n{number}.example").strip() == FOUND
    resolver(here.host, "127.0.0.7", found="203.0.113.9")
    here.say_resolvers("nameserver 127.0.0.7\n")
    wait_for(
        lambda: dig(here.guest, "+short", "changed.example").strip() == "203.0.113.9", "the new resolver"
    )
    here.say_resolvers("options edns0\n")
    wait_for(
        lambda: dig(here.guest, "+short", "not-said.example").strip() == FOUND, "the resolver of this machine"
    )
    here.say_resolvers("nameserver 127.0.0.7\noptions use-vc\n")
    wait_for(lambda: dig(here.guest, "+short", "again.example").strip() == "203.0.113.9", "TCP alone")
    assert dig(here.guest, "+short", "streamed.example").strip() == "203.0.113.9"
    assert "flags: qr tc" in dig(here.guest, "+ignore", "long.example")


def test_a_guest_that_holds_silent_connections_stops_no_other(
    place: Callable[..., Place], resolver: Callable[..., Resolver], namespace: NewNamespace
) -> None:
    here = place("--resolver", f"{OUTSIDE}:5300")
    resolver(here.internet, OUTSIDE, 5300)
    mallory = namespace("mallory")
    with contextlib.ExitStack() as stack:
        tap = mallory.open_tap("52:54:00:00:00:0b")
        stack.enter_context(contextlib.closing(Pump(tap, f"unix://{here.switch.qemu}")))
        here.switch.wait_live(3)
        mallory.run("ip addr add 192.168.127.66/24 dev eth0")
        mallory.ping(GATEWAY)
        for said in (b"", b"\0", b"\0\x20half a question", b"\xff\xff" + bytes(1000)):
            for _ in range(30):
                sock = mallory.inside(lambda: socket.create_connection((GATEWAY, 53), PATIENCE))
                stack.enter_context(sock)
                sock.sendall(said)
        pipelined = dns_client.query("silent.example", 1)
        sock = mallory.inside(lambda: socket.create_connection((GATEWAY, 53), PATIENCE))
        stack.enter_context(sock)
        sock.sendall((len(pipelined).to_bytes(2, "big") + pipelined) * 50)
        for number in range(8):
            for words in ("", "+tcp"):
                assert dig(here.guest, words, "+short", f"n{number}.example").strip() == FOUND
        wait_for(lambda: ended(here) >= 90, lambda: f"connections beyond the share to end, not {ended(here)}")


def ended(here: Place) -> int:
    """Return how many connections for questions the gateway has ended, or never begun."""
    gateway = here.switch.json("stats")["gateway"]
    return sum(gateway["served"][word] for word in ("names_pushed_out", "names_silent")) + int(
        gateway["refused"]["no_port"]
    )
