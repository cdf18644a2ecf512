"""Leases on disk: the last line of an address counts, also beside garbage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.leases.journal import SLACK, Journal
from gateway.leases.lease import LEASE_S, LeaseState
from gateway.leases.table import Leases
from gateway.ports import Port

MACS = [bytes((2, 0, 0, 0, 0, number)) for number in range(4)]


def test_saved_leases_are_loaded_and_the_file_stays_short(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    journal = Journal(str(path))
    leases = Leases(3, 253, {})
    leases.changed = lambda lease: journal.note(lease, leases, len(leases))
    for turn in range(SLACK):
        for number, mac in enumerate(MACS):
            got = leases.offer(mac, Port(number, turn), 0, turn)
            assert got is not None
            assert leases.bind(mac, Port(number, turn), got.address, turn) is got
            leases.call(got, f"name{number}")
            if number or turn < SLACK - 1:
                leases.left(Port(number, turn), turn)
    journal.close()
    assert len(path.read_text().splitlines()) <= SLACK + 4 * len(MACS) + 1
    assert path.stat().st_mode & 0o777 == 0o600
    now = float(SLACK)
    loaded = Journal(str(path)).load(now)
    assert {(entry[0].mac, entry[0].name, entry[1]) for entry in loaded} == {
        (mac, f"name{number}", LeaseState.KEPT if number else LeaseState.BOUND)
        for number, mac in enumerate(MACS)
    }
    assert {entry[0].address for entry in loaded} == {each.address for each in leases}
    assert max(entry[2] for entry in loaded) == SLACK - 1 + LEASE_S


def test_a_malformed_lease_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    good = "bound 02:00:00:00:00:01 10.0.0.5 3 17 9000000.0 -"
    path.write_text(f"\nnonsense\nbound 1 2 3\n{good}\nbound zz 10.0.0.6 3 17 1.0 -\n{good[:-9]}\né\n")
    ((lease, state, ends),) = Journal(str(path)).load(100.0)
    assert (lease.port, lease.name, state) == (Port(3, 17), "", LeaseState.BOUND)
    assert ends == 100.0 + LEASE_S  # a clock of another boot
    assert Journal(str(tmp_path / "absent")).load(0.0) == []


def test_a_file_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "absent" / "leases"))
    leases = Leases(3, 253, {})
    lease = leases.offer(MACS[1], Port(1, 1), 0, 0.0)
    assert lease is not None
    for _ in range(3):
        journal.note(lease, leases, 1)
    assert journal.failed == "No such file or directory"


def test_leases_of_a_full_disk_are_saved_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "leases"
    journal = Journal(str(path))
    leases = Leases(3, 253, {})
    leases.changed = lambda lease: journal.note(lease, leases, len(leases))
    write = os.write

    def bind(number: int) -> None:
        got = leases.offer(MACS[number], Port(number, 1), 0, 0.0)
        assert got is not None
        leases.bind(MACS[number], Port(number, 1), got.address, 0.0)

    bind(0)
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    bind(1)
    assert journal.failed == "No space left on device"
    assert journal.may_recover
    journal.write_again(leases)
    assert journal.may_recover
    monkeypatch.setattr(os, "write", write)
    journal.write_again(leases)
    assert not journal.may_recover
    bind(2)
    journal.close()
    loaded = Journal(str(path)).load(0.0)
    assert sorted(lease.mac for lease, *_ in loaded) == MACS[:3]
