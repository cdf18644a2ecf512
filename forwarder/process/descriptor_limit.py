"""Raise the limit of open descriptors to the hard limit; that is safe, since select(2) is not used here."""

import resource
from contextlib import suppress


def raise_descriptor_limit(wanted: int | None = None) -> None:
    """Raise the soft limit to the hard one, or to ``wanted`` if that is less; never lower it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    limits = [each for each in (wanted, hard) if each is not None and each != resource.RLIM_INFINITY]
    target = min(limits, default=resource.RLIM_INFINITY)
    if target == resource.RLIM_INFINITY or target > soft:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
