"""What of a gateway outlives its supervisor."""

import logging
from pathlib import Path

import pytest

from supervisor.base.logs import asked_by
from supervisor.base.saved_state import SavedState
from supervisor.gateway.kept import KeptAdditions, restored, to_keep

FLAGS = {"forward": ["tcp:127.0.0.1:0:g:22"], "subnet": "10.1.0.0/24"}
REMEMBERED = {"forward": ["tcp:127.0.0.1:4000:g:22", "udp:[::1]:53:g:53"], "subnet": "10.1.0.0/24"}
BEGAN_WITH = frozenset({"tcp:127.0.0.1:4000:g:22"})


@pytest.fixture
def kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> KeptAdditions:
    """Return the additions of a new switch, whose log is captured from INFO on."""
    caplog.set_level(logging.INFO, logger="supervisor")
    return KeptAdditions(SavedState(str(tmp_path / "state"), inherit=False))


def test_additions_are_saved_and_options_of_the_command_line_are_not() -> None:
    saved = to_keep(REMEMBERED, BEGAN_WITH)
    assert restored(FLAGS, saved) == FLAGS | {"kept-forward": ["udp:[::1]:53:g:53"]}


def test_zones_are_kept_whole_while_the_lan_is_the_same() -> None:
    kept = to_keep(REMEMBERED | {"dns-zone": ["a", "b"]}, BEGAN_WITH)
    assert restored(FLAGS, kept)["dns-zone"] == ["a", "b"]
    assert "dns-zone" not in restored(FLAGS | {"subnet": "10.2.0.0/24"}, kept)
    assert "dns-zone" not in restored(FLAGS | {"host-access": False}, kept)


@pytest.mark.parametrize("kept", [None, 7, [], {}, {"forward": "x"}, {"forward": [1]}, {"dns-zone": {}}])
def test_damaged_saved_state_changes_nothing(kept: object) -> None:
    assert {key: value for key, value in restored(FLAGS, kept).items() if value} == FLAGS


def test_a_forward_is_said_with_the_user_that_asked_for_it(
    kept: KeptAdditions, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = "tcp:127.0.0.1:80:g:80", "tcp:127.0.0.1:8:g:8"
    with asked_by({"uid": 7, "pid": 70}):
        first = kept.asked()
    with asked_by({"uid": 8, "pid": 80}):
        second = kept.asked()
    kept.say_changes({}, {"forward": [other]}, {"asked": second})  # the answers may come in another order
    kept.say_changes({"forward": [other]}, {"forward": [one, other]}, {"asked": first})
    client = {"client": {"uid": 9, "pid": 90}}
    kept.say_changes({"forward": [one, other]}, {"forward": [other]}, client)
    kept.say_changes({"forward": [other]}, {"forward": []}, {"asked": first})
    said = [(line.fields["forward"], line.fields["added"], line.fields.get("by")) for line in caplog.records]  # type: ignore[attr-defined]
    assert said == [
        (other, True, {"uid": 8, "pid": 80}),
        (one, True, {"uid": 7, "pid": 70}),
        (one, False, {"uid": 9, "pid": 90, "via": "services"}),
        (other, False, None),  # no command has this number any more
    ]


@pytest.mark.parametrize("by", [None, 3, {}, {"asked": "1"}, {"client": {"uid": "root", "pid": 1}}])
def test_a_gateway_that_names_no_user_names_none(
    by: object, kept: KeptAdditions, caplog: pytest.LogCaptureFixture
) -> None:
    kept.say_changes({}, {"forward": ["tcp:127.0.0.1:80:g:80"]}, by)
    assert [line.fields.get("by") for line in caplog.records] == [None]  # type: ignore[attr-defined]


def test_names_that_change_are_an_event_for_each_domain(
    kept: KeptAdditions, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = '{"Name": "a.test.", "Records": []}', '{"Name": "b.test.", "Records": []}'
    damaged = ["{", "7", "[" * 100_000, '{"Name": 7}']
    kept.say_changes({"dns-zone": [old]}, {"dns-zone": [new, old, *damaged]}, None)
    assert [line.fields["zone"] for line in caplog.records] == ["b.test"]  # type: ignore[attr-defined]
