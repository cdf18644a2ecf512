"""The settings of a port: the name of each, and how it is read, checked and shown.

The command line, the configuration file, ``supervisor set`` and ``supervisor show`` all use the table
``SETTINGS``, so they have the same names, units and bounds. A value has a form of TOML and JSON: ``true``,
``2000``, ``"10k"``, ``["gateway"]``. ``from_text`` reads such a value from text, and ``shown`` writes text
that ``from_text`` reads.

``changed`` applies all changes or none: if it raises, the policy stays as it was.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

from forwarder.errors import LocalError
from forwarder.names import (
    MAX_NAME,
    MAX_PINNED,
    MAX_REACHES,
    OFFLOADS,
    RECEIVES,
    SAY_THEMSELVES,
    TRANSPORT_KIND,
    Policy,
    PortRecord,
    format_mac,
    mtu_of,
    parse_mac,
    valid_name,
)
from supervisor.ports import limits

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class SettingError(LocalError):
    """A wrong setting; ``key`` is its name, ``why`` the rest of the line."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


class Kind(NamedTuple):
    """How to read and write values of one kind; the functions that read raise LocalError."""

    check: Callable[[object], object]
    """Value to the field of Policy."""
    from_text: Callable[[str], object]
    """Text to value."""
    show: Callable[[Any], str]
    """JSON to text."""


class Setting(NamedTuple):
    """One row of SETTINGS."""

    field: str
    """The field's name in Policy and in JSON."""
    kind: Kind
    form: str
    """The form of a value, for help."""
    help: str


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise LocalError("has to be true or false")
    return value


def _flag_of(text: str) -> object:
    if text not in _WORDS:
        raise LocalError(f"{text!r} is neither true nor false")
    return _WORDS[text]


def _items(value: object, what: str, most: int) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise LocalError(f"has to be a list of {what}")
    if len(value) > most:
        raise LocalError(f"{len(value)} {what} are more than the {most} allowed")
    return value


def _items_of(text: str) -> object:
    return [word.strip() for word in text.split(",")] if text.strip() else []


def _pinned(value: object) -> object:
    macs = [parse_mac(text) for text in _items(value, "MAC addresses", MAX_PINNED)]
    for index, mac in enumerate(macs):
        if mac in macs[:index]:
            raise LocalError(f"{format_mac(mac)} is there twice")
    return tuple(macs)


def _reaches(value: object) -> object:
    names = _items(value, "port names", MAX_REACHES)
    for name in names:
        if not valid_name(name):
            raise LocalError(f"{name!r} names no port; use up to {MAX_NAME} letters, digits and ._:@+-")
    return tuple(dict.fromkeys(names))


def _word(words: tuple[str, ...]) -> Kind:
    def check(value: object) -> object:
        if value not in words:
            raise LocalError(f"{value!r} is not one of these: {', '.join(words)}")
        return value

    return Kind(check, str, str)


_FLAG = Kind(_flag, _flag_of, lambda value: "true" if value else "false")
_GUARD = Kind(
    lambda value: None if value == "auto" else _flag(value),
    lambda text: text if text == "auto" else _flag_of(text),
    lambda value: "auto" if value is None else _FLAG.show(value),
)
_FRAMES = Kind(limits.frames, str, limits.show_frames)
_BANDWIDTH = Kind(limits.bandwidth, str, limits.show_bandwidth)
_ADDRESSES = Kind(limits.addresses, str, limits.show_number)
_MTU = Kind(limits.mtu, str, limits.show_number)
_MACS = Kind(_pinned, _items_of, ",".join)
_NAMES = Kind(_reaches, _items_of, ",".join)

SETTINGS = {
    "pin": Setting(
        "pinned",
        _MACS,
        "MAC",
        "MAC address of the VM: the port may send from pinned addresses only, and no other port may.",
    ),
    "flood-unknown": Setting(
        "flood_unknown", _FLAG, "true|false", "Deliver frames for addresses that no VM has sent from yet."
    ),
    "limit-broadcast": Setting(
        "broadcast_per_s",
        _FRAMES,
        "FRAMES/S",
        "Broadcast frames that the VM may send in a second; more are dropped.",
    ),
    "limit-multicast": Setting(
        "multicast_per_s",
        _FRAMES,
        "FRAMES/S",
        "Multicast frames that the VM may send in a second; more are dropped.",
    ),
    "limit-unknown": Setting(
        "unknown_per_s",
        _FRAMES,
        "FRAMES/S",
        "Frames for unknown addresses that the VM may send in a second; more are dropped.",
    ),
    "limit-bandwidth": Setting(
        "bytes_per_s",
        _BANDWIDTH,
        "RATE",
        "Bandwidth of the VM, like 100Mbit/s or 12.5MB/s; its frames wait, none is dropped.",
    ),
    "limit-macs": Setting(
        "max_macs",
        _ADDRESSES,
        "NUMBER",
        "Number of MAC addresses that the VM may send from; frames from further ones are dropped.",
    ),
    "isolated": Setting(
        "isolated", _FLAG, "true|false", "Exchange frames only with the ports of `reach` that allow it, too."
    ),
    "reach": Setting("reaches", _NAMES, "NAME", "Name of a port that an isolated port may talk to."),
    "offload": Setting(
        "offload",
        _word(OFFLOADS),
        "|".join(OFFLOADS),
        "Work that the VM leaves to the switch: with tso, checksums and segmentation.",
    ),
    "mtu": Setting(
        "mtu", _MTU, "BYTES", "Longest packet to send to the VM, in bytes; with offload=tso 1500 by default."
    ),
    "receive": Setting(
        "receive",
        _word(RECEIVES),
        "|".join(RECEIVES),
        "Longest frames to send to the VM: those of its MTU, or large ones of 64 KiB.",
    ),
    "guard": Setting(
        "guard",
        _GUARD,
        "true|false|auto",
        "Drop messages of the VM that only the gateway or another VM may send; auto: if there is a gateway.",
    ),
}
"""Every setting of a port, by its name for operators."""


def from_text(key: str, text: str) -> object:
    """Read and check the value of a setting from text. Raises SettingError."""
    kind = _known(key).kind
    try:
        value = kind.from_text(text)
        kind.check(value)
    except LocalError as error:
        raise SettingError(key, str(error)) from None
    return value


def changed(policy: Policy, values: Mapping[str, object]) -> Policy:
    """Return ``policy`` with these settings changed. Raises SettingError for a wrong one."""
    fields: dict[str, object] = {}
    for key, value in values.items():
        setting = _known(key)
        try:
            fields[setting.field] = setting.kind.check(value)
        except LocalError as error:
            raise SettingError(key, str(error)) from None
    new = policy._replace(**cast(Any, fields))
    if new.reaches and not new.isolated:
        raise SettingError(
            "reach", "it has no effect unless isolated=true: every other port is reached; set both"
        )
    return new


def check_transport(transport: str, policy: Policy) -> None:
    """Raise SettingError if ports of a transport, or dialled ports, cannot have these settings."""
    kind, default = TRANSPORT_KIND[transport.removeprefix("dial_")], Policy()
    said = ("offload", "mtu", "receive") if kind == "tap" else ("offload", "receive")
    for key in said if kind in SAY_THEMSELVES else ():
        if getattr(policy, SETTINGS[key].field) != getattr(default, SETTINGS[key].field):
            raise SettingError(
                key, f"a {transport} port negotiates this itself; the setting is for VMs on sockets"
            )


def plain(policy: Policy) -> dict[str, object]:
    """Return a policy in the form of JSON, with the effective values of settings that were not given."""
    return policy._asdict() | {
        "mtu": mtu_of(policy),
        "pinned": [format_mac(mac) for mac in policy.pinned],
        "reaches": list(policy.reaches),
    }


def shown(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of every setting, from the result of ``plain``."""
    return [(key, setting.kind.show(settings[setting.field])) for key, setting in SETTINGS.items()]


def pin_clash(pinned: tuple[bytes, ...], ports: Iterable[PortRecord]) -> str:
    """Return a line about an address that is pinned to one of these ports already; nothing if none is."""
    for record in ports if pinned else ():
        for mac in record.policy.pinned:
            if mac in pinned:
                port = f"port {record.port} ({record.name})"
                unpin = f"supervisor set {record.name} pin="
                return f"{format_mac(mac)} is already pinned to {port}; unpin it there first: {unpin}"
    return ""


def _known(key: str) -> Setting:
    setting = SETTINGS.get(key)
    if setting is None:
        raise SettingError(key, f"unknown setting; known are {', '.join(SETTINGS)}")
    return setting
