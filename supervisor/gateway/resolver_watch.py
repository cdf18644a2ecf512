"""Notice that no resolver of the host answers the VMs' questions, from the gateway's counters.

Theory of operation. The gateway's figures come once a second. A question is given up ten seconds after it was
asked, or at once if every resolver is unreachable; it counts as unanswered then. One such question may be for
a name that no resolver finds in time. So the resolvers are *silent* only if none has answered any question
for ``SILENT_S``, either. The first answer ends that. Each of the two is an event.

    0 s   names_resolved 40, names_unanswered 0
    12 s  names_resolved 40, names_unanswered 1    silent: a question of 2 s was given up
    60 s  names_resolved 41                        answers again

Pure: figures and ``now`` go in. They are a gateway's words, which may be anything.
"""

from supervisor.base.logs import say

SILENT_S = 10.0


class ResolverWatch:
    """The resolvers, as the VMs' questions show them."""

    def __init__(self) -> None:
        self._answered = self._unanswered = 0
        self._answered_at = float("-inf")
        self._silent = False

    def look(self, figures: object, now: float) -> None:
        """Take the gateway's figures of now, in monotonic seconds."""
        match figures:
            case {
                "served": {
                    "names_resolved": int(resolved),
                    "names_failed": int(failed),
                    "names_unanswered": int(unanswered),
                }
            }:
                self._compare(resolved + failed, unanswered, now)

    def _compare(self, answered: int, unanswered: int, now: float) -> None:
        if answered > self._answered:
            self._answered_at = now
            if self._silent:
                self._silent = False
                say("resolver", "a resolver of this host answers again", state="live")
        elif unanswered > self._unanswered and not self._silent and now - self._answered_at >= SILENT_S:
            self._silent = True
            text = "no resolver of this host answers; VMs' questions for names fail"
            say("resolver", text, "warning", state="silent")
        self._answered, self._unanswered = answered, unanswered
