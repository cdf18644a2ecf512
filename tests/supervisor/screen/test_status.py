"""``supervisor status`` on 80 columns: problems first, and nothing is cut."""

import pytest

from supervisor.screen.status import MOST_TROUBLES, status
from tests.helpers.answers import answer, port, text


def shown(*ports, everything=False, room=80, **changes):
    return text(status(answer(*ports, **changes), room, everything=everything))


def test_each_port_has_its_addresses_and_the_head_says_how_many_there_are():
    lines = shown(port(), port(2, "bess-1", macs=[], addresses=[], state="starting")).splitlines()
    assert lines[0].rstrip() == "bulkhead   2 ports: 1 starting, 1 live   up 4:05"
    row = next(index for index, line in enumerate(lines) if " qemu-1 " in line)
    assert lines[row].split() == ["1", "qemu-1", "qemu", "live", "2.9", "s", "192.168.127.9"]
    assert [lines[row + step].strip() for step in (1, 2)] == ["02:00:00:00:00:01", "02:00:00:00:00:02"]
    assert next(line for line in lines if "bess-1  " in line).rstrip().endswith("-")
    assert any(line.startswith("qemu VMs attach at unix:///run/q.sock") for line in lines)


def test_problems_come_first():
    gateway = {"state": "silent"}
    lines = shown(
        port(), port(2, "db", stalled=True), port(3, "web", notes=["set it so"]), gateway=gateway
    ).splitlines()
    assert lines[1].startswith("the gateway is silent: its process does not answer")
    assert lines[2].startswith("db is stalled: frames have waited for the VM for three seconds")
    assert lines[3].rstrip() == "web: set it so"
    assert [line.split()[1] for line in lines if line.split()[2:3] == ["qemu"]] == ["db", "qemu-1", "web"]


def test_a_long_list_of_problems_ends_with_the_number_of_others():
    ports = [port(number, f"vm-{number}", stalled=True) for number in range(1, 31)]
    said = shown(*ports)
    assert said.count("is stalled: ") == MOST_TROUBLES
    assert f"and {30 - MOST_TROUBLES} more" in said


def test_many_addresses_are_counted():
    macs = [f"02:00:00:00:00:{number:02x}" for number in range(1, 200)]
    said = shown(port(macs=macs))
    assert "and 196 more" in said
    assert len(said.splitlines()) < 15


def test_figures_for_bug_reports_are_shown_on_request():
    assert "epoch" not in shown(port())
    said = shown(port(), everything=True)
    assert "epoch 815   sequence 12" in said
    assert "4711" in said
    assert "restarts" in said
    assert "restarts" in shown(port(worker=port()["worker"] | {"restarts": 2}))


def test_a_switch_without_ports_is_shown_by_a_sentence():
    assert "no ports   up" in shown()


@pytest.mark.parametrize("everything", [False, True])
def test_eighty_columns_are_enough_for_the_longest_names(everything):
    longest = port(1023, "n" * 63, transport="dial_vhost", since_s=3e6, state="starting")
    longest["addresses"] = ["fd12:3456:789a:1234:5678:9abc:def0:1234"]
    said = shown(longest, everything=everything, room=80)
    console = text(status(answer(longest), 80, everything=everything), 80)
    assert max(map(len, console.splitlines())) <= 80
    assert console.replace("\n", "").replace(" ", "").count("n" * 63) or "nnn" in console
    assert "fd12:3456:789a:1234:5678:9abc:def0:1234" in said
    assert "…" not in console


def test_names_from_outside_are_no_markup_and_obeyed_by_no_terminal():
    said = shown(
        port(name="[red]x[/red]"), name="a\x1b[2Jb", listeners=[{"transport": "qemu", "url": "u\nv"}]
    )
    assert "[red]x[/red]" in said
    assert "\x1b" not in said
    assert "u\N{REPLACEMENT CHARACTER}v" in said


def test_a_log_that_is_not_read_is_trouble():
    assert "7 lines of the log were lost" in shown(port(), lost_log_lines=7)
