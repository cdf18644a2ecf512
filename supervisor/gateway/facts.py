"""The questions that the gateway may ask the supervisor, for facts that its HTTP API shows.

A table of names; other questions are refused. An answer is sampled when it is asked for, from mapped memory,
so it does not wait. ``kept`` is always true: messages are handled in order, so everything that the gateway
has sent before is saved for the next supervisor by then.
"""

from collections.abc import Callable, Iterable, Mapping

from supervisor.console.sampler import Sampler
from supervisor.ports.view import PortView

Facts = Mapping[str, Callable[[], object]]


def facts(sampler: Sampler, views: Callable[[], Iterable[PortView]]) -> Facts:
    """Return the table: name of a question to the function that answers it."""
    return {
        "addresses": lambda: sampler.addresses(views()),
        "traffic": lambda: sampler.traffic(views()),
        "kept": lambda: True,
    }
