"""The verdict of the demo: pure, from the VMs' reports and the switch's counters.

The claim is that a stuck VM costs the others nothing. The demo runs on any machine, beside other work. So the
limits leave room for noise that a busy machine makes; a switch whose VMs share a lock fails them by orders of
magnitude (its rate falls to nothing). For lost, changed and repeated frames there is no tolerance.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]

MIN_RATE = 0.5
"""Round trips a second with the stuck VM, as a share of those without it: less is a failure."""
MAX_LATENCY = {"median": (0.5, 3.0), "99th percentile": (0.99, 5.0)}
"""Share of the round trips, and how many times as long it may take them: more is a failure ..."""
LATENCY_GRACE_S = 0.01
"""... unless the latency grows by no more than this: two time slices of the machine's scheduler."""


class Measured:
    """One VM's reports during one phase, added up. The phase begins with the first report."""

    def __init__(self) -> None:
        self._first: Json | None = None
        self._last: Json = {}
        self.round_trips: dict[int, int] = {}

    def add(self, report: Json) -> None:
        """Take the next report; the first one is only the start of the counters."""
        if self._first is None:
            self._first = report
        else:
            for age, times in report["round_trips"].items():
                self.round_trips[int(age)] = self.round_trips.get(int(age), 0) + times
        self._last = report

    @property
    def seconds(self) -> float:
        """The measured time in seconds."""
        return float(self._last["at"] - self._first["at"]) if self._first else 0.0

    def count(self, name: str) -> int:
        """Return the growth of a counter of the VM."""
        return int(self._last[name] - self._first[name]) if self._first else 0

    def rate(self, name: str) -> float:
        """Return the growth of a counter of the VM a second."""
        return self.count(name) / self.seconds if self.seconds else 0.0

    def latency(self, share: float) -> float | None:
        """Return the round trip that this share of all did not exceed, in seconds; None without any."""
        rank = share * sum(self.round_trips.values())
        seen = 0
        for age in sorted(self.round_trips):
            seen += self.round_trips[age]
            if seen >= rank:
                return age / 1e9
        return None


class Evidence(NamedTuple):
    """The evidence for the verdict."""

    before: Measured
    """The pair that does not talk to the stuck VM, while that VM reads."""
    during: Measured
    """The same pair while that VM does not read."""
    stuck: str
    drops: Mapping[str, int]
    """Frames dropped at each VM's port while one was stuck."""
    lost: int
    """Frames that the pair lost, over the whole time."""
    bad: int
    """Frames that any VM received changed, cut, repeated or out of order."""
    stalled: bool
    """Whether the switch reported the stuck VM as stalled."""


def complaints(evidence: Evidence) -> list[str]:
    """Return the failures of the claim; empty if the others were not affected."""
    found = []
    before, during = evidence.before.rate("received"), evidence.during.rate("received")
    if not before or during < MIN_RATE * before:
        found.append(f"their rate fell below {MIN_RATE:.0%} of what it was")
    for name, (share, times) in MAX_LATENCY.items():
        then, now = evidence.before.latency(share), evidence.during.latency(share)
        if then and now and now > max(times * then, then + LATENCY_GRACE_S):
            found.append(f"the {name} of their latency grew more than {times:g} times")
    elsewhere = {name: drops for name, drops in evidence.drops.items() if drops and name != evidence.stuck}
    found += [f"{drops:,} frames for {name} were dropped" for name, drops in elsewhere.items()]
    if evidence.lost:
        found.append(f"they lost {evidence.lost:,} frames")
    if evidence.bad:
        found.append(f"{evidence.bad:,} frames arrived changed, cut, repeated or out of order")
    if not evidence.drops.get(evidence.stuck):
        found.append(f"no frame for {evidence.stuck} was dropped, so it was not stuck")
    if not evidence.stalled:
        found.append(f"the switch did not report {evidence.stuck} as stalled")
    return found


THRESHOLD = (
    f"Pass: at least {MIN_RATE:.0%} of the rate, "
    + "".join(f"at most {times:g} times the {name}, " for name, (_, times) in MAX_LATENCY.items())
    + f"or no more than {LATENCY_GRACE_S * 1000:g} ms longer; drops at the stuck VM only; "
    "no frame lost or damaged."
)
