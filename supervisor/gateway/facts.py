"""What the gateway may ask of the supervisor: facts of the switch that its HTTP API shows and it cannot see.

A table of names; whatever is not in it is not told. An answer is sampled when it is asked for, like an
operator's, from memory that is mapped already: it waits for nobody. ``kept`` is true: what the gateway has
said before it asked has been kept for the next supervisor by then.
"""

from collections.abc import Callable, Iterable, Mapping

from supervisor.console.sampler import Sampler
from supervisor.ports.view import PortView

Facts = Mapping[str, Callable[[], object]]


def facts(sampler: Sampler, views: Callable[[], Iterable[PortView]]) -> Facts:
    """Return what can be asked, each with what answers it."""
    return {
        "addresses": lambda: sampler.addresses(views()),
        "traffic": lambda: sampler.traffic(views()),
        "kept": lambda: True,
    }
