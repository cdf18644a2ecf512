"""The configuration file says what the flags say, and is refused with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.errors import LocalError
from forwarder.names import Policy
from supervisor import config
from supervisor.addresses import Attachment, Settings, parse_listen, parse_tap
from supervisor.options import RunOptions

BASE = RunOptions("/base")


def load(tmp_path: Path, text: str | bytes) -> RunOptions:
    file = tmp_path / "b.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(str(file), BASE)


def test_everything_at_once(tmp_path: Path) -> None:
    text = """
        name = "lab"
        runtime-dir = "/run/lab"
        pid-file = "/run/lab.pid"
        log-level = "debug"
        log-format = "json"
        listen-qemu = ["unix:///q", { url = "tcp://127.0.0.1:9", name = "web" }]
        listen-bess = ["unixpacket:///b"]
        listen-vfkit = [{ url = "unixgram:///v", pin = ["02:00:00:00:00:01"], flood-unknown = false }]
        tap = ["tap0", { device = "tap1,netns=blue" }]
    """
    pinned = Policy((bytes((2, 0, 0, 0, 0, 1)),), False)
    assert load(tmp_path, text) == RunOptions(
        "/run/lab",
        "lab",
        (
            Attachment(parse_listen("qemu", "unix:///q")),
            Attachment(parse_listen("qemu", "tcp://127.0.0.1:9"), Settings("web")),
            Attachment(parse_listen("bess", "unixpacket:///b")),
            Attachment(parse_listen("vfkit", "unixgram:///v"), Settings(None, pinned)),
            Attachment(parse_tap("tap0")),
            Attachment(parse_tap("tap1,netns=blue")),
        ),
        "/run/lab.pid",
        "debug",
        "json",
    )


def test_nothing_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == BASE


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("\nnmae = 1", ", line 2: nmae: ", "unknown key; known are runtime-dir, name"),
        ("name = 1", ", line 1: name: ", "has to be text"),
        ('log-level = "loud"', ", line 1: log-level: ", "none of debug, info"),
        ('\n\ntap = "tap0"', ", line 3: tap: ", "has to be a list"),
        ("tap = [1]", ", line 1: device: ", "has to be text"),
        ('tap = [{ url = "tap0" }]', ", line 1: url: ", "unknown key in tap; known are device"),
        ('[[listen-qemu]]\nname = "a"', ", line 1: listen-qemu: ", "url is missing"),
        ('listen-qemu = ["unixgram:///x"]', ", line 1: listen-qemu: ", "no address for qemu"),
        ('[[listen-qemu]]\nurl = "unix:///a"\npin = "x"', ", line 3: pin: ", "a list of MAC addresses"),
        ('[[listen-qemu]]\nurl = "unix:///a"\npin = ["x"]', ", line 3: pin: ", "not a MAC address"),
        (
            '[[listen-qemu]]\nurl = "unix:///a"\nflood-unknown = 1',
            ", line 3: flood-unknown: ",
            "true or false",
        ),
        ('[[listen-qemu]]\nurl = "unix:///a"\nname = "a b"', ", line 1: listen-qemu: ", "cannot name a port"),
        ("name = =", " is no TOML: ", "line 1"),
        (b"\xff", " is no TOML: ", "utf-8"),
        (b"#" * ((1 << 20) + 1), " is longer than ", "bytes"),
    ],
)
def test_mistakes_are_located(tmp_path: Path, text: str | bytes, where: str, what: str) -> None:
    with pytest.raises(LocalError) as caught:
        load(tmp_path, text)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'b.toml'}{where}")
    assert what in line
    assert "\n" not in line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"cannot read .*: No such file"):
        config.load(str(tmp_path / "absent"), BASE)
