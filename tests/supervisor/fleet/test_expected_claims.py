"""What the next supervisor believes of a claim: what the last one has written, before what a worker says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forwarder._core import LAYOUT
from forwarder.errors import PeerError
from forwarder.messages import Claim
from forwarder.names import Cell, Identity, Policy, PortRecord
from forwarder.rendezvous import PORT, worker_path
from supervisor.fleet.expected_claims import ExpectedClaims, believed, read

MALLORY, ALICE = Identity(11, 1), Identity(12, 1)
PIN = b"\2\0\0\0\0\1"
ISOLATED = Policy(isolated=True)


def claim(port: int, name: str = "", policy: Policy = Policy(), epoch: int = 0) -> Claim:  # noqa: B008
    record = PortRecord(port, epoch or port, port, name or f"vm-{port}", "qemu", policy)
    return Claim(LAYOUT, Cell(("seccomp",), 7), record)


@pytest.fixture
def written(tmp_path: Path) -> dict[Identity, Claim]:
    """Mallory is isolated, and alice has an address of her own."""
    claims = ExpectedClaims(str(tmp_path))
    claims.put(MALLORY.pid, claim(1))
    claims.put(MALLORY.pid, claim(1, policy=ISOLATED))
    claims.put(ALICE.pid, claim(2, policy=Policy((PIN,))))
    return read(str(tmp_path), [MALLORY, ALICE, Identity(13, 1)])


def test_the_last_settings_are_read_again(written: dict[Identity, Claim]) -> None:
    assert written == {MALLORY: claim(1, policy=ISOLATED), ALICE: claim(2, policy=Policy((PIN,)))}


@pytest.mark.parametrize("lie", [claim(1), claim(1, name="vm-2"), claim(1)._replace(cell=Cell((), 0))])
def test_a_worker_has_the_settings_that_it_had(written: dict[Identity, Claim], lie: Claim) -> None:
    assert believed(lie, MALLORY, written) == written[MALLORY]


@pytest.mark.parametrize("lie", [claim(2), claim(3), claim(1, epoch=9)])
def test_a_worker_cannot_bring_another_port(written: dict[Identity, Claim], lie: Claim) -> None:
    with pytest.raises(PeerError, match="had port 1"):
        believed(lie, MALLORY, written)


def test_without_a_file_a_claim_is_believed_but_for_what_is_of_others(written: dict[Identity, Claim]) -> None:
    del written[MALLORY]
    assert believed(claim(1), MALLORY, written) == claim(1)
    for lie in (claim(2), claim(1, name="vm-2"), claim(1, policy=Policy((PIN,)))):
        with pytest.raises(PeerError):
            believed(lie, MALLORY, written)


def test_a_damaged_file_or_one_of_another_kind_is_as_none(tmp_path: Path) -> None:
    ExpectedClaims(str(tmp_path)).put(MALLORY.pid, claim(1))
    file = Path(worker_path(str(tmp_path), MALLORY.pid, PORT))
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole + b"x", os.urandom(100), bytes(1 << 16)):
        file.write_bytes(damaged)
        assert read(str(tmp_path), [MALLORY]) == {}
    file.unlink()
    file.symlink_to("/dev/zero")
    assert read(str(tmp_path), [MALLORY]) == {}


def test_a_disk_that_is_full_is_said_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    claims = ExpectedClaims("/nowhere")
    claims.put(MALLORY.pid, claim(1))
    assert "will have to believe worker 11: No such file or directory" in caplog.text
    assert claims.get(MALLORY.pid) == claim(1)
    claims.forget(MALLORY.pid)
    assert claims.get(MALLORY.pid) is None


def test_a_change_of_settings_is_written_of_the_port_s_worker_alone(tmp_path: Path) -> None:
    claims = ExpectedClaims(str(tmp_path))
    claims.put(MALLORY.pid, claim(1))
    claims.put(ALICE.pid, claim(2))
    claims.renew(claim(1, policy=ISOLATED).record)
    claims.renew(claim(2, policy=ISOLATED, epoch=9).record)  # of another worker
    assert read(str(tmp_path), [MALLORY, ALICE]) == {MALLORY: claim(1, policy=ISOLATED), ALICE: claim(2)}
