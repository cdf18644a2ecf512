"""What all tests share: how Hypothesis searches, and fixtures: real and fake VMs, a place for a gateway.

In CI (the variable CI is set) the examples are derived from each test itself, so that a run that was
green is green again; elsewhere each run looks at new ones. No deadline per example: the machine is shared.
"""

import os

from hypothesis import settings

settings.register_profile("search", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("same" if "CI" in os.environ else "search")

pytest_plugins = ["tests.helpers.guests.fixtures", "tests.helpers.gateway_place", "tests.helpers.bench_run"]
