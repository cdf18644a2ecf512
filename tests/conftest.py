"""What all tests share: how Hypothesis searches, and fixtures: real and fake VMs, a place for a gateway.

In CI (the variable CI is set) the examples are derived from each test itself, so that a run that was
green is green again; elsewhere each run looks at new ones. No deadline per example: the machine is shared.

A process that ignores a signal, as nohup and a shell's ``&`` have it, passes that on to all that it starts; a
handler ends at exec. So the tests have a handler that does nothing instead, and what they start has the
signals of a command in the foreground.
"""

import os
import signal

from hypothesis import settings

settings.register_profile("search", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("same" if "CI" in os.environ else "search")

pytest_plugins = [
    "tests.helpers.guests.fixtures",
    "tests.helpers.gateway.place",
    "tests.helpers.bench_run",
    "tests.helpers.capturing",
]


def pytest_configure() -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)
