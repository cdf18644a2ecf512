"""The demo's course, verdict and looks, without a process: reports and answers in, a verdict out."""

import pytest

from forwarder.errors import LocalError
from supervisor.demo import course, view
from supervisor.demo.course import AFTER, BEFORE, STUCK, Play
from supervisor.demo.results import MIN_RATE, Evidence, Measured, complaints
from tests.helpers.answers import answer, port, text

PORTS = {1: "alice", 2: "bob", 3: "carol", 4: "dave"}
US = 1000


def report(at, count=0, age=100 * US, **changes):
    counters = {"sent": count, "received": count, "bad": 0, "lost": 0}
    return {"at": at, **counters, "round_trips": {str(age): 10}} | changes


def measured(rate, age=100 * US):
    made = Measured()
    made.add(report(0.0))
    made.add(report(2.0, 2 * rate, age))
    return made


def evidence(**changes):
    drops = {"alice": 0, "bob": 0, "carol": 0, "dave": 500}
    usual = {"before": measured(1000), "during": measured(1000), "stuck": "dave", "drops": drops}
    return Evidence(**(usual | {"lost": 0, "bad": 0, "stalled": True} | changes))


def test_the_first_report_is_only_the_baseline():
    made = Measured()
    assert made.rate("sent") == 0
    assert made.latency(0.5) is None
    made.add(report(10.0, 5000, age=7))
    assert made.round_trips == {}
    made.add(report(10.5, 5100, age=9))
    made.add(report(12.0, 5400, age=9))
    assert made.seconds == 2.0
    assert made.count("sent") == 400
    assert made.rate("received") == 200
    assert made.round_trips == {9: 20}


def test_a_percentile_is_the_latency_that_this_share_did_not_exceed():
    made = Measured()
    made.add(report(0.0))
    made.add(report(1.0, round_trips={str(age * US): 1 for age in range(1, 101)}))
    assert made.latency(0.5) == 50e-6
    assert made.latency(0.99) == 99e-6
    assert made.latency(1.0) == 100e-6


def test_there_is_no_failure_if_the_others_are_not_affected():
    assert complaints(evidence()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"during": measured(1000 * MIN_RATE - 1)}, "rate fell"),
        ({"during": Measured()}, "rate fell"),
        ({"before": Measured()}, "rate fell"),
        (
            {"before": measured(9, 20_000 * US), "during": measured(9, 62_000 * US)},
            "the median of their latency",
        ),
        ({"drops": {"alice": 1, "dave": 5}}, "1 frames for alice"),
        ({"drops": {"alice": 0, "dave": 0}}, "it was not stuck"),
        ({"lost": 3}, "lost 3"),
        ({"bad": 3}, "damaged|changed"),
        ({"stalled": False}, "did not report"),
    ],
)
def test_every_effect_on_the_other_vms_is_a_complaint(changes, words):
    (complaint,) = complaints(evidence(**changes))
    assert any(word in complaint for word in words.split("|"))


def test_a_scheduling_hiccup_is_not_held_against_the_switch():
    assert complaints(evidence(before=measured(9, 100 * US), during=measured(9, 9000 * US))) == []


def test_dave_gets_one_message_at_the_start_of_each_phase():
    play = Play(PORTS, 10.0, started=50.0)
    told, phases = [], []
    for tick in range(101):
        told += play.turn(50.0 + tick / 10)
        phases.append(play.phase)
        assert play.over == (tick == 100)
    assert told == [("dave", "stuck"), ("dave", "resume")]
    assert phases == sorted(phases)
    assert set(phases) == {-1, BEFORE, STUCK, AFTER}


def seen(drops=0, stalled=False):
    counted = dict.fromkeys(port()["drops"], 0)
    ports = [
        port(number, f"p{number}", drops=counted | {"egress_full": drops if name == "dave" else 0})
        for number, name in PORTS.items()
    ]
    ports[3]["stalled"] = stalled
    return answer(*ports)


def played():
    play = Play(PORTS, 10.0, started=0.0)
    for tick in range(100):
        now = tick / 10
        for name in PORTS.values():
            play.hear(name, report(now, tick * 100))
        stuck = play.phase == STUCK
        play.see(seen(drops=tick if stuck else 0, stalled=stuck))
        play.turn(now)
    return play


def test_a_measurement_belongs_to_its_phase():
    play = played()
    found = play.evidence()
    assert complaints(found) == []
    assert found.before.rate("received") == pytest.approx(1000)
    assert found.during.rate("received") == pytest.approx(1000)
    assert found.drops["dave"] > 80
    assert found.drops["alice"] == 0
    assert play.pace() == pytest.approx((1000, 1000))


def test_the_screen_fits_and_names_the_stuck_vm():
    play = Play(PORTS, 10.0, started=0.0)
    play.hear("alice", report(0.0))
    for tick in range(60):
        play.hear("alice", report((tick + 1) / 10, (tick + 1) * 100))
        play.turn(tick / 10)
    assert play.phase == STUCK
    assert "attaching" in text(view.screen(play.moment("")))
    play.see(seen(5, stalled=True))
    shown = text(view.screen(play.moment("a line of the log")), width=110)
    for words in (
        "dave is stuck",
        "does not read",
        "stalled",
        "1.00 k round trips/s",
        "p99 100 µs",
        "a line of the log",
    ):
        assert words in shown
    line = view.line(play.moment(""))
    assert "dave is stuck" in line
    assert "drops: dave 5, others 0" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (1.24e-6, "1.24 µs"),
        (180e-6, "180 µs"),
        (999.6e-6, "1.00 ms"),
        (2.1e-3, "2.10 ms"),
        (1.5, "1500 ms"),
    ],
)
def test_latencies_have_three_digits(seconds, text):
    assert view.latency(seconds) == text


def test_the_summary_compares_and_judges():
    shown = text(view.summary(evidence(), (20_000, 20_000)))
    assert "Only dave was affected." in shown
    assert "alice 0, bob 0, carol 0, dave 500" in shown
    assert "at least 50%" in shown
    rates = next(line for line in shown.splitlines() if "round trips/s" in line)
    assert rates.split()[-5:] == ["1", "k", "1", "k", "1.00"]
    shown = text(view.summary(evidence(during=Measured(), lost=9), (20_000, 0)))
    assert "was affected" not in shown
    assert "lost 9 frames" in shown


def test_every_phase_is_long_enough_at_the_shortest():
    stuck_s = (course.BEGINS[AFTER] - course.BEGINS[STUCK]) * course.MIN_SECONDS
    assert stuck_s > 4  # the switch calls a VM stalled after 3 s


def test_too_little_time_is_refused_before_anything_is_started():
    with pytest.raises(LocalError, match="--seconds 10"):
        course.run(9.9)
