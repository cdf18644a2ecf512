"""URLs and TAP names as operators write them."""

from __future__ import annotations

import os

import pytest

from forwarder.errors import LocalError
from supervisor.attach.addresses import Listen, PortOptions, Tap, parse_any, parse_listen, parse_tap


def test_listeners() -> None:
    assert parse_listen("qemu", "unix:///a/b") == Listen("qemu", "unix:///a/b", "/a/b")
    assert parse_listen("bess", "unixpacket:///a/../b") == Listen("bess", "unixpacket:///b", "/b")
    assert parse_listen("connect", "unix:///n") == Listen("connect", "unix:///n", "/n")
    assert parse_listen("qemu", "tcp://127.0.0.1:0") == Listen(
        "qemu", "tcp://127.0.0.1:0", host="127.0.0.1", port=0
    )
    assert parse_listen("qemu", "tcp://[::1]:90")[3:] == ("::1", 90, False)
    assert parse_listen("qemu", "tcp://[::1]:90,allow=any")[3:] == ("::1", 90, True)


@pytest.mark.parametrize(
    ("transport", "url"),
    [
        ("qemu", "a/b"),
        ("qemu", "unix://a"),
        ("vfkit", "unixgram://./a"),
        ("bess", "unixpacket://"),
        ("qemu", "/" + 107 * "x"),
        ("qemu", "/a\0b"),
        ("qemu", "unixgram:///a"),
        ("bess", "unix:///a"),
        ("vfkit", "tcp://127.0.0.1:1"),
        ("connect", "tcp://127.0.0.1:1"),
        ("qemu", "unix://"),
        ("qemu", "unix:///a\0b"),
        ("qemu", "tcp://127.0.0.1"),
        ("qemu", "tcp://:90"),
        ("qemu", "tcp://127.0.0.1:65536"),
        ("qemu", "tcp://127.0.0.1:x"),
        ("qemu", "tcp://127.0.0.1:\u0664\u0664"),
        ("qemu", "tcp://127.0.0.1:" + 5000 * "9"),
        ("qemu", "unix:///" + 107 * "x"),
        ("qemu", ""),
    ],
)
def test_a_wrong_listener_is_named(transport: str, url: str) -> None:
    with pytest.raises(LocalError) as caught:
        parse_listen(transport, url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("transport", "scheme"),
    [("qemu", "unix"), ("bess", "unixpacket"), ("vfkit", "unixgram"), ("connect", "unix")],
)
def test_a_path_stands_for_the_url_of_its_socket(transport: str, scheme: str) -> None:
    assert parse_listen(transport, "/a/../b") == Listen(transport, f"{scheme}:///b", "/b")
    assert parse_listen(transport, "./b") == parse_listen(transport, os.path.abspath("b"))


@pytest.mark.parametrize(
    ("transport", "url", "right"),
    [
        ("qemu", "unix://tmp/x.sock", "unix:///tmp/x.sock"),
        ("bess", "unixpacket://x", "unixpacket:///x"),
        ("vfkit", "unixgram://./x", f"unixgram://{os.getcwd()}/x"),
        ("bess", "unix:///run/x", "unixpacket:///run/x"),
        ("vfkit", "unix:///run/x", "unixgram:///run/x"),
    ],
)
def test_a_nearly_right_address_is_answered_with_the_right_spelling(
    transport: str, url: str, right: str
) -> None:
    with pytest.raises(LocalError) as caught:
        parse_listen(transport, url)
    assert f"write {right} " in str(caught.value) or str(caught.value).endswith(f"write it as {right}")
    assert parse_listen(transport, right).url == right


def test_the_longest_path_of_a_socket() -> None:
    assert parse_listen("qemu", "unix:///" + 106 * "x").path == "/" + 106 * "x"


def test_taps() -> None:
    assert parse_tap("tap0") == Tap("tap://tap0", "tap0")
    assert parse_tap("tap0,netns=blue") == Tap("tap://tap0,netns=blue", "tap0", "/run/netns/blue")
    assert parse_tap("tap0,netns=/proc/1/ns/net").netns == "/proc/1/ns/net"


@pytest.mark.parametrize("text", ["", "tap0,", "tap0,netns=", "tap0,mtu=9", "a" * 16, "tap/0", "tap 0"])
def test_a_wrong_tap_is_named(text: str) -> None:
    with pytest.raises(LocalError):
        parse_tap(text)


def test_an_attachment_is_found_again_however_its_path_is_written() -> None:
    for url in ("unix://x", f"unix://{os.getcwd()}/./x"):
        assert parse_any(url) == parse_listen("qemu", "./x").url
    assert parse_any("../x") == os.path.abspath("../x")
    assert parse_any("tcp://127.0.0.1:1") == "tcp://127.0.0.1:1"
    assert parse_any("web") == "web"


def test_a_name_is_checked() -> None:
    assert PortOptions("web").checked() == PortOptions("web")
    with pytest.raises(LocalError, match="cannot name a port"):
        PortOptions("a b").checked()
