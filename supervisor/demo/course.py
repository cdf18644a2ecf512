"""The course of ``supervisor demo``: one VM gets stuck, and the others are not affected.

Theory of operation
-------------------
``Play`` holds the state: time and reports go in, commands for the VMs and a ``Moment`` to draw come out.
``run`` does the I/O: it owns the processes (through ``Stage``), the clock and the screen.

The course has a warm-up without measurement and three phases: dave reads, dave is stuck, dave reads again.
The demo compares the pair alice and bob in the first two phases. carol sends to dave at a constant rate all
the time, so that the machine has the same work in both. A VM's first report in a phase is only the start of
its counters, so the time around a change counts in neither phase.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import FrameType
from typing import Any, cast

from rich.console import Console
from rich.live import Live

from forwarder.errors import LocalError, UsageError
from supervisor.console.client import Client
from supervisor.demo import view
from supervisor.demo.results import Evidence, Measured, complaints
from supervisor.demo.stage import ALICE, CAROL, CAST, DAVE, ENDS, Stage, heed_no_more
from supervisor.demo.view import Moment
from supervisor.screen import tables
from supervisor.screen.rates import Row, Trail, dropped

Json = dict[str, Any]
SECONDS = 18.0
MIN_SECONDS = 10.0
"""Long enough for the switch to call a VM stalled, which takes some seconds."""
PHASES = (("dave reads", "green"), ("dave is stuck", "red"), ("dave reads again", "cyan"))
BEFORE, STUCK, AFTER = range(3)
BEGINS = (0.08, 0.38, 0.86)
"""When each phase begins, as a share of the whole time; before the first is the warm-up."""
COMMANDS = {STUCK: "stuck", AFTER: "resume"}
"""The command for dave at the beginning of each phase."""
TICK_S = 0.5
ATTACH_S = 20.0
HISTORY = 76
"""Rates in the chart: a bar for each of alice's last reports; they fit on any terminal."""


class Play:
    """The state of the demonstration. Changed by ``turn`` (time), ``hear`` (VMs) and ``see`` (the switch)."""

    def __init__(self, ports: Mapping[int, str], seconds: float, started: float) -> None:
        """``ports`` is the VM behind each port, ``started`` the present time."""
        self._ports = ports
        self._seconds = seconds
        self._started = self._now = started
        self.phase = -1
        self._measured = {
            (name, phase): Measured() for name in ports.values() for phase in range(len(PHASES))
        }
        self._last: dict[str, Json] = {}
        self._recent = Measured()
        self._history: deque[tuple[int, float]] = deque(maxlen=HISTORY)
        self._trail = Trail()
        self._rows: dict[str, Row] = {}
        self._drops: dict[int, dict[str, int]] = {}
        self._stalled = False

    def turn(self, now: float) -> list[tuple[str, str]]:
        """Advance to ``now``; return the commands for VMs."""
        self._now = now
        commands = []
        while self.phase + 1 < len(PHASES) and now >= self._started + BEGINS[self.phase + 1] * self._seconds:
            self.phase += 1
            if self.phase in COMMANDS:
                commands.append((DAVE.name, COMMANDS[self.phase]))
        return commands

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self._now >= self._started + self._seconds

    def hear(self, name: str, report: Json) -> None:
        """Take a VM's report."""
        if self.phase >= 0:
            self._measured[name, self.phase].add(report)
        if name == ALICE.name and name in self._last:
            self._recent = Measured()
            self._recent.add(self._last[name])
            self._recent.add(report)
            self._history.append((self.phase, self._recent.rate("received")))
        self._last[name] = report

    def see(self, answer: Json) -> None:
        """Take an answer of ``stats``."""
        self._rows = {self._ports[row.port["port"]]: row for row in self._trail.follow(answer)}
        self._drops[self.phase] = {name: dropped(row.port) for name, row in self._rows.items()}
        dave = self._rows.get(DAVE.name)
        self._stalled |= self.phase == STUCK and dave is not None and dave.port["stalled"]

    def moment(self, log: str) -> Moment:
        """Return the present moment; ``log`` is the last line of the switch's log."""
        return Moment(
            phases=PHASES,
            phase=self.phase,
            elapsed=self._now - self._started,
            seconds=self._seconds,
            rows=self._rows,
            stuck=self.phase == STUCK,
            rate=self._recent.rate("received"),
            history=tuple(self._history),
            p50=self._recent.latency(0.5),
            p99=self._recent.latency(0.99),
            log=log,
        )

    def evidence(self) -> Evidence:
        """Return the evidence so far."""
        then, now = self._drops.get(BEFORE, {}), self._drops.get(STUCK, {})
        return Evidence(
            before=self._measured[ALICE.name, BEFORE],
            during=self._measured[ALICE.name, STUCK],
            stuck=DAVE.name,
            drops={each.name: now.get(each.name, 0) - then.get(each.name, 0) for each in CAST},
            lost=self._last.get(ALICE.name, {}).get("lost", 0),
            bad=sum(report["bad"] for report in self._last.values()),
            stalled=self._stalled,
        )

    def pace(self) -> tuple[float, float]:
        """Return the frames a second that carol sent, before and while dave was stuck."""
        before, during = (self._measured[CAROL.name, phase].rate("sent") for phase in (BEFORE, STUCK))
        return before, during


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the demonstration; a further signal does not interrupt its end."""
    for number in ENDS:
        signal.signal(number, heed_no_more)
    raise KeyboardInterrupt


def run(seconds: float = SECONDS, runtime_dir: str | None = None, console: Console | None = None) -> bool:
    """Run the demonstration; return whether the others kept their rate and latency.

    ``runtime_dir``: that of its switch; None: a temporary one. Raises UsageError if the time is too short,
    LocalError if the switch or a VM fails, KeyboardInterrupt on any of
    ``ENDS``; nothing is left behind in any case.
    """
    if seconds < MIN_SECONDS:
        raise UsageError(
            f"the demonstration takes {MIN_SECONDS:g} s at least; give it --seconds {MIN_SECONDS:g}"
        )
    console = console or tables.console_for()
    before = {number: signal.signal(number, _interrupt) for number in ENDS}
    try:
        with Stage(runtime_dir) as stage, Client(str(stage.runtime)) as client:

            def ask(name: str) -> Json:
                return cast(Json, client.ask(name))

            play = Play(_attached(stage, ask), seconds, time.monotonic())
            for guest in stage.guests.values():
                guest.tell("go")
            _perform(play, stage, ask, console)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    console.print(view.summary(play.evidence(), play.pace()))
    return not complaints(play.evidence())


def _attached(stage: Stage, ask: Callable[[str], Json]) -> dict[int, str]:
    """Wait until every VM has heard its peer; return the VM behind each port."""
    silent = dict(stage.guests)
    deadline = time.monotonic() + ATTACH_S
    while silent:
        if time.monotonic() > deadline:
            raise LocalError(f"{', '.join(silent)} heard nothing for {ATTACH_S:.0f} s: {stage.last_words()}")
        heard = [name for name, guest in silent.items() if any(each["heard"] for each in guest.reports())]
        for name in heard:
            del silent[name]
        time.sleep(0.02)
    names = {each.mac.hex(":"): each.name for each in CAST}
    return {row["port"]: names[row["mac"]] for row in ask("macs")["macs"] if row["mac"] in names}


def _perform(play: Play, stage: Stage, ask: Callable[[str], Json], console: Console) -> None:
    with ExitStack() as left:
        live = None
        if console.is_terminal:
            live = left.enter_context(Live(console=console, auto_refresh=False))
        else:
            console.print(view.INTRODUCTION)
        printed = 0
        while not play.over:
            tick = time.monotonic() + TICK_S
            for name, guest in stage.guests.items():
                for report in guest.reports():
                    play.hear(name, report)
            play.see(ask("stats"))
            for name, command in play.turn(time.monotonic()):
                stage.guests[name].tell(command)
            moment = play.moment(stage.last_words())
            if live:
                live.update(view.screen(moment), refresh=True)
            elif int(moment.elapsed) > printed:
                printed = int(moment.elapsed)
                console.print(view.line(moment))
            time.sleep(max(0.0, tick - time.monotonic()))
