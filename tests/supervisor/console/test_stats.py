"""Answers made from readings: the place of each counter, and no count ever vanishes."""

import os

from hypothesis import given
from hypothesis import strategies as st

from forwarder import _core
from forwarder.names import GATEWAY_MAC, Identity, Policy, PortRecord
from supervisor.console import stats
from supervisor.console.lost_frames import Departed
from supervisor.console.readings import Reading, Switch, Usage
from supervisor.ports.view import PortView

SWITCH = Switch(epoch=2**62, sequence=12, started=100.0, identity=Identity(1, 1))
USAGE = Usage(0.3, 0.42, 1000, 900, 1, 14, 10)


def view(port, born=None, epoch=None, pinned=(), **changes):
    born = born or port
    record = PortRecord(port, epoch or born, born, f"qemu-{port}", "qemu", Policy(pinned))
    live = {"state": "live", "stalled": False, "unfinished": False, "since": 101.0}
    worker = {"identity": Identity(port + 10, 5), "restarts": 0}
    return PortView(record, **(live | worker | changes))


def reading(born, losses=(), macs=(), **counters):
    return Reading(born, counters, losses, macs)


def answer(views, readings, departed=None, **options):
    usage = {each.identity: USAGE for each in views if each.identity} | {SWITCH.identity: USAGE}
    return stats.stats(SWITCH, views, readings, usage, departed or Departed(), now=104.0, **options)


def test_the_answer_is_the_published_contract():
    counters = {
        "rx_frames": 10,
        "rx_bytes": 1514,
        "tx_frames": 11,
        "tx_bytes": 1515,
        "flooded": 1,
        "egress_bytes": 7,
        "eagain": 2,
        "enobufs": 3,
        "runt": 4,
        "oversize": 5,
        "spoofed": 6,
        "stale_ring": 8,
        "sources": 23,
        "flood_lost": 9,
        "guarded": 21,
        "over_rate": 22,
        "storm": 10,
        "isolated": 11,
        "mac_limit": 12,
        "offload": 16,
        "refused": 13,
        "hairpin": 14,
        "filtered": 15,
        "turns": 20,
    }
    got = answer([view(1, epoch=3, restarts=2)], {1: reading(1, **counters)})
    assert got["epoch"] == str(2**62)
    assert got["sequence"] == 12
    assert got["uptime_s"] == 4.0
    assert got["supervisor"] == {"pid": 1} | USAGE._asdict()
    (port,) = got["ports"]
    assert {key: value for key, value in port.items() if key != "loop"} == {
        "port": 1,
        "name": "qemu-1",
        "transport": "qemu",
        "state": "live",
        "stalled": False,
        "since_s": 3.0,
        "worker": {"pid": 11, "epoch": 3, "restarts": 2} | USAGE._asdict(),
        "rx": {"frames": 10, "bytes": 1514},
        "tx": {"frames": 11, "bytes": 1515},
        "flooded": 1,
        "egress_queue_bytes": 7,
        "retries": {"eagain": 2, "enobufs": 3},
        "drops": {
            "egress_full": 9,
            "runt": 4,
            "oversize": 5,
            "spoofed": 6,
            "guarded": 21,
            "over_rate": 22,
            "storm": 10,
            "isolated": 11,
            "offload": 16,
            "mac_limit": 12,
            "sources": 23,
            "stale_ring": 8,
            "refused": 13,
        },
        "filtered": {"hairpin": 14, "filtered": 15},
    }
    assert port["loop"]["turns"] == 20


def test_every_counter_of_the_core_is_shown_somewhere():
    page = _core.stats_page_create()
    counted = set(_core.StatsPage(page).counters())
    os.close(page)
    traffic = {name for names in stats.TRAFFIC.values() for name in names}
    shown = {*traffic, *stats.RETRIES, *stats.DROPS, *stats.FILTERED, *stats.LOOP}
    assert counted == shown | {"flooded", "egress_bytes", "flood_lost"}


def test_losses_of_a_source_are_shown_at_the_destination():
    readings = {
        1: reading(1, losses=[(2, 2, 100, 0), (3, 3, 5, 0)]),
        2: reading(2, losses=[(1, 1, 0, 7)], flood_lost=7),
        3: reading(3, losses=[(2, 2, 20, 0)]),
    }
    ports = answer([view(1), view(2), view(3)], readings, sources=True)["ports"]
    assert [port["drops"]["egress_full"] for port in ports] == [0, 127, 5]
    assert ports[1]["by_source"] == [{"port": 1, "egress_full": 107}, {"port": 3, "egress_full": 20}]
    assert ports[2]["by_source"] == [{"port": 1, "egress_full": 5}]


def test_losses_towards_the_last_owner_of_a_number_are_not_shown():
    readings = {1: reading(1, losses=[(2, 2, 100, 0)]), 2: reading(9)}
    ports = answer([view(1), view(2, born=9)], readings, sources=True)["ports"]
    assert ports[1]["drops"]["egress_full"] == 0
    assert ports[1]["by_source"] == []


def test_losses_of_a_departed_source_stay_with_the_destination():
    readings = {1: reading(1, losses=[(2, 2, 100, 0), (3, 77, 9, 0)]), 2: reading(2), 3: reading(3)}
    departed = Departed()
    departed.fold(1, readings)
    del readings[1]
    got = answer([view(2), view(3)], readings, departed, sources=True)
    assert [port["drops"]["egress_full"] for port in got["ports"]] == [100, 0]
    assert got["ports"][0]["by_source"] == [{"port": None, "egress_full": 100}]


def test_a_departed_port_leaves_its_totals_and_no_row_about_itself():
    readings = {
        1: reading(1, losses=[(2, 2, 100, 0)]),
        2: reading(2, rx_frames=3, tx_bytes=4, runt=2, flood_lost=1),
    }
    departed = Departed()
    departed.fold(1, readings)
    del readings[1]
    departed.fold(2, readings)
    got = answer([], {}, departed)["departed"]
    assert got["ports"] == 2
    assert got["rx"]["frames"] == 3
    assert got["tx"]["bytes"] == 4
    assert got["drops"]["runt"] == 2
    assert got["drops"]["egress_full"] == 101
    assert departed.towards == {}


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 9)), max_size=8),
    st.permutations([1, 2, 3, 4]),
)
def test_no_loss_vanishes_when_ports_leave_in_any_order(lost, leaving):
    rows = {
        port: [(peer, peer, frames, 0) for source, peer, frames in lost if source == port != peer]
        for port in range(1, 5)
    }
    readings = {port: reading(port, losses=rows[port]) for port in rows}
    total = sum(frames for losses in rows.values() for _, _, frames, _ in losses)
    departed = Departed()
    while True:
        got = answer([view(port) for port in readings], readings, departed)
        drops = [port["drops"]["egress_full"] for port in [*got["ports"], got["departed"]]]
        assert sum(drops) == total
        if not leaving:
            break
        port = leaving.pop()
        departed.fold(port, readings)
        del readings[port]


def test_a_port_without_a_worker_has_nulls_and_its_counters():
    (port,) = answer([view(1, identity=None, state="waiting")], {1: reading(1, rx_frames=3)})["ports"]
    assert port["worker"]["pid"] is None
    assert port["worker"]["cpu_percent"] is None
    assert port["rx"]["frames"] == 3


def test_a_port_that_has_no_block_yet_has_zeros():
    (port,) = answer([view(1, state="pending")], {}, sources=True)["ports"]
    assert port["rx"] == {"frames": 0, "bytes": 0}
    assert port["by_source"] == []


def test_ports_are_in_the_order_of_their_numbers():
    assert [port["port"] for port in answer([view(3), view(1), view(2)], {})["ports"]] == [1, 2, 3]


def test_status_names_macs_and_moves_no_figure_of_its_own():
    seen = [(bytes([2, 0, 0, 0, 0, 1]), 5, False)]
    got = stats.status(SWITCH, [view(1)], {1: reading(1, macs=seen)}, {1: ["10.0.0.5"]}, now=104.0)
    assert got["supervisor"] == {"pid": 1, "cell": {}}
    assert got["ports"] == [
        {
            "port": 1,
            "name": "qemu-1",
            "transport": "qemu",
            "state": "live",
            "stalled": False,
            "since_s": 3.0,
            "worker": {"pid": 11, "epoch": 1, "restarts": 0},
            "macs": ["02:00:00:00:00:01"],
            "addresses": ["10.0.0.5"],
            "settings": {
                "pinned": [],
                "flood_unknown": True,
                "broadcast_per_s": 2_000,
                "multicast_per_s": 20_000,
                "unknown_per_s": 20_000,
                "bytes_per_s": 0,
                "max_macs": 1024,
                "isolated": False,
                "reaches": [],
                "offload": "none",
                "mtu": 0,
                "receive": "mtu",
                "guard": None,
            },
            "notes": [],
        }
    ]


def gateway(port):
    record = PortRecord(port, port, port, "gateway", "gateway", Policy((GATEWAY_MAC,)))
    return view(port)._replace(record=record)


def test_the_gateway_is_told_the_ports_of_addresses_but_its_own():
    one, two = bytes([82, 0, 0, 0, 0, 1]), bytes([82, 0, 0, 0, 0, 2])
    readings = {
        1: reading(1, macs=[(one, 50, False), (two, 1, False)]),
        2: reading(2, macs=[(one, 3, False)]),
        3: reading(3, macs=[(GATEWAY_MAC, 0, True)]),
    }
    views = [view(1), view(2), gateway(3), view(4)]
    assert stats.addresses(views, readings) == {"52:00:00:00:00:01": 2, "52:00:00:00:00:02": 1}


def test_the_gateway_is_told_the_traffic_of_all_vms_that_there_were_and_its_own():
    departed = Departed()
    readings = {
        number: reading(number, rx_frames=number, rx_bytes=10 * number, tx_frames=5, tx_bytes=100)
        for number in (1, 2, 3, 4)
    }
    departed.fold(1, readings)
    departed.fold(2, readings, of_gateway=True)
    left = {number: readings[number] for number in (3, 4)}
    assert stats.traffic([view(3), gateway(4), view(5)], left, departed) == {
        "vms": {"rx": {"frames": 4, "bytes": 40}, "tx": {"frames": 10, "bytes": 200}},
        "gateway": {"rx": {"frames": 4, "bytes": 40}, "tx": {"frames": 5, "bytes": 100}},
    }


def test_macs_lists_pinned_addresses_that_were_never_seen():
    quiet, busy, other = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3))
    views = [view(1, pinned=(quiet, busy)), view(2)]
    readings = {1: reading(1, macs=[(busy, 4, True)]), 2: reading(2, macs=[(other, 9, False)])}
    rows = stats.macs(SWITCH, views, readings, now=104.0)["macs"]
    assert [(row["mac"], row["port"], row["age_s"], row["pinned"]) for row in rows] == [
        ("02:00:00:00:00:01", 1, None, True),
        ("02:00:00:00:00:02", 1, 4, True),
        ("02:00:00:00:00:03", 2, 9, False),
    ]


def notes_of(port_view, **counters):
    answer = stats.status(SWITCH, [port_view], {1: Reading(1, counters)}, {}, now=103.0)
    return answer["ports"][0]["notes"]


def test_status_has_notes_that_figures_do_not_show():
    plain = view(1)
    limited = plain._replace(record=plain.record._replace(policy=Policy(mtu=1500)))
    large = plain._replace(record=plain.record._replace(policy=Policy(receive="large")))
    (unfinished,) = notes_of(view(1, unfinished=True))
    assert "`supervisor set qemu-1 offload=tso`" in unfinished
    assert notes_of(plain, refused=7) == notes_of(limited, refused=0) == []
    assert notes_of(limited, refused=1700) == [
        "1,700 frames to it were refused: they were longer than its MTU of 1500, or than its socket takes"
    ]
    assert "longer than packets of 64 KiB" in notes_of(large, refused=1)[0]
