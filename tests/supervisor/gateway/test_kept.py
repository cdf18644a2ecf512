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


def test_additions_are_saved_and_options_of_the_command_line_are_not() -> None:
    kept = to_keep(REMEMBERED, BEGAN_WITH)
    assert restored(FLAGS, kept) == FLAGS | {"kept-forward": ["udp:[::1]:53:g:53"]}


def test_zones_are_kept_whole_while_the_lan_is_the_same() -> None:
    kept = to_keep(REMEMBERED | {"dns-zone": ["a", "b"]}, BEGAN_WITH)
    assert restored(FLAGS, kept)["dns-zone"] == ["a", "b"]
    assert "dns-zone" not in restored(FLAGS | {"subnet": "10.2.0.0/24"}, kept)
    assert "dns-zone" not in restored(FLAGS | {"host-access": False}, kept)


@pytest.mark.parametrize("kept", [None, 7, [], {}, {"forward": "x"}, {"forward": [1]}, {"dns-zone": {}}])
def test_damaged_saved_state_changes_nothing(kept: object) -> None:
    assert {key: value for key, value in restored(FLAGS, kept).items() if value} == FLAGS


def test_a_forward_is_said_with_the_user_that_asked_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="supervisor")
    kept = KeptAdditions(SavedState(str(tmp_path / "state"), inherit=False))
    one, other = "tcp:127.0.0.1:80:g:80", "tcp:127.0.0.1:8:g:8"
    with asked_by({"uid": 7, "pid": 70}):
        kept.asked(one)
    kept.say_changes([], [one])
    kept.say_changes([one], [one, other])  # by the API
    with asked_by({"uid": 8, "pid": 80}):
        kept.asked("tcp:127.0.0.1:80")
    kept.say_changes([one, other], [other])
    kept.say_changes([other], [])
    said = [(line.fields["forward"], line.fields["added"], line.fields.get("by")) for line in caplog.records]  # type: ignore[attr-defined]
    assert said == [
        (one, True, {"uid": 7, "pid": 70}),
        (other, True, None),
        (one, False, {"uid": 8, "pid": 80}),
        (other, False, None),
    ]
