"""``run --check``: say what would be served, or why the start would fail, and change nothing."""

from collections.abc import Mapping
from pathlib import Path

from gateway import overlap
from gateway.relay.forwards import Forward
from gateway.settings import read


def checked(plain: Mapping[str, object]) -> dict[str, object]:
    """Return the subnet and forwards that would be served. Raises LocalError if the start would fail."""
    settings = read(plain)
    overlap.check(settings.policy.subnet, Path("/proc/net/route").read_text())
    forwards = [str(Forward.parse(text)) for text in settings.forwards]
    return {"subnet": str(settings.policy.subnet), "forwards": forwards}
