"""What an operator may set for a port: how each setting is called, written, checked and shown.

``SETTINGS`` is the one table that the command line, the configuration file, ``supervisor set`` and
``supervisor show`` go by, so that all of them know the same names, units and bounds. A value is what TOML
and JSON have: ``true``, ``2000``, ``"10k"``, ``["gateway"]``; where everything is text, ``from_text`` makes
such a value of it, and ``shown`` writes text that ``from_text`` reads.

``changed`` takes all changes or none: it raises, and whoever asked keeps the policy that was in force.
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
    """A setting that cannot be; ``key`` is its name, ``why`` the rest of the line."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


class Kind(NamedTuple):
    """How values of one kind are read and written; what reads raises LocalError."""

    check: Callable[[object], object]
    """From a value to what Policy holds."""
    from_text: Callable[[str], object]
    """From text to a value."""
    show: Callable[[Any], str]
    """From what JSON has to text."""


class Setting(NamedTuple):
    """One row of SETTINGS."""

    field: str
    """Of Policy, and in JSON."""
    kind: Kind
    form: str
    """How a value is written, for help."""
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
            raise LocalError(f"{value!r} is none of {', '.join(words)}")
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
        "Most broadcast frames that the VM may send, a second; more are dropped.",
    ),
    "limit-multicast": Setting(
        "multicast_per_s",
        _FRAMES,
        "FRAMES/S",
        "Most multicast frames that the VM may send, a second; more are dropped.",
    ),
    "limit-unknown": Setting(
        "unknown_per_s",
        _FRAMES,
        "FRAMES/S",
        "Most frames for unknown addresses that the VM may send, a second; more are dropped.",
    ),
    "limit-bandwidth": Setting(
        "bytes_per_s",
        _BANDWIDTH,
        "RATE",
        "Most bandwidth of the VM, like 100Mbit/s or 12.5MB/s; it is read later and loses nothing.",
    ),
    "limit-macs": Setting(
        "max_macs",
        _ADDRESSES,
        "NUMBER",
        "Most MAC addresses that the VM may send from; frames from more are dropped.",
    ),
    "isolated": Setting(
        "isolated", _FLAG, "true|false", "Exchange frames only with the ports of --reach that allow it, too."
    ),
    "reach": Setting("reaches", _NAMES, "NAME", "Name of a port that an isolated port may talk to."),
    "offload": Setting(
        "offload",
        _word(OFFLOADS),
        "|".join(OFFLOADS),
        "What the VM leaves undone in its frames: with tso checksums and segments.",
    ),
    "mtu": Setting(
        "mtu", _MTU, "BYTES", "Longest packet to send to the VM; with offload=tso 1500 unless said otherwise."
    ),
    "receive": Setting(
        "receive",
        _word(RECEIVES),
        "|".join(RECEIVES),
        "Longest frames to send to the VM: of its MTU, or large ones of 64 KiB.",
    ),
    "guard": Setting(
        "guard",
        _GUARD,
        "true|false|auto",
        "Drop what only the gateway or another VM may say; auto: where there is a gateway.",
    ),
}
"""Every setting of a port, by the name that operators know."""


def from_text(key: str, text: str) -> object:
    """Return the value that ``text`` is for that setting, checked. Raises SettingError."""
    kind = _known(key).kind
    try:
        value = kind.from_text(text)
        kind.check(value)
    except LocalError as error:
        raise SettingError(key, str(error)) from None
    return value


def changed(policy: Policy, values: Mapping[str, object]) -> Policy:
    """Return ``policy`` with these settings in force. Raises SettingError if one cannot be."""
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
    """Raise SettingError if ports that come by a transport, or by dialling it, cannot have those settings."""
    kind, default = TRANSPORT_KIND[transport.removeprefix("dial_")], Policy()
    said = ("offload", "mtu", "receive") if kind == "tap" else ("offload", "receive")
    for key in said if kind in SAY_THEMSELVES else ():
        if getattr(policy, SETTINGS[key].field) != getattr(default, SETTINGS[key].field):
            raise SettingError(key, f"a {transport} port says that itself; it is for VMs on sockets")


def plain(policy: Policy) -> dict[str, object]:
    """Return a policy as JSON has it, with what is in force where nothing was said."""
    return policy._asdict() | {
        "mtu": mtu_of(policy),
        "pinned": [format_mac(mac) for mac in policy.pinned],
        "reaches": list(policy.reaches),
    }


def shown(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of every setting, from what ``plain`` made."""
    return [(key, setting.kind.show(settings[setting.field])) for key, setting in SETTINGS.items()]


def pin_clash(pinned: tuple[bytes, ...], ports: Iterable[PortRecord]) -> str:
    """Return which of these addresses is pinned to one of these ports, as a line; nothing if none is."""
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
