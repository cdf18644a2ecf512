"""A gateway that a guest has taken over: what it tries is refused, and VMs that talk do not notice."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.gateway.processes import process
from tests.helpers.guests import requirements
from tests.helpers.guests.conversation import Conversation
from tests.helpers.guests.fake_vm import mac
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for
from tests.helpers.guests.watching import ask, live, workers
from tests.helpers.taken_over import TakenOver
from tests.helpers.taken_over.attacks import ATTACKS, GATEWAY_ATTACKS
from tests.helpers.taken_over.world import (
    ORDINARY,
    ROOT,
    USERS,
    common_facts,
    supervisor_of,
    taken_over,
    x86,
)

NewNamespace = Callable[[str], Namespace]
PROCESSES = ["gateway", "gateway.inside"]
NEEDED = {
    "gateway": {"a socket of INET", "a socket of INET6", "descriptors", "connect to the host"},
    "gateway.inside": {"a socket of INET", "a socket of INET6"},
}
"""What the work of each needs."""


class World:
    """A switch with a gateway, which is taken over, and two VMs that talk."""

    def __init__(self, switch: Switch, taken: TakenOver) -> None:
        self.switch, self.taken = switch, taken
        self.alice, self.bob = switch.connect("unix"), switch.connect("unix")
        self.talk = Conversation(self.alice, mac(2), self.bob, mac(3))
        self.talk.begin()
        live(switch, 3)
        assert self.talk.flows()
        self.before = workers(switch)

    def run(self, where: str, source: str, **facts: object) -> dict[str, object]:
        sibling = next(pid for name, (pid, *_) in self.before.items() if name != "gateway")
        victims = {"a worker": sibling, "the supervisor": supervisor_of(self.switch)}
        return self.taken.run(where, source, **(common_facts(self.switch, victims) | facts))

    def check(self) -> None:
        """No frame was lost or changed, and no other process was touched."""
        self.talk.settle()
        assert (self.talk.lost, self.talk.wrong, self.talk.closed) == (0, [], [])
        after = workers(self.switch)
        for name in self.before:
            assert name == "gateway" or after[name] == self.before[name]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, namespace: NewNamespace) -> Callable[..., contextmanager[World]]:  # type: ignore[valid-type]
    """Give a factory of worlds, run by a user and without a part of a cell."""
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))

    @contextmanager
    def make(user: int | None, part: str = "", *flags: str) -> Iterator[World]:
        inside = ["ip", "netns", "exec", namespace("host").netns]

        def arguments(switch: Switch) -> list[str]:
            return ["--gateway", *flags, *switch.arguments(qemu=True)]

        with taken_over(monkeypatch, arguments, user=user, part=part, inside=inside) as (switch, taken):
            yield World(switch, taken)

    return make


def worked(said: dict[str, object]) -> set[str]:
    return {name for name, what in said.items() if str(what).startswith("worked")}


@pytest.mark.parametrize("user", USERS)
def test_every_attack_of_a_gateway_is_refused_and_logged(world, user: int | None) -> None:
    with world(user) as here:
        others = ask(here.switch)["supervisor"]["cell"]["others"]
        assert set(others) == {"the gateway", "the gateway's namespace"}
        if missing := {part for each in others.values() for part in each["missing"]}:
            pytest.skip(f"the kernel has no {', '.join(missing)}")
        for where, subject in zip(PROCESSES, ("the gateway", "the gateway's namespace"), strict=True):
            lines = here.switch.command("status").stdout.splitlines()
            assert any(subject in line.partition(" confined by user, root")[0] for line in lines)
            with here.talk.going_on():
                said = here.run(where, ATTACKS + GATEWAY_ATTACKS)
            assert len(said) >= 55
            assert worked(said) <= NEEDED[where]
            wait_for(
                lambda subject=subject: f"{subject}: its cell has refused" in here.switch.log(),
                "the log line about it",
            )
        assert not (here.switch.directory / "made").exists()
        here.check()
        assert here.switch.json("status")["gateway"] == {"state": "live"}


@x86
@pytest.mark.parametrize("part", ["landlock", "seccomp", "root"])
@pytest.mark.parametrize("user", USERS)
def test_a_part_that_the_gateway_lacks_is_named_and_the_others_hold(
    world, user: int | None, part: str
) -> None:
    skip = ["priority", "limits of", "SIGKILL by the kernel", "kill everybody"] if part == "seccomp" else []
    harmless = {
        "landlock": {"bind a TCP port"},  # without listen, which is refused
        "root": set(),
        # Without it: memory and sockets of its own, which reach nothing that is named in a file system.
        "seccomp": {
            *("executable memory", "memory without a limit", "memfd", "io_uring", "keyring", "16 GiB"),
            *("user namespace", "more limits", "pidfd of a worker", "pidfd of the supervisor", "descriptors"),
            "listen",
            # In the namespace: of its own network, and of its own users, where it is what it was.
            *("connect to the host", "become root"),
        },
    }[part]
    with world(user, part) as here:
        for subject, cell in ask(here.switch)["supervisor"]["cell"]["others"].items():
            assert cell["missing"] == [part]
            assert f"{subject} is confined by" in here.switch.log()
        for where in PROCESSES:
            with here.talk.going_on():
                said = here.run(where, ATTACKS + GATEWAY_ATTACKS, skip=skip)
            open_to = worked(said) - NEEDED[where] - harmless
            assert {name for name in open_to if not (part == "seccomp" and "a socket of " in name)} == set()
        here.check()


@x86
@pytest.mark.parametrize("part", ["landlock", "seccomp"])
def test_a_required_cell_covers_the_gateway(world, part: str) -> None:
    with world(ORDINARY if ROOT else None, "", "--cell", "required") as here:
        assert ask(here.switch)["supervisor"]["cell"]["required"]
        here.check()


FORGED = """
import random
chance = random.Random(7)
names = ["listen", "unlisten", "remember", "owners", "ask", "log", "refused", "stop"]
values = [None, 1, -1, 1 << 40, "x", "unix", "tcp", [], {}, ["unix:/etc/x:192.168.127.2:1"], b"\\xff", 2.5]
keys = ["number", "kind", "path", "host", "port", "forward", "own", "leases", "what", "level", "text"]
channel = process._channel
sent = 0
for number in range(facts["count"]):
    arguments = {chance.choice(keys): chance.choice(values) for _ in range(chance.randrange(6))}
    try:
        data = wire.encode(messages.Command(chance.choice(names), arguments))
    except Exception:
        continue
    fds = [0] * chance.choice((0, 0, 0, 1, 7))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    try:
        channel._sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sent += 1
    except OSError:
        break
said["sent"] = sent
"""
ASKS = """
for number, path in enumerate(facts["paths"]):
    place = {"number": 5000 + number, "kind": "unix", "path": path}
    process._channel.send(messages.Command("listen", place))
told = {"forward": ["unix:" + facts["paths"][0] + ":192.168.127.2:1"], "services": facts["paths"][1]}
process._channel.send(messages.Command("remember", told))
for number in range(3000):
    process._channel.send(messages.Command("log", {"level": "error", "text": "forged\\nline %d" % number}))
"""


def test_a_gateway_gets_no_file_that_no_operator_has_named(world) -> None:
    with world(None) as here:
        paths = [str(here.switch.directory / name) for name in ("one", "two")]
        began = time.monotonic()
        with here.talk.going_on():
            here.run("gateway", ASKS, paths=paths)
            wait_for(lambda: "forged line" in here.switch.log(), "its lines")
            here.switch.command("forward", "list")
        lines = [line for line in here.switch.log().splitlines() if "forged" in line]
        assert len(lines) <= 100 * (time.monotonic() - began + 2), "a hundred a second, and as many at once"
        assert all("ERROR" in line for line in lines), "none begins a line of its own"
        before = process(here.switch, "gateway")
        os.kill(before, 9)
        wait_for(lambda: process(here.switch, "gateway") not in (0, before), "the next gateway")
        wait_for(lambda: here.switch.json("status")["gateway"] == {"state": "live"}, "it to serve")
        assert not any(Path(path).exists() for path in paths)
        assert "unix:" not in here.switch.command("forward", "list").stdout
        here.check()


def test_messages_of_every_wrong_kind_from_a_gateway_end_it_and_nothing_else(world) -> None:
    with world(None) as here:
        supervisor = ask(here.switch)["supervisor"]["pid"]
        descriptors = len(os.listdir(f"/proc/{supervisor}/fd"))
        for _ in range(2):
            before = process(here.switch, "gateway")
            with here.talk.going_on():
                here.run("gateway", FORGED, count=5000)
                wait_for(lambda before=before: process(here.switch, "gateway") != before, "another gateway")
                wait_for(lambda: here.switch.json("status")["gateway"] == {"state": "live"}, "it to serve")
            here.taken.forget("gateway")
        here.check()
        wait_for(
            lambda: len(os.listdir(f"/proc/{supervisor}/fd")) <= descriptors + 8, "descriptors to be closed"
        )


@pytest.mark.parametrize("user", USERS)
def test_a_forward_of_a_unix_socket_and_of_a_low_port_come_and_go(world, user: int | None) -> None:
    with world(user) as here:
        path = here.switch.directory / "web.sock"
        here.switch.command("forward", "add", f"unix:{path}:192.168.127.2:80")
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        if user is None:
            here.switch.command("forward", "add", "tcp:127.0.0.1:81:192.168.127.2:80")
        here.switch.command("forward", "remove", f"unix:{path}")
        assert not path.exists()
        here.check()
