"""Check the arguments of operators' commands, by name and type: plain data of another process.

Every function raises LocalError for a wrong argument, which is answered as the operator's mistake.
"""

from forwarder.errors import LocalError

Arguments = dict[str, object]


def take(arguments: Arguments, **defaults: object) -> list[object]:
    """Return the arguments in the order of ``defaults``. Raises LocalError for an unknown one."""
    unknown = sorted(arguments.keys() - defaults.keys())
    if unknown:
        raise LocalError(f"unknown argument {unknown[0]!r}; is the command of another version?")
    return [arguments.get(name, default) for name, default in defaults.items()]


def as_text(name: str, value: object) -> str:
    """Return ``value``, which has to be text."""
    if not isinstance(value, str):
        raise LocalError(f"{name} has to be text, not {type(value).__name__}")
    return value


def as_number(name: str, value: object) -> float:
    """Return ``value``, which has to be a number that is not negative."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise LocalError(f"{name} has to be a number, not {value!r}")
    return value


def as_mapping(name: str, value: object) -> dict[str, object]:
    """Return ``value``, which has to be a mapping."""
    if not isinstance(value, dict):
        raise LocalError(f"{name} has to be a mapping, not {type(value).__name__}")
    return value


def as_boolean(name: str, value: object) -> bool:
    """Return ``value``, which has to be true or false."""
    if not isinstance(value, bool):
        raise LocalError(f"{name} has to be true or false, not {type(value).__name__}")
    return value


def as_ports(name: str, value: object) -> frozenset[int]:
    """Return ``value``, which has to be a list of ports' numbers."""
    if not isinstance(value, list | tuple) or not all(type(each) is int for each in value):
        raise LocalError(f"{name} has to be a list of ports' numbers, not {value!r}")
    return frozenset(value)
