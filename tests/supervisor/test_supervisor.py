"""One supervisor in this process: if a part fails, the rest goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from supervisor.attach.addresses import Attachment, parse_listen
from supervisor.port_manager import PortManager
from supervisor.run_options import RunOptions
from supervisor.supervisor import FAILED_S, Supervisor
from tests.helpers.guests.fixtures import short_directory

STEPS = 14
"""Parts that a turn calls, the loop's own not counted."""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with short_directory() as directory:
        made = Supervisor(RunOptions(str(directory / "run")))
        yield made
        made.stop()
        assert made.run()
        made.close()


@pytest.mark.parametrize(
    "options",
    [RunOptions(""), RunOptions("", cell="required"), RunOptions("", gateway={})],
    ids=["plain", "cell", "gateway"],
)
def test_a_signal_during_the_start_ends_it_without_a_failure(options: RunOptions) -> None:
    """It comes before the first worker, or the gateway, is ready."""
    with short_directory() as directory:
        listener = Attachment(parse_listen("qemu", f"unix://{directory}/qemu.sock"))
        run = options._replace(runtime_dir=str(directory / "run"), attachments=(listener,))
        made = Supervisor(run)
        reading, writing = os.pipe()
        os.write(writing, b"!")
        try:
            made.watch(reading)
            assert made.start() is None
            assert made.run()
        finally:
            made.close()
            os.close(reading)
            os.close(writing)
        assert list(directory.iterdir()) == []


def fail(_: float) -> None:
    raise ValueError("a bug of ours")


@pytest.mark.parametrize("broken", range(STEPS))
def test_a_part_that_fails_does_not_keep_the_others_from_their_work(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: int
) -> None:
    ports: PortManager = supervisor._ports
    steps = ports._steps
    assert len(steps) == STEPS
    ticked: set[int] = set()

    def noting(number: int) -> object:
        def step(now: float) -> object:
            ticked.add(number)
            return steps[number](now)

        return step

    made = [fail if number == broken else noting(number) for number in range(len(steps))]
    ports._steps = tuple(made)  # type: ignore[arg-type]
    waits: list[float] = []
    monkeypatch.setattr(supervisor._loop, "turn", waits.append)
    for _ in range(3):
        supervisor._turn()
    monkeypatch.undo()
    assert min(waits) >= FAILED_S, "it would spin"
    assert ticked == set(range(len(steps))) - {broken}
    assert "a bug of ours" in caplog.text
    ports._steps = steps
    supervisor._turn()
    assert not ports.failed
