"""The counters of a part of the gateway, and a log line for refusals.

``forwarder.counted`` has the names of the counters and their meaning. A *refusal* is also logged, with the
guest and its request: the first of its kind at once, further ones at most once in ``PAUSE_S``, with the
number of those that were not logged. So a guest that is refused a thousand times a second costs a line a
second.
"""

from collections import Counter
from collections.abc import Callable

from forwarder.counted import REFUSED

PAUSE_S = 1.0

Log = Callable[[str, str], None]
"""Takes (level, text)."""


class Counts(Counter[str]):
    """The counters of one part."""

    def __init__(self, clock: Callable[[], float], log: Log = lambda level, text: None) -> None:
        """``clock`` is monotonic, in seconds."""
        super().__init__()
        self._clock = clock
        self._log = log
        self._silent_until: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def refuse_untold(self, word: str, count: int) -> None:
        """Count refusals without a log line; the next line of their kind has their number."""
        self[word] += count
        self._untold[word] += count

    def refuse(self, word: str, who: object, what: object) -> None:
        """Count a refusal, and log it unless one of its kind was logged a moment ago."""
        self[word] += 1
        now = self._clock()
        if now < self._silent_until.get(word, now):
            self._untold[word] += 1
            return
        self._silent_until[word] = now + PAUSE_S
        untold = self._untold.pop(word, 0)
        more = f", and {untold} more since the last such line" if untold else ""
        self._log("warning", f"the gateway refused {who}: {REFUSED[word]} ({what}){more}")
