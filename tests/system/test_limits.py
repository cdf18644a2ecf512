"""Limits of resources (ulimit) end a command in one line that names the limit, or do no harm."""

from __future__ import annotations

import os
from functools import partial

import pytest

from tests.helpers.guests.fake_vm import build_frame, mac
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

TOO_LOW = [
    ("u", 5),
    ("n", 8),
    ("n", 64),
    ("v", 80000),
    ("v", 120000),
    ("d", 30000),
    ("d", 60000),
    ("f", 1000),
]
"""Some of them leave enough for a command, but not for a switch."""

HARMLESS = {"l": 0, "i": 0, "x": 0, "q": 0, "c": 0, "m": 1000, "s": 256, "t": 1000}


def limited(limits: dict[str, int], command: list[str]) -> list[str]:
    """Return a command that runs under these limits, as an ordinary user: root has no limit of processes."""
    words = " && ".join(f"ulimit -{option} {number}" for option, number in limits.items())
    inner = ["bash", "-c", f'{words} && exec "$@"', "bash", *command]
    return inner if os.geteuid() else as_user(NOBODY, inner)


def refused(switch: Switch, *words: str) -> str:
    """Return the only line of a command that fails."""
    done = switch.command(*words, check=False)
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(("option", "number"), TOO_LOW)
def test_a_limit_that_is_too_low_for_a_switch_is_named_with_what_it_needs(option: str, number: int) -> None:
    with short_directory() as directory:
        directory.chmod(0o777)
        switch = Switch(directory, wrap=partial(limited, {option: number}))
        line = refused(switch, "run", *switch.arguments(qemu=True))
        assert line.startswith("Error: the limit of ")
        assert f"(ulimit -{option}) is {number}" in line
        assert line.endswith(" at least; raise it")
        switch.assert_nothing_left()


def test_a_gateway_needs_more_processes() -> None:
    with short_directory() as directory:
        directory.chmod(0o777)
        line = refused(Switch(directory, wrap=partial(limited, {"u": 20})), "run", "--gateway")
        assert "(ulimit -u) is 20, and this needs 24 at least" in line


def test_other_limits_do_no_harm_and_a_command_without_threads_says_why() -> None:
    with short_directory() as directory:
        directory.chmod(0o777)
        limits = dict(HARMLESS)
        switch = Switch(directory, wrap=partial(limited, limits))
        try:
            switch.start(*switch.arguments(qemu=True))
            alice, bob = switch.connect("unix"), switch.connect("unix")
            switch.wait_live(2)

            def heard() -> bool:
                alice.send(build_frame(mac(2), mac(1)))
                return any(frame[6:12] == mac(1) for frame in bob.drain())

            wait_for(heard, "bob to hear alice")
            assert "the limit of processor time (ulimit -t) is 1000 s" in switch.log()
            limits |= {"u": 1}
            line = refused(switch, "attach", "--listen-qemu", f"unix://{directory}/other.sock")
            del limits["u"]
            assert line.startswith("Error: no thread can be started; raise the limit of processes")
            assert "(ulimit -u)" in line
            alice.close()
            bob.close()
            switch.stop()
        finally:
            switch.kill()
