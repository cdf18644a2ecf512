"""Answers as text: how figures are written, and that nothing a person needs is cut out or misread."""

import io

import pytest
from rich.console import Console

from forwarder.names import Policy
from supervisor.ports.settings import plain
from supervisor.screen import tables
from supervisor.screen.figures import bits, duration, exact, octets, percent, scaled
from supervisor.screen.grid import Column
from tests.helpers.answers import port, text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.25, "0.25"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.96, "100"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1.00 k"),
        (1000, "1 k"),
        (12_345, "12.3 k"),
        (-12_345, "-12.3 k"),
        (2**64, "18447 P"),
    ],
)
def test_scaled_figures_have_three_digits(value, text):
    assert scaled(value) == text


def test_sizes_and_rates_carry_their_units():
    assert octets(0) == "0 B"
    assert octets(1023) == "1.00 KiB"
    assert octets(1 << 20) == "1 MiB"
    assert octets(None) == "-"
    assert bits(9_830_000_000) == "9.83 Gbit/s"
    assert exact(1_234_567) == "1,234,567"
    assert exact(None) == "-"
    assert percent(12.34) == "12.3"
    assert percent(None) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00"),
        (245, "4:05"),
        (3600, "1:00:00"),
        (90_061, "1 d 01:01"),
    ],
)
def test_durations_are_as_long_as_they_need_to_be(seconds, text):
    assert duration(seconds) == text


def test_macs_show_age_and_pins():
    rows = [
        {"mac": "02:00:00:00:00:01", "port": 1, "name": "qemu-1", "age_s": 3, "pinned": False},
        {"mac": "02:00:00:00:00:02", "port": 1, "name": "qemu-1", "age_s": None, "pinned": True},
    ]
    shown = text(tables.macs({"macs": rows}, 80)).splitlines()
    assert shown[-2].split() == ["02:00:00:00:00:01", "1", "qemu-1", "3.0", "s"]
    assert shown[-1].split() == ["02:00:00:00:00:02", "1", "qemu-1", "-", "pinned"]


def test_settings_are_shown_as_they_would_be_set():
    in_force = plain(Policy(bytes_per_s=12_500_000, max_macs=0, isolated=True, reaches=("a", "b")))
    shown = text(tables.settings({"port": 1, "name": "web", "settings": in_force})).splitlines()
    assert shown[0].split() == ["setting", "web"]
    rows = dict(line.split() for line in shown[2:])
    assert rows["limit-broadcast"] == "2000/s"
    assert rows["limit-bandwidth"] == "100Mbit/s"
    assert rows["limit-macs"] == "none"
    assert (rows["isolated"], rows["reach"], rows["pin"]) == ("true", "a,b", "-")


def test_empty_tables_are_replaced_by_a_sentence():
    assert "no MAC addresses" in text(tables.macs({"macs": []}, 80))
    assert "no leases" in text(tables.leases({"leases": []}, 80))
    assert "no switch" in text(tables.running([], 80))


def test_names_are_not_read_as_markup_and_control_characters_are_not_obeyed():
    odd = "[red]x[/red]\x1b[31m\n"
    rows = [{"mac": "02::", "port": 1, "name": odd, "age_s": 3, "pinned": False}]
    shown = text(tables.macs({"macs": rows}, 80))
    assert "[red]x[/red]\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}" in shown


@pytest.mark.parametrize(
    ("state", "stalled", "style"), [("live", False, "green"), ("starting", False, "yellow")]
)
def test_states_have_their_colours(state, stalled, style):
    assert tables.state(port(state=state, stalled=stalled)).style == style


def test_a_stalled_vm_stands_out_whatever_its_state():
    shown = tables.state(port(stalled=True))
    assert shown.plain == "stalled"
    assert "red" in str(shown.style)


def test_a_table_is_as_wide_as_its_text_and_its_figures_are_aligned():
    columns = [Column("name", False), Column("in\nframes/s")]
    lines = text(tables.table(columns, [["a-long-name", "1"], ["b", "22"]])).splitlines()
    assert lines == [
        "name               in",
        "             frames/s",
        "─────────────────────",
        "a-long-name         1",
        "b                  22",
    ]


def test_text_is_folded_to_fit_and_figures_and_addresses_are_not():
    columns = [
        Column("MAC", False, whole=True),
        Column("name", False),
        Column("rx"),
    ]
    rows = [["02:00:00:00:00:01", "0123456789abcdefghij", "1,234,567"]]
    lines = text(tables.table(columns, rows), 40).splitlines()
    assert lines[2:] == ["02:00:00:00:00:01  0123456789  1,234,567", "                   abcdefghij"]
    narrow = text(tables.table(columns, rows), 25).splitlines()[2:]
    assert "1,234,567" in "".join(narrow)
    assert "".join(line[:7].strip() for line in narrow) == "02:00:00:00:00:01"


def test_wide_characters_take_two_columns():
    lines = text(tables.table([Column("name", False), Column("n")], [["机器", "1"]])).splitlines()
    assert lines[-1] == "机器  1"
    assert lines[0] == "name  n"


def test_where_the_output_is_no_terminal_nothing_is_cut():
    console = tables.console_for(io.StringIO())
    assert console.width == tables.PLAIN_WIDTH
    assert not console.is_terminal


def test_a_table_that_is_too_wide_becomes_several_that_name_their_rows():
    columns = [Column("port"), Column("name", False), *map(Column, "abcdefgh")]
    rows = [["1", "vm", *["123,456,789"] * 8]]
    made = tables.blocks(columns, rows, 2, 40)
    console = Console(file=io.StringIO(), width=40)
    for each in made:
        console.print(each)
    lines = console.file.getvalue().splitlines()
    assert sum(line.count("123,456,789") for line in lines) == 8
    assert [line.split()[:2] for line in lines if "123" in line] == [["1", "vm"]] * 4
    assert max(map(len, lines)) <= 40


def test_without_a_terminal_tables_are_laid_out_for_the_usual_one(monkeypatch):
    console = tables.console_for(io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert tables.room(console) == 80
    monkeypatch.setenv("COLUMNS", "132")
    assert tables.room(console) == 132
    for wrong in ("wide", "0", 5000 * "9"):
        monkeypatch.setenv("COLUMNS", wrong)
        assert tables.room(console) == 80
