"""Figures of the documents are those of the code: a reader relies on them."""

from __future__ import annotations

import pytest

from forwarder import _core
from forwarder.names import Policy
from gateway.leases.lease import LEASE_S
from gateway.leases.table import GREED
from gateway.names import streams, upstream
from gateway.provisions import DNS_RATE
from supervisor.attach.protocol_guard import LONGEST_PAUSE_S
from supervisor.cli import web
from supervisor.fleet.takeover import CLAIM_S
from supervisor.gateway.questions import REPLACE_S
from supervisor.web.watch import INTERVAL_S
from tests.helpers.documents import ROOT
from workers.stall import STALL_S
from workers.supervisor_channel import ORPHAN_S

FIGURES = (
    ("operating", "frames have waited for the VM for three seconds", STALL_S, 3),
    ("operating", "less than 14 bytes", _core.MIN_FRAME, 14),
    ("operating", "more than 69,632", _core.MAX_FRAME, 69_632),
    ("operating", "bring its port back within 3 seconds", CLAIM_S, 3),
    ("operating", "Workers end after five minutes without a supervisor", ORPHAN_S, 300),
    ("operating", "pauses for up to 30 seconds", LONGEST_PAUSE_S, 30),
    ("operating", "replaced after 20 seconds", REPLACE_S, 20),
    ("operating", "then each second `live` (the rows of ports that have changed", INTERVAL_S, 1),
    ("operating", "http://127.0.0.1:9461/", web.DEFAULT, "tcp://127.0.0.1:9461"),
    ("ports", "| `limit-broadcast` | `2000/s` |", Policy().broadcast_per_s, 2000),
    ("ports", "| `limit-multicast`, `limit-unknown` | `20000/s` |", Policy().multicast_per_s, 20_000),
    ("ports", "| `limit-multicast`, `limit-unknown` | `20000/s` |", Policy().unknown_per_s, 20_000),
    ("ports", "| `limit-bandwidth` | `none` |", Policy().bytes_per_s, 0),
    ("ports", "| `limit-macs` | `1024` |", Policy().max_macs, 1024),
    ("gateway", "A lease lasts an hour", LEASE_S, 3600),
    ("gateway", "at most a fourth of the free addresses", GREED, 0.25),
    ("gateway", "after 1.5 seconds without an answer", upstream.STEP_S, 1.5),
    ("gateway", "1,000 questions a second", DNS_RATE[0], 1000),
    ("gateway", "128 under way", upstream.MOST_EACH, 128),
    ("gateway", "16 TCP connections", streams.MOST_EACH, 16),
)


@pytest.mark.parametrize(("document", "words", "value", "figure"), FIGURES, ids=[row[1] for row in FIGURES])
def test_a_figure_is_in_force(document: str, words: str, value: object, figure: object) -> None:
    text = " ".join((ROOT / "docs" / f"{document}.md").read_text().split())
    assert words in text, "the document has other words now: change them here, too"
    assert value == figure
