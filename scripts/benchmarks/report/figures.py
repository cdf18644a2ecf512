"""Numbers for tables: medians with their range, ratios within rounds, words for what is missing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

NOTHING = "-"


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least ``part`` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def known_median(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are there."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def median(values: Iterable[float | None], digits: int = 2, scale: float = 1.0) -> str:
    """Format the median of the values that are there."""
    known = [value * scale for value in values if value is not None]
    return f"{statistics.median(known):,.{digits}f}" if known else NOTHING


def spread(values: Iterable[float | None], digits: int = 2, scale: float = 1.0) -> str:
    """Format the median and, where there are several values, the range."""
    known = [value * scale for value in values if value is not None]
    if len(known) < 2:
        return median(known, digits)
    return f"{median(known, digits)} ({min(known):,.{digits}f}-{max(known):,.{digits}f})"


def ratios(values: Iterable[float | None], bases: Iterable[float | None]) -> str:
    """Format the ratios of values to bases of the same round: median and range."""
    pairs = zip(values, bases, strict=False)
    return spread([value / base for value, base in pairs if value is not None and base])
