"""Clients of another protocol: told by their first bytes, slowed down, and no burden to VMs that wait."""

from __future__ import annotations

import pytest

from supervisor.attach.protocol_guard import LONGEST_PAUSE_S, WARY_S, ProtocolGuard, is_frame, looks_like

VHOST_USER = bytes.fromhex("01000000 01000000 00000000".replace(" ", ""))


@pytest.mark.parametrize(
    ("start", "protocol"),
    [
        (VHOST_USER, "vhost-user"),
        (bytes.fromhex("0f00000009000000080000000000"), "vhost-user"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"POST /connect HT", "--listen"),
        (b"OPTIONS * HTTP/1", "HTTP"),
        (bytes.fromhex("16030100c2010000"), "TLS"),
        (b"SSH-2.0-OpenSSH_", "SSH"),
        (b'{"execute": "qmp', "QMP"),
        (bytes.fromhex("cefaedfe03000000"), "VDE"),
        (bytes.fromhex("feedface00000003"), "VDE"),
        (bytes.fromhex("ff00000000000000017f"), "ZeroMQ"),
        (b"VMN3T\0\0\0", "VPNKit"),
        (b"\xde\xad\xbe\xef\1", "nothing known, it begins with de ad be ef 01"),
    ],
)
def test_the_protocol_of_a_client_is_named(start: bytes, protocol: str) -> None:
    assert protocol in looks_like(start)
    assert not is_frame(start)


def test_lengths_of_frames_are_none_of_these() -> None:
    for length in (14, 60, 1514, 65_550):
        start = length.to_bytes(4, "big") + b"\xff" * 12
        assert is_frame(start)
        assert "--listen-qemu" in looks_like(start)
    for length in (0, 13, 1 << 24):
        assert not is_frame(length.to_bytes(4, "big"))


def test_pauses_grow_and_are_forgotten() -> None:
    guard = ProtocolGuard()
    assert not guard.is_wary(0.0)
    now, pauses = 0.0, []
    for _ in range(9):
        pauses.append(guard.bad(now))
        if pauses[-1]:
            assert guard.bad(now + pauses[-1] - 0.1) == 0.0, "it had come before the pause"
        last, now = now, now + pauses[-1]
    assert pauses == [0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert guard.is_wary(last + WARY_S - 0.1)
    assert not guard.is_wary(last + WARY_S)
    assert guard.bad(last + WARY_S) == 0.0, "one slip a minute later is one slip"
