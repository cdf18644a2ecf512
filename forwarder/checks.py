"""Build checks for the fields of control messages: by type, range and size.

A check takes the decoded field (a list is a tuple there) and returns its value, or raises PeerError with a
short line, whatever the other process sent. Checks are built once, with the table of a codec. Types are
compared exactly, since Python's ``True`` is an integer.
"""

from collections.abc import Callable
from functools import lru_cache

from forwarder.errors import PeerError
from forwarder.names import valid_mac

DEPTH = 8
"""Nesting of plain data (an operator's arguments and results); the deepest today, ``stats``, needs four."""

Check = Callable[[object], object]


def show(value: object) -> str:
    """Return ``value`` for an error line: short, whatever the peer sent."""
    if isinstance(value, (str, bytes)):
        return repr(value[:32])
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return f"a {type(value).__name__}"


def integer(low: int, high: int) -> Check:
    """Return the check of an integer within both bounds."""

    def check(value: object) -> object:
        if type(value) is not int or not low <= value <= high:
            raise PeerError(f"{show(value)} is not an integer from {low} to {high}")
        return value

    return check


def bound(low: int, high: int) -> Check:
    """Return the check of an integer that is 0, for no limit, or within both bounds."""

    def check(value: object) -> object:
        if type(value) is not int or not (value == 0 or low <= value <= high):
            raise PeerError(f"{show(value)} is neither 0 nor an integer from {low} to {high}")
        return value

    return check


def boolean(value: object) -> object:
    """Check a boolean."""
    if type(value) is not bool:
        raise PeerError(f"{show(value)} is not a boolean")
    return value


def optional(check: Check) -> Check:
    """Return the check of a value that ``check`` allows, or None."""
    return lambda value: None if value is None else check(value)


def string(what: str, valid: Callable[[str], bool]) -> Check:
    """Return the check of a string that is ``valid``; ``what`` names it for the error."""

    def check(value: object) -> object:
        if type(value) is not str or not valid(value):
            raise PeerError(f"{show(value)} is not {what}")
        return value

    return check


def mac(value: object) -> object:
    """Check six bytes that can be the address of one station."""
    if type(value) is not bytes or not valid_mac(value):
        raise PeerError(f"{show(value)} is not the MAC address of one station")
    return value


def octets(count: int) -> Check:
    """Return the check of exactly ``count`` bytes."""

    def check(value: object) -> object:
        if type(value) is not bytes or len(value) != count:
            raise PeerError(f"{show(value)} is not {count} bytes")
        return value

    return check


def octets_up_to(most: int) -> Check:
    """Return the check of at most ``most`` bytes."""

    def check(value: object) -> object:
        if type(value) is not bytes or len(value) > most:
            raise PeerError(f"{show(value)} is not at most {most} bytes")
        return value

    return check


def many(check: Check, limit: int) -> Check:
    """Return the check of a list of at most ``limit`` items."""

    def check_all(value: object) -> object:
        if type(value) is not tuple or len(value) > limit:
            raise PeerError(f"{show(value)} is not a list of at most {limit}")
        return tuple([check(item) for item in value])

    return check_all


def remembered(check: Check, most: int) -> Check:
    """Return a check that remembers the last ``most`` values of a list of fields that ``check`` allowed.

    Equal values become one object, which costs less time and memory when nearly all of them are equal.
    """

    @lru_cache(most, typed=True)  # typed: True is not 1
    def check_fields(*value: object) -> object:
        return check(value)

    def check_or_remember(value: object) -> object:
        try:
            return check_fields(*value) if type(value) is tuple else check(value)
        except TypeError:  # it cannot be hashed: a mapping is in it
            return check(value)

    return check_or_remember


def fields(make: Callable[..., object], checks: tuple[tuple[str, Check], ...]) -> Check:
    """Return the check of an array of exactly these fields; ``make`` is called with their values."""

    def check_each(value: object) -> object:
        if type(value) is not tuple or len(value) != len(checks):
            raise PeerError(f"{show(value)} is not a list of {len(checks)} fields")
        values = []
        for (name, check), item in zip(checks, value, strict=True):
            try:
                values.append(check(item))
            except PeerError as error:
                raise PeerError(f"{name}: {error}") from None
        return make(*values)

    return check_each


def plain(value: object, depth: int = DEPTH) -> object:
    """Check that a value holds only JSON's types and bytes, nested no deeper than DEPTH."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if depth:
        if type(value) is tuple:
            return [plain(item, depth - 1) for item in value]
        if type(value) is dict and all(type(key) is str for key in value):
            return {key: plain(item, depth - 1) for key, item in value.items()}
    raise PeerError(f"{show(value)} is not plain data, or nested more than {DEPTH} deep")


def mapping(value: object) -> object:
    """Check a mapping from strings to plain data."""
    if type(value) is not dict:
        raise PeerError(f"{show(value)} is not a mapping")
    return plain(value)
