"""Records of the gateway about leases become events; one that is none ends the gateway."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.errors import PeerError
from forwarder.names import PortId
from gateway.leases import news
from supervisor.base.events import Event, EventLog
from supervisor.base.logs import log
from supervisor.gateway.lease_events import SENTENCES, say_lease

RECORD: dict[str, object] = {
    "word": "given",
    "port": 3,
    "born": 7,
    "mac": "52:54:00:00:00:0a",
    "address": "192.168.127.5",
    "host": "web-vm",
    "more": 0,
}


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[EventLog]:
    before = log.level
    log.setLevel(logging.INFO)
    events = EventLog(str(tmp_path / "events"))
    yield events
    events.end(keep=False)
    log.setLevel(before)


def said(kept: EventLog, lost: int = 0, **changes: object) -> Event:
    say_lease(RECORD | changes, lost, {PortId(3, 7): "web"}.get)
    return kept.after(0)[0][-1]


def test_every_word_of_the_gateway_has_a_sentence(kept: EventLog) -> None:
    assert set(SENTENCES) == set(news.WORDS)
    for word in news.WORDS:
        assert said(kept, word=word)["event"] in ("lease", "lease-refused")


def test_a_lease_is_an_event_with_its_fields(kept: EventLog) -> None:
    event = said(kept)
    assert event["message"] == "port 3 (web): 52:54:00:00:00:0a has the address 192.168.127.5"
    wanted = {"event": "lease", "state": "given", "port": 3, "name": "web", "mac": "52:54:00:00:00:0a"}
    assert wanted.items() <= event.items()
    assert (event["address"], event["host"], "more" in event) == ("192.168.127.5", "web-vm", False)
    ended = said(kept, word="expired", born=8)
    assert ended["message"] == (
        "port 3: 52:54:00:00:00:0a no longer has the address 192.168.127.5: "
        "it did not renew the lease in time"
    )
    assert (ended["state"], ended["reason"], "name" in ended) == ("ended", "expired", False)


def test_events_that_were_left_out_are_counted(kept: EventLog) -> None:
    event = said(kept, 5, word="no-address", address="", more=40)
    assert (event["event"], event["reason"], event["more"]) == ("lease-refused", "no-address", 45)
    assert str(event["message"]).endswith(", and 45 more events of its leases")
    assert "address" not in event


def test_a_name_that_is_none_is_left_out(kept: EventLog) -> None:
    assert "host" not in said(kept, host="<b>\n")
    assert said(kept, mac="00:00:00:00:00:00")["mac"] == "00:00:00:00:00:00"  # a guest may send from it


@pytest.mark.parametrize(
    "lie",
    [
        {"word": "stolen"},
        {"mac": "52:54"},
        {"mac": "zz:zz:zz:zz:zz:zz"},
        {"address": "1.2.3"},
        {"address": "::1"},
        {"port": "3"},
        {"more": 1.5},
        {"host": None},
    ],
)
def test_a_record_that_is_none_is_refused(kept: EventLog, lie: dict[str, Any]) -> None:
    with pytest.raises(PeerError):
        said(kept, **lie)
    assert kept.after(0)[0] == []
