"""Forwards as operators name them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from forwarder.errors import LocalError
from gateway.host_forwards import HostForwards
from gateway.relay.forwards import Forward

TEXTS = (
    "tcp:127.0.0.1:80:192.168.127.2:80",
    "udp:[::1]:53:192.168.127.3:53",
    "unix:/run/a.sock:192.168.127.2:80",
)


@pytest.fixture
def forwards() -> HostForwards:
    relay = SimpleNamespace(forwards=lambda: [Forward.parse(text) for text in TEXTS])
    return HostForwards(cast(Any, relay), cast(Any, None), cast(Any, None), lambda level, text: None)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        *((text, text) for text in TEXTS),
        ("tcp::80:192.168.127.2:80", TEXTS[0]),
        ("tcp::080:192.168.127.2:080", TEXTS[0]),
        ("tcp::80", TEXTS[0]),
        ("udp:[0:0::1]:53:192.168.127.3:53", TEXTS[1]),
        ("udp:[0:0::1]:53", TEXTS[1]),
        ("unix:/run/a.sock", TEXTS[2]),
    ],
)
def test_a_forward_is_found_by_each_way_to_write_it(forwards: HostForwards, named: str, found: str) -> None:
    assert str(forwards.find(named)) == found


@pytest.mark.parametrize(
    "named", ["", "tcp::81", "udp::80", "tcp::80:192.168.127.3:80", "tcp:[::1]:80", "unix:/run"]
)
def test_another_forward_is_not_found(forwards: HostForwards, named: str) -> None:
    with pytest.raises(LocalError, match="there is no forward"):
        forwards.find(named)
