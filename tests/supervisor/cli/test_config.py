"""The configuration file says what the flags say, and is refused with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwarder.errors import LocalError
from forwarder.names import Policy
from supervisor.attach.addresses import Attachment, PortOptions, parse_listen, parse_tap
from supervisor.cli import config
from supervisor.run_options import RunOptions

BASE = RunOptions("/base")


def load(tmp_path: Path, text: str | bytes) -> RunOptions:
    file = tmp_path / "b.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(str(file), BASE)


def test_the_gateway_is_a_table(tmp_path: Path) -> None:
    text = '[gateway]\nsubnet = "10.77.0.0/24"\nmtu = 9000\nsearch-domain = ["lab"]\nssh-port = 2222'
    wanted = {"subnet": "10.77.0.0/24", "mtu": 9000, "search-domain": ["lab"], "ssh-port": 2222}
    assert load(tmp_path, text).gateway == wanted
    assert load(tmp_path, "[gateway]").gateway == {}
    assert load(tmp_path, 'name = "x"').gateway is None
    for wrong, line in (
        ('[gateway]\nmtu = "9000"', "line 2: mtu: has to be a number"),
        ("[gateway]\n\nmut = 9000", "line 3: mut: unknown key in gateway"),
        ("gateway = true", "line 1: gateway: has to be a table"),
    ):
        with pytest.raises(LocalError, match=line):
            load(tmp_path, wrong)


def test_everything_at_once(tmp_path: Path) -> None:
    text = """
        name = "lab"
        runtime-dir = "/run/lab"
        pid-file = "/run/lab.pid"
        pcap = "/run/lab.pcap"
        log-level = "debug"
        log-format = "json"
        listen-qemu = ["unix:///q", { url = "tcp://127.0.0.1:9", name = "web" }]
        listen-bess = ["unixpacket:///b"]
        listen = [{ url = "unix:///n", offload = "tso", mtu = 9000, receive = "large" }]
        listen-vfkit = [{ url = "unixgram:///v", pin = ["02:00:00:00:00:01"], flood-unknown = false }]
        [[tap]]
        device = "tap1,netns=blue"
        [[tap]]
        device = "tap2"
        limit-broadcast = 500
        limit-multicast = "10k"
        limit-unknown = "none"
        limit-bandwidth = "100Mbit/s"
        limit-macs = 3
        isolated = true
        reach = ["tap0", "web"]
    """
    pinned = Policy((bytes((2, 0, 0, 0, 0, 1)),), False)
    large = Policy(offload="tso", mtu=9000, receive="large")
    limited = Policy((), True, 500, 10_000, 0, 12_500_000, 3, True, ("tap0", "web"))
    assert load(tmp_path, text) == RunOptions(
        "/run/lab",
        "lab",
        (
            Attachment(parse_listen("qemu", "unix:///q")),
            Attachment(parse_listen("qemu", "tcp://127.0.0.1:9"), PortOptions("web")),
            Attachment(parse_listen("bess", "unixpacket:///b")),
            Attachment(parse_listen("connect", "unix:///n"), PortOptions(None, large)),
            Attachment(parse_listen("vfkit", "unixgram:///v"), PortOptions(None, pinned)),
            Attachment(parse_tap("tap1,netns=blue")),
            Attachment(parse_tap("tap2"), PortOptions(None, limited)),
        ),
        "/run/lab.pid",
        "/run/lab.pcap",
        log_level="debug",
        log_format="json",
    )


def test_nothing_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n") == BASE


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("\nnmae = 1", ", line 2: nmae: ", "unknown key; known are runtime-dir, name"),
        ("name = 1", ", line 1: name: ", "has to be text"),
        ('log-level = "loud"', ", line 1: log-level: ", "not one of these: debug, info"),
        ('\n\ntap = "tap0"', ", line 3: tap: ", "has to be a list"),
        ("tap = [1]", ", line 1: tap: ", "has to be text"),
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
        ('[[listen-qemu]]\nurl = "unix:///a"\nname = "a b"', ", line 3: name: ", "cannot name a port"),
        (
            '[[tap]]\ndevice = "a"\noffload = "tso"',
            ", line 3: offload: ",
            "a tap port negotiates this itself; the setting is for VMs on sockets",
        ),
        *[
            (f'[[tap]]\ndevice = "a"\nisolated = true\n\n[[tap]]\ndevice = "b"\n{key} = {value}', where, what)
            for key, value, what in (
                ("limit-broadcast", '"10q"', "'10q' is no rate"),
                ("limit-multicast", "1.5", "1.5 is no rate"),
                ("limit-unknown", "true", "True is no rate"),
                ("limit-broadcast", "[2]", "[2] is no rate"),
                ("limit-broadcast", "-1", "-1 is no rate"),
                ("limit-bandwidth", '"100Mb/s"', "'100Mb/s' is no bandwidth; write its unit"),
                ("limit-bandwidth", "100", "100 is no bandwidth; write its unit"),
                ("limit-bandwidth", '"1kB/s"', "write 100,000 to"),
                ("limit-macs", '"some"', "'some' is no number of addresses"),
                ("limit-macs", "10241", "write 1 to 10,240 addresses"),
                ("isolated", '"yes"', "true or false"),
                ("offload", "true", "True is not one of these: none, tso"),
                ("mtu", '"67"', "67 is out of bounds; write 68 to 65,521 bytes, or none"),
                ("mtu", "true", "True is no MTU"),
                ("receive", '"all"', "'all' is not one of these: mtu, large"),
                ("isolatde", "true", "unknown key in tap; known are device, name, pin"),
                ("reach", '"a"', "a list of port names"),
                ("reach", '["a b"]', "'a b' names no port"),
                ("reach", '["a"]', "it has no effect unless isolated=true"),
                ("pin", "[1]", "a list of MAC addresses"),
            )
            for where in (f", line 7: {key}: ",)
        ],
        (
            'listen-qemu = [{ url = "unix:///a", pin = ["02:00:00:00:00:01"] }]\n[[tap]]\ndevice = "b"\n'
            'pin = [\n  "02:00:00:00:00:02",\n  "02-00-00-00-00-01",\n]',
            ", line 6: pin: ",
            "02:00:00:00:00:01 is pinned in line 1 already",
        ),
        (
            '[[tap]]\ndevice = "b"\npin = ["02:00:00:00:00:01", "02-00-00-00-00-01"]',
            ", line 3: pin: ",
            "02:00:00:00:00:01 is there twice",
        ),
        ("name = =", " is no TOML: ", "line 1"),
        ("name = " + "[" * 100_000, " is no TOML: ", ""),
        ("name = " + "9" * 10_000, " is no TOML: ", ""),
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
