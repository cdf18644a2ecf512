"""Read and write limits in operators' notation: a number with its unit, or ``none``.

Rates of frames are per second; the ``/s`` may be left out: ``2000``, ``10k``, ``1.5M/s``. Bandwidth always
has a unit, since some people mean bits and others bytes: ``100Mbit/s``, ``12.5MB/s``. Prefixes are decimal,
as is usual for networks. An inexact value is refused, not rounded: ``0.4`` frames would become 0, which means
no limit.
"""

import re

from forwarder.errors import LocalError
from forwarder.names import MAX_BYTES_PER_S, MAX_FRAMES_PER_S, MAX_MACS, MAX_MTU, MIN_BYTES_PER_S, MIN_MTU

NONE = "none"
"""The word for no limit; 0 means the same."""

_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_NUMBER = r"(\d{1,15}(?:\.\d{1,9})?)"
_FRAMES = re.compile(rf"{_NUMBER}([kMG]?)(?:/s)?", re.ASCII)
_BANDWIDTH = re.compile(rf"{_NUMBER}([kMGT]?)(B|bit)/s", re.ASCII)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)


def frames(value: object) -> int:
    """Return frames a second. Raises LocalError."""
    text = _text(value)
    match = _FRAMES.fullmatch(text)
    number = _whole(match[1], _PREFIXES[match[2]]) if match else None
    if number is None:
        raise LocalError(f"{value!r} is no rate; write frames a second like 2000, 10k or 1.5M/s, or {NONE}")
    return _within(number, text, 1, MAX_FRAMES_PER_S, "frames a second")


def bandwidth(value: object) -> int:
    """Return bytes a second. Raises LocalError."""
    text = _text(value)
    if text == "0":
        return 0
    match = _BANDWIDTH.fullmatch(text)
    number = None
    if match is not None:
        number = _whole(match[1], _PREFIXES[match[2]], 8 if match[3] == "bit" else 1)
    if number is None:
        raise LocalError(f"{value!r} is no bandwidth; write its unit like 100Mbit/s or 12.5MB/s, or {NONE}")
    return _within(number, text, MIN_BYTES_PER_S, MAX_BYTES_PER_S, "bytes a second")


def addresses(value: object) -> int:
    """Return a number of MAC addresses. Raises LocalError."""
    text = _text(value)
    if _COUNT.fullmatch(text) is None:
        raise LocalError(f"{value!r} is no number of addresses; write it like 16, or {NONE}")
    return _within(int(text), text, 1, MAX_MACS, "addresses")


def mtu(value: object) -> int:
    """Return bytes of an IP packet. Raises LocalError."""
    text = _text(value)
    if _COUNT.fullmatch(text) is None:
        raise LocalError(f"{value!r} is no MTU; write its bytes like 1500, or {NONE}")
    return _within(int(text), text, MIN_MTU, MAX_MTU, "bytes")


def show_frames(value: int) -> str:
    """Write a rate in the form that ``frames`` reads."""
    return f"{value}/s" if value else NONE


def show_bandwidth(value: int) -> str:
    """Write a bandwidth for ``bandwidth`` to read, with the largest prefix that gives a whole number."""
    whole = [prefix for prefix, size in _PREFIXES.items() if 8 * value % size == 0]
    return f"{8 * value // _PREFIXES[whole[-1]]}{whole[-1]}bit/s" if value else NONE


def show_number(value: int) -> str:
    """Write a number in the form that ``addresses`` and ``mtu`` read."""
    return str(value) if value else NONE


def _text(value: object) -> str:
    """Return a number or text as text; anything else as text that no limit matches."""
    if value == NONE:
        return "0"
    return str(value) if type(value) in (int, str) else ""


def _whole(decimal: str, factor: int, divisor: int = 1) -> int | None:
    """Return ``decimal * factor / divisor``; None if that is not a whole number."""
    before, _, behind = decimal.partition(".")
    number, rest = divmod(int(before + behind) * factor, 10 ** len(behind) * divisor)
    return None if rest else number


def _within(number: int, text: str, least: int, most: int, unit: str) -> int:
    if number and not least <= number <= most:
        raise LocalError(f"{text} is out of bounds; write {least:,} to {most:,} {unit}, or {NONE}")
    return number
