"""Answer ``run --check``: whether these options could be served, and where the host would listen.

The same code reads them, looks for overlaps and takes forwards into a table; nothing is opened or started.
"""

from collections.abc import Mapping

from gateway import overlap
from gateway.listeners import place_of
from gateway.relay.forwards import Forward, Forwards
from gateway.settings import read


def checked(plain: Mapping[str, object]) -> dict[str, object]:
    """Return ``subnet``, ``forwards`` and ``places`` to listen at. Raises LocalError as the start would."""
    settings = read(plain)
    overlap.check_host(settings.policy.subnet)
    table = Forwards(settings.policy)
    for text in settings.forwards:
        table.add(Forward.parse(text))
    places = [place_of(forward) for forward in table]
    if settings.services:
        places.append({"kind": "unix", "path": settings.services})
    return {
        "subnet": str(settings.policy.subnet),
        "forwards": [str(forward) for forward in table],
        "places": places,
    }
