"""Each word on a screen is explained: by ``supervisor help``, and in the documents by the same table."""

import ast
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from forwarder.names import TRANSPORT_KIND, Policy
from gateway.leases.lease import LeaseState
from supervisor.base import logs
from supervisor.cli.main import main
from supervisor.fleet import misuse
from supervisor.gateway.states import GatewayState
from supervisor.ports import settings
from supervisor.ports.lifecycle import PortState
from supervisor.screen import stats, status, tables, top, words
from supervisor.screen.grid import Grid
from tests.helpers.answers import answer, port

LEASE = {
    "address": "192.168.127.3", "mac": "02:00:00:00:00:01", "port": 1, "port_name": "qemu-1", "name": "alice",
    "state": "bound", "expires_s": 60,
}  # fmt: skip
MAC = {"mac": "02:00:00:00:00:01", "port": 1, "name": "qemu-1", "age_s": 3, "pinned": True}
SWITCH = {"name": "lab", "state": "live", "ports": 2, "uptime_s": 5, "runtime_dir": "/run/user/0/bulkhead"}
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "operating.md"


def headings(drawn):
    """Return the words of all headings in something drawn."""
    for part in getattr(drawn, "renderables", []):
        if isinstance(part, Grid):
            for column in part.columns:
                yield from column.heading.replace("%", "").split()


def test_every_heading_is_explained():
    shown = answer(port(), gateway=None)
    seen = {
        *headings(status.status(shown, 80, everything=True)),
        *headings(stats.stats(shown, 80, everything=True)),
        *(word for _, column, _ in top.COLUMNS for word in column.heading.replace("%", "").split()),
    }
    assert {"rx", "drops", "CPU", "addresses"} <= seen
    units = {"s", "frames/s", "bit/s"}
    assert not [word for word in seen - units if not words.meanings(word)]


def test_every_heading_of_a_list_is_explained():
    drawn = (
        tables.leases({"leases": [LEASE]}, 80),
        tables.macs({"macs": [MAC]}, 80),
        tables.running([SWITCH], 80),
        tables.settings({"name": "", "settings": settings.plain(Policy())}),
    )
    grids = [part for each in drawn for part in getattr(each, "renderables", [each])]
    seen = {column.heading for grid in grids for column in getattr(grid, "columns", [])} - {""}
    assert {"known as", "ends in", "age", "directory", "setting"} <= seen
    assert not [word for word in seen if not words.meanings(word)]


def test_every_transport_setting_and_state_of_a_lease_is_explained():
    assert set(words.TRANSPORTS) == set(TRANSPORT_KIND)
    assert {state.value for state in LeaseState} == set(words.LEASES)
    assert not [key for key in settings.SETTINGS if not words.meanings(key)]


def test_every_state_is_explained():
    states = {state.value for state in PortState} - {PortState.GONE.value}
    states |= {state.value for state in GatewayState} | {"stalled", "silent"}
    assert states == set(words.STATES)


def kinds_in(call):
    """Yield the texts among the arguments of a call that says an event."""
    called = ast.unparse(call.func)
    position = {"say": 0, "_Sentence": 0, "Log": 2, "self._throttle.warning": 2, "throttle.warning": 2}.get(
        called
    )
    given = call.args[position:][:1] if position is not None else []
    for each in given:
        if not isinstance(each, ast.JoinedStr):
            yield from (part.value for part in ast.walk(each) if isinstance(part, ast.Constant))


def test_every_event_is_explained():
    said = {logs.MESSAGE}
    for path in Path(logs.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                said.update(kinds_in(node))
    for event, _ in misuse.EPISODES.values():
        said |= {event, f"{event}-end"}
    assert said == set(words.EVENTS)


def test_the_document_has_the_same_table():
    rows = re.findall(r"^\| (\S[^|]*?) \| ([^|]*?) \|$", DOCUMENT.read_text(), re.MULTILINE)
    for table in (words.COLUMNS, words.STATES, words.TRANSPORTS, words.EVENTS):
        assert [row for row in rows if table.get(row[0]) == row[1]] == list(table.items())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("spoofed", "pinned elsewhere"),
        ("SPOOFED", "from an address that is not of the LAN"),
        ("stalled", "three seconds"),
        ("CPU %", "share of one processor"),
        ("flows tcp", "TCP connections"),
        ("the gateway's namespace", "inside its network namespace"),
        ("rx frames", "Ethernet frames"),
        ("drops/s", "by reason"),
        ("stats", "Usage:"),
    ],
)
def test_help_explains_a_word_or_a_command(word, said):
    for typed in ([word], word.split()):
        done = CliRunner().invoke(main, ["help", *typed])
        assert done.exit_code == 0
        assert said in done.output


def test_text_that_is_not_utf8_is_wrong_usage():
    for typed in (["explain", "\udcff", "a"], ["capture", "all", "--filter", "\udcff"], ["show", "\udcfe"]):
        done = CliRunner().invoke(main, typed)
        assert done.exit_code == 2
        assert "is not UTF-8 text" in done.output


def test_a_port_without_a_name_is_not_captured():
    for ports in ("", ",", "a,,b"):
        done = CliRunner().invoke(main, ["capture", ports, "-w", "-"])
        assert done.exit_code == 2
        assert "a port's name is missing" in done.output


def test_help_without_a_word_lists_all():
    done = CliRunner().invoke(main, ["help"])
    assert len(done.output.splitlines()) == len(list(words.all_words()))


def test_an_unknown_word_is_wrong_usage_with_a_hint():
    done = CliRunner().invoke(main, ["help", "spofed"])
    assert done.exit_code == 2
    assert "did you mean spoofed" in done.output
    assert "`supervisor help` lists all" in CliRunner().invoke(main, ["help", "\x1b[31m"]).output
