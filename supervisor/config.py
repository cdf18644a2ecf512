"""The configuration file of ``supervisor run``: TOML with the flags' names as keys.

```toml
name = "lab"
log-level = "info"
listen-qemu = ["unix:///run/lab/qemu.sock"]
listen-vfkit = [{ url = "unixgram:///run/lab/web.sock", name = "web", pin = ["52:54:00:12:34:56"] }]
tap = [{ device = "tap0,netns=lab", flood-unknown = false }]
```

A listener or TAP device is its URL, or a table that says more about the ports that come from it: ``name``,
``pin`` (the only addresses a VM may send from), ``flood-unknown`` (whether frames to unknown addresses are
delivered). An unknown key or a value of a wrong type is refused, with file, line and key.
"""

import re
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

from forwarder.errors import LocalError
from forwarder.names import Policy, parse_mac
from supervisor.addresses import Attachment, Listen, Settings, Tap, parse_listen, parse_tap
from supervisor.logs import FORMATS, LEVELS
from supervisor.options import RunOptions

LISTEN_KEYS = {"listen-qemu": "qemu", "listen-bess": "bess", "listen-vfkit": "vfkit"}
TEXT_KEYS = {
    "runtime-dir": "runtime_dir",
    "name": "name",
    "pid-file": "pid_file",
    "log-level": "log_level",
    "log-format": "log_format",
}
CHOICES = {"log-level": LEVELS, "log-format": FORMATS}
T = TypeVar("T")

MAX_BYTES = 1 << 20
"""Longest file: a thousand ports with every setting are a fifth of it."""


def load(path: str, options: RunOptions) -> RunOptions:
    """Return ``options`` with what the file says. Raises LocalError."""
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
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LocalError(f"{path} is no TOML: {error}") from None
    return _File(path, text).read(table, options)


class _File:
    """A file that is being read, for saying where something is wrong with it."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()

    def read(self, table: dict[str, object], options: RunOptions) -> RunOptions:
        fields: dict[str, object] = {}
        attachments: list[Attachment] = []
        for key, value in table.items():
            if key in TEXT_KEYS:
                fields[TEXT_KEYS[key]] = self._text(key, value)
                if key in CHOICES and value not in CHOICES[key]:
                    self._fail(key, f"{value!r} is none of {', '.join(CHOICES[key])}")
            elif key in LISTEN_KEYS or key == "tap":
                if not isinstance(value, list):
                    self._fail(key, "has to be a list")
                attachments += [self._attachment(key, each) for each in value]
            else:
                known = ", ".join([*TEXT_KEYS, *LISTEN_KEYS, "tap"])
                self._fail(key, f"unknown key; known are {known}")
        return options._replace(attachments=tuple(attachments), **fields)  # type: ignore[arg-type]

    def _attachment(self, key: str, value: object) -> Attachment:
        place = "device" if key == "tap" else "url"
        table = value if isinstance(value, dict) else {place: value}
        unknown = sorted(table.keys() - {place, "name", "pin", "flood-unknown"})
        if unknown:
            self._fail(unknown[0], f"unknown key in {key}; known are {place}, name, pin, flood-unknown", key)
        if place not in table:
            self._fail(key, f"{place} is missing")
        url = self._text(place, table[place], key)
        address = self._parse(key, lambda: _address(key, url))
        name = self._text("name", table["name"], key) if "name" in table else None
        pins = table.get("pin", [])
        if not isinstance(pins, list):
            self._fail("pin", "has to be a list of MAC addresses", key)
        macs = tuple(self._mac(pin, key) for pin in pins)
        flood = table.get("flood-unknown", True)
        if not isinstance(flood, bool):
            self._fail("flood-unknown", "has to be true or false", key)
        settings = Settings(name, Policy(macs, flood))
        return Attachment(address, self._parse(key, settings.checked))

    def _mac(self, value: object, inside: str) -> bytes:
        text = self._text("pin", value, inside)
        mac = self._parse("pin", lambda: parse_mac(text))
        assert isinstance(mac, bytes)
        return mac

    def _text(self, key: str, value: object, inside: str = "") -> str:
        if not isinstance(value, str) or not value:
            self._fail(key, "has to be text", inside)
        return value

    def _parse(self, key: str, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except LocalError as error:
            self._fail(key, str(error))

    def _fail(self, key: str, why: str, inside: str = "") -> NoReturn:
        line = self._line(key) or self._line(inside)
        place = f"{self._path}, line {line}" if line else self._path
        raise LocalError(f"{place}: {key}: {why}")

    def _line(self, key: str) -> int:
        """Return where a key is first set, 0 if that is not to be seen (tomllib does not say)."""
        if key:
            name = rf"""["']?{re.escape(key)}["']?\s*"""
            pattern = re.compile(rf"(?:^|[{{,\s]){name}=|^\s*\[\[?\s*{name}\]")
            for number, line in enumerate(self._lines, 1):
                if pattern.search(line.partition("#")[0]):
                    return number
        return 0


def _address(key: str, url: str) -> Listen | Tap:
    return parse_tap(url) if key == "tap" else parse_listen(LISTEN_KEYS[key], url)
