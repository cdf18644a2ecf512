"""A taken-over worker, and strangers, beside a gateway that serves: both are refused, and no VM notices."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.stock import MOST_KEPT
from tests.helpers.gateway.processes import process
from tests.helpers.guests import requirements
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.guests.watching import ask, live, workers
from tests.helpers.taken_over.attacks import ATTACKS, BESIDE_A_GATEWAY, MESSAGES
from tests.helpers.taken_over.strangers import strangers
from tests.helpers.taken_over.world import ROOT, USERS, World, supervisor_of, taken_over

NewNamespace = Callable[[str], Namespace]
MESSAGES_SENT = 10_000
FORWARD = 8080


class Beside:
    """A world with a gateway, and its sockets on the host."""

    def __init__(self, world: World) -> None:
        self.world, self.switch = world, world.switch
        self.services = self.switch.directory / "services.sock"
        self.socket = self.switch.directory / "web.sock"
        self.switch.command("forward", "add", f"tcp:127.0.0.1:{FORWARD}:192.168.127.2:80")
        self.switch.command("forward", "add", f"unix:{self.socket}:192.168.127.2:80")
        self.pids = {
            "the gateway": process(self.switch, "gateway"),
            "its namespace": process(self.switch, "gateway.inside"),
            "the supervisor": supervisor_of(self.switch),
        }
        assert all(self.pids.values())
        self.ports = workers(self.switch)

    def descriptors(self) -> dict[str, int]:
        """Of each process, as far as we may look."""
        return {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in self.pids.items()} if ROOT else {}

    def check_descriptors(self, before: dict[str, int]) -> None:
        """No process holds more than it did; those of the last connections may be on their way out.

        The gateway has a stock of sockets after a first connection through a forward.
        """
        may_have = {name: count + 16 for name, count in before.items()}
        if before:
            may_have["the gateway"] += MOST_KEPT
        wait_for(
            lambda: all(count <= may_have[name] for name, count in self.descriptors().items()),
            lambda: f"descriptors to be closed: there were {before}, there are {self.descriptors()}",
        )

    def check(self) -> None:
        """The gateway is the one that it was, and serves; so do all others."""
        assert self.switch.json("status")["gateway"] == {"state": "live"}
        assert [process(self.switch, name) for name in ("gateway", "gateway.inside")] == [
            self.pids["the gateway"],
            self.pids["its namespace"],
        ]
        assert len(self.switch.json("forward", "list")["forwards"]) == 2
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.services))
            client.send(b"GET /leases HTTP/1.1\r\nHost: gvproxy\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert workers(self.switch)["gateway"] == self.ports["gateway"]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, namespace: NewNamespace) -> Callable[..., contextmanager[Beside]]:  # type: ignore[valid-type]
    """Give a factory of switches with a gateway, run by a user."""
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY))

    @contextmanager
    def make(user: int | None = None) -> Iterator[Beside]:
        inside = ["ip", "netns", "exec", namespace("host").netns]

        def arguments(switch: Switch) -> list[str]:
            services = ["--services", f"unix://{switch.directory}/services.sock"]
            return ["--gateway", *services, *switch.arguments(qemu=True, bess=True, vfkit=1, network=True)]

        with taken_over(monkeypatch, arguments, user=user, inside=inside) as (switch, taken):
            live(switch, 1)
            yield Beside(World(switch, taken, user, gateway=1))

    return make


@pytest.mark.parametrize("user", USERS)
def test_every_attack_of_a_worker_beside_a_gateway_is_refused(beside, user: int | None) -> None:
    with beside(user) as here:
        if missing := ask(here.switch)["supervisor"]["cell"]["missing"]:
            pytest.skip(f"the kernel has no {', '.join(missing)}")
        victims = {"a sibling": here.world.pids[2], **here.pids}
        facts = {"services": str(here.services), "socket": str(here.socket), "forward": FORWARD}
        with here.world.talk.going_on():
            said = here.world.run(ATTACKS + BESIDE_A_GATEWAY, victims=victims, **facts)
        assert {name for name, what in said.items() if str(what).startswith("worked")} == set()
        assert len(said) >= 70
        assert not (here.switch.directory / "made").exists()
        here.check()
        here.world.check()


def test_bad_messages_of_a_worker_disturb_no_gateway(beside) -> None:
    with beside() as here:
        world, before = here.world, here.descriptors()
        victim = world.ports[2]
        facts = {"port": victim["port"], "epoch": victim["worker"]["epoch"]}
        sent = 0
        with world.talk.going_on():
            while sent < MESSAGES_SENT and world.pids[1] in [row[0] for row in workers(here.switch).values()]:
                sent += int(str(world.run(MESSAGES, seed=sent, count=500, **facts)["sent"]))
        assert sent >= 500
        here.check()
        world.check()
        here.check_descriptors(before)


def test_garbage_at_every_socket_of_a_gateway_disturbs_no_vm(beside) -> None:
    with beside() as here:
        before = here.descriptors()
        paths = [here.services, here.socket, Path(here.switch.network)]
        paths += [path for path in here.switch.runtime_dir.iterdir() if path.is_socket()]
        with here.world.talk.going_on():
            for path in paths:
                kind = socket.SOCK_SEQPACKET if path.suffix == ".channel" else socket.SOCK_STREAM
                strangers(path, kind, MESSAGES_SENT // len(paths))
        here.check()
        here.world.check_talk_only()
        here.check_descriptors(before)
