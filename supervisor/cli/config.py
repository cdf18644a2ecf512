"""The configuration file of ``supervisor run``: TOML with the flags' names as keys.

```toml
name = "lab"
log-level = "info"
listen-qemu = ["unix:///run/lab/qemu.sock"]

[[listen-vfkit]]
url = "unixgram:///run/lab/web.sock"
name = "web"
pin = ["52:54:00:12:34:56"]
limit-bandwidth = "100Mbit/s"
isolated = true
reach = ["uplink"]

[[tap]]
device = "tap0,netns=lab"
name = "uplink"
limit-broadcast = "10k"

[gateway]
subnet = "10.77.0.0/24"
static-lease = ["52:54:00:12:34:56=10.77.0.10,web"]
```

A listener or TAP device is a URL, or a table with the settings of its ports: ``name`` and every setting in
``supervisor.ports.settings``. ``supervisor.gateway.options`` has the keys of the gateway; an empty table
means ``--gateway``. An unknown key, a value of a wrong type or unit, or an address that is pinned twice is
refused, with file, line and key.
"""

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

from forwarder.errors import LocalError
from forwarder.names import Policy, format_mac
from supervisor.attach.addresses import (
    LISTEN_FLAGS,
    Attachment,
    Listen,
    PortOptions,
    Tap,
    parse_listen,
    parse_tap,
)
from supervisor.base.logs import FORMATS, LEVELS
from supervisor.cli.config_lines import Path, locate
from supervisor.gateway import options as gateway_options
from supervisor.ports.settings import SETTINGS, SettingError, changed, check_transport
from supervisor.run_options import CELLS, RunOptions

LISTEN_KEYS = {flag: transport for transport, flag in LISTEN_FLAGS.items()}
TEXT_KEYS = {
    "runtime-dir": "runtime_dir",
    "name": "name",
    "pid-file": "pid_file",
    "pcap": "pcap",
    "notification": "notification",
    "cell": "cell",
    "log-level": "log_level",
    "log-format": "log_format",
}
CHOICES = {"cell": CELLS, "log-level": tuple(LEVELS), "log-format": FORMATS}
T = TypeVar("T")

MAX_BYTES = 1 << 20
"""Longest file: a thousand ports with every setting are half of it."""


def load(path: str, options: RunOptions) -> RunOptions:
    """Return ``options`` with those of the file. Raises LocalError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise LocalError(f"{path} is longer than {MAX_BYTES} bytes; is it the right file?")
    try:
        text = data.decode()
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError and TOMLDecodeError
        raise LocalError(f"{path} is no TOML: {error}") from None
    return _File(path, text).read(table, options)


class _File:
    """A file while it is read, for errors with file, line and key."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text
        self._pinned: dict[bytes, Path] = {}
        """The place where each address is pinned."""

    def read(self, table: dict[str, object], options: RunOptions) -> RunOptions:
        fields: dict[str, object] = {}
        attachments: list[Attachment] = []
        for key, value in table.items():
            if key in TEXT_KEYS:
                fields[TEXT_KEYS[key]] = self._text_of((key,), value)
                if key in CHOICES and value not in CHOICES[key]:
                    self._fail((key,), f"{value!r} is not one of these: {', '.join(CHOICES[key])}")
            elif key in LISTEN_KEYS or key == "tap":
                if not isinstance(value, list):
                    self._fail((key,), "has to be a list")
                attachments += [self._attachment(key, (key, index), each) for index, each in enumerate(value)]
            elif key == "gateway":
                fields[key] = self._gateway(value)
            else:
                known = ", ".join([*TEXT_KEYS, *LISTEN_KEYS, "tap", "gateway"])
                self._fail((key,), f"unknown key; known are {known}")
        return options._replace(attachments=tuple(attachments), **fields)  # type: ignore[arg-type]

    def _gateway(self, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            self._fail(("gateway",), "has to be a table")
        return {key: self._gateway_option(key, each) for key, each in value.items()}

    def _gateway_option(self, key: str, value: object) -> object:
        return self._parse(("gateway", key), lambda: gateway_options.checked(key, value))

    def _attachment(self, key: str, path: Path, value: object) -> Attachment:
        place = "device" if key == "tap" else "url"
        if not isinstance(value, dict):
            url = self._text_of(path, value)
            return Attachment(self._parse(path, lambda: _address(key, url)))
        known = (place, "name", *SETTINGS)
        for each in value:
            if each not in known:
                self._fail((*path, each), f"unknown key in {key}; known are {', '.join(known)}")
        if place not in value:
            self._fail(path, f"{place} is missing")
        url = self._text_of((*path, place), value[place])
        address = self._parse((*path, place), lambda: _address(key, url))
        name = self._text_of((*path, "name"), value["name"]) if "name" in value else None
        self._parse((*path, "name"), PortOptions(name).checked)
        settings = {each: setting for each, setting in value.items() if each in SETTINGS}
        try:
            policy = changed(Policy(), settings)
            check_transport("tap" if key == "tap" else LISTEN_KEYS[key], policy)
        except SettingError as error:
            self._fail((*path, error.key), error.why)
        for index, mac in enumerate(policy.pinned):
            pin: Path = (*path, "pin", index)
            other = self._pinned.setdefault(mac, pin)
            if other != pin:
                self._fail(pin, f"{format_mac(mac)} is pinned in line {self._line(other)} already")
        return Attachment(address, PortOptions(name, policy))

    def _text_of(self, path: Path, value: object) -> str:
        if not isinstance(value, str) or not value:
            self._fail(path, "has to be text")
        return value

    def _parse(self, path: Path, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except LocalError as error:
            self._fail(path, str(error))

    def _fail(self, path: Path, why: str) -> NoReturn:
        """Refuse the file; the error names the last key of the path."""
        key = next(step for step in reversed(path) if isinstance(step, str))
        raise LocalError(f"{self._path}, line {self._line(path)}: {key}: {why}")

    def _line(self, path: Path) -> int:
        return locate(self._text)[path]


def _address(key: str, url: str) -> Listen | Tap:
    return parse_tap(url) if key == "tap" else parse_listen(LISTEN_KEYS[key], url)
