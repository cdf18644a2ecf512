"""Each table of each command on a narrow terminal: nothing beside it, and no figure or address cut."""

import pytest

from forwarder import counted
from forwarder.names import Policy
from supervisor.ports.settings import plain
from supervisor.screen import detail, tables, top
from supervisor.screen.keys import FIRST
from supervisor.screen.rates import Trail
from supervisor.screen.stats import stats
from supervisor.screen.status import status
from tests.helpers.answers import answer, port, text

LONG = "a-name-that-is-much-longer-than-a-terminal-is-wide-and-goes-on-x"
MAC, ADDRESS, SIX = "02:00:00:00:00:01", "192.168.127.254", "fd12:3456:789a:1234:5678:9abc:def0:1234"
LARGE = 123_456_789_012
PORTS = [
    port(
        1023,
        LONG,
        transport="dial_vhost",
        since_s=3e6,
        stalled=True,
        addresses=[ADDRESS, SIX],
        macs=[MAC],
        rx={"frames": LARGE, "bytes": LARGE},
        tx={"frames": LARGE, "bytes": LARGE},
    ),
    port(2, "vm", macs=[MAC], addresses=[]),
]
LEASE = {
    "address": ADDRESS,
    "mac": MAC,
    "port": 1023,
    "port_name": LONG,
    "name": LONG,
    "state": "bound",
    "expires_s": 3599,
}
SWITCH = {
    "name": LONG,
    "state": "live",
    "ports": 250,
    "uptime_s": 3e6,
    "runtime_dir": f"/run/user/1000/{LONG}",
}
GATEWAY = {
    "state": "live",
    "flows": dict.fromkeys(counted.FLOWS, LARGE),
    "refused": dict.fromkeys(counted.REFUSED, LARGE),
    "relayed": dict.fromkeys(counted.RELAYED, LARGE),
    "served": dict.fromkeys(counted.SERVED, LARGE),
}
PAST = {"seconds": 60.0, "rx_bytes": [LARGE] * 60, "tx_bytes": [0] * 60, "drops": [None] * 60}


def rows():
    trail = Trail()
    trail.follow(answer(*PORTS, uptime_s=1.0))
    return trail.follow(answer(*PORTS, uptime_s=2.0))


DRAWN = {
    "status": lambda room: status(answer(*PORTS), room),
    "status --all": lambda room: status(answer(*PORTS), room, everything=True),
    "stats": lambda room: stats(answer(*PORTS, gateway=GATEWAY), room),
    "stats --all": lambda room: stats(answer(*PORTS, gateway=GATEWAY), room, everything=True),
    "macs": lambda room: tables.macs(
        {"macs": [{"mac": MAC, "port": 1023, "name": LONG, "age_s": 90_061, "pinned": True}]}, room
    ),
    "leases": lambda room: tables.leases({"leases": [LEASE]}, room),
    "show": lambda room: tables.settings(
        {"name": LONG, "settings": plain(Policy(pinned=tuple(bytes([2, 0, 0, 0, 0, n]) for n in range(8))))}
    ),
    "list": lambda room: tables.running([SWITCH], room),
    "top": lambda room: top.screen(answer(*PORTS), rows(), room, FIRST, 40),
    "top, one port": lambda room: detail.detail(rows()[0], {"minute": PAST, "hour": PAST}, room),
    "top, ?": lambda room: top.help_text(),
}
WHOLE = {
    "status": [MAC, ADDRESS, SIX[-8:]],
    "stats": [f"{LARGE:,}"],
    "macs": [MAC, "1 d 01:01", "pinned"],
    "leases": [MAC, ADDRESS, "59:59"],
}
"""What is there in one piece."""


@pytest.mark.parametrize("room", [40, 80])
@pytest.mark.parametrize("command", DRAWN)
def test_a_table_fits_the_terminal_and_is_readable(command, room):
    said = text(DRAWN[command](room), room)
    assert max(map(len, said.splitlines())) <= room
    assert "…" not in said
    for words in WHOLE.get(command.partition(" ")[0], []):
        assert words in said, words


def test_top_has_no_line_too_many_where_its_lines_are_folded():
    ports = [port(number, f"vm-{number}", stalled=True) for number in range(1, 60)]
    trail = Trail()
    trail.follow(answer(*ports, uptime_s=1.0))
    drawn = text(top.screen(answer(*ports), trail.follow(answer(*ports, uptime_s=2.0)), 40, FIRST, 24), 40)
    assert len(drawn.splitlines()) <= 24
    assert "q quit" in drawn
