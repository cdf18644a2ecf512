"""Workers killed and stopped at any moment, on real processes, while every byte of the traffic is checked."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder.messages import Hello
from tests.helpers.core.mini_switch import frame
from tests.helpers.fake_supervisor import FakeSupervisor
from tests.helpers.guests.conversation import Conversation, numbered
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, StreamVM, build_frame, mac
from tests.helpers.guests.fixtures import running_switch
from tests.helpers.guests.netns import Namespace
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.guests.watching import ask, check, goes_on, kill_worker, live, name_of, port_of, stats_of

StartSwitch = Callable[..., Switch]
KILLS = 3  # of the five that a port may lose in a minute


@pytest.fixture
def moments() -> random.Random:
    """When to kill: other moments in each run, said when the test fails."""
    seed = random.randrange(1 << 32)
    print(f"moments of seed {seed}")
    return random.Random(seed)


def kill_and_see_it_go_on(
    switch: Switch, victim: str, talk: Conversation, moments: random.Random, kills: int = KILLS
) -> None:
    """Kill the victim's worker again and again; its link must never end."""
    assert talk.flows()
    for _ in range(kills):
        epoch = kill_worker(switch, victim, talk, moments.uniform(0.0, 0.05))
        assert goes_on(switch, victim, epoch, talk), talk.closed
    talk.settle()
    assert port_of(switch, victim)["worker"]["restarts"] == kills
    check(talk, switch)


@pytest.mark.parametrize("kind", ["unixpacket", "unixgram", "vhost"])
def test_where_the_kernel_keeps_frames_apart_the_link_outlives_every_worker(
    switch: StartSwitch, moments: random.Random, kind: str
) -> None:
    running = switch(qemu=True, bess=True, vfkit=1, vhost=True)
    one, other = running.connect("unix"), running.connect(kind, "dgram")
    talk = Conversation(one, mac(1), other, mac(2))
    talk.run(0.1)
    victim = next(port["name"] for port in live(running, 2) if port["transport"] != "qemu")
    kill_and_see_it_go_on(running, victim, talk, moments)


def test_so_does_a_tap(namespace: Callable[[str], Namespace], moments: random.Random) -> None:
    space = namespace("left")
    with running_switch() as switch:
        tap = f"{space.interface},netns={space.netns}"
        switch.start(*switch.arguments(qemu=True, taps=[tap]))
        one = switch.connect("unix")
        ports = live(switch, 2)
        with space.packet_vm() as other:
            talk = Conversation(one, mac(1), other, mac(2))
            victim = next(port["name"] for port in ports if port["transport"] == "tap")
            kill_and_see_it_go_on(switch, victim, talk, moments)


@pytest.mark.parametrize("kind", ["unix", "tcp", "connect"])
def test_a_stream_goes_on_between_two_frames_or_ends_and_is_never_read_at_the_wrong_place(
    switch: StartSwitch, moments: random.Random, kind: str
) -> None:
    running = switch(qemu=True, bess=True, tcp=True, network=True)
    one = running.connect("unixpacket")
    talk = Conversation(one, mac(1), running.connect(kind), mac(2))
    resumed = closed = 0
    for number in range(10):
        if number == 5:
            talk.ends[1].reconnect(running.connect(kind))  # with another budget
        assert talk.flows()
        victim = next(port["name"] for port in live(running, 2) if port["transport"] != "bess")
        if number % 2:
            talk.settle()
        after = 0.0 if number % 2 else moments.uniform(0.001, 0.05)
        if goes_on(running, victim, kill_worker(running, victim, talk, after), talk):
            resumed += 1
        else:
            assert not number % 2, "nothing was on its way"
            assert not talk.ends[0].closed
            closed += 1
            talk.ends[1].reconnect(running.connect(kind))
    assert resumed >= 5
    print(f"{resumed} resumed, {closed} closed")
    talk.settle()
    check(talk, running)


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.parametrize("kind", ["unix", "connect"])
def test_a_full_stream_is_closed_if_its_vm_has_half_of_a_frame_and_goes_on_if_not(
    switch: StartSwitch, kind: str, attempt: int
) -> None:
    """Where lengths have 16 bits, what waits for the VM is with its worker: then it is closed in any case."""
    running = switch(qemu=True, bess=True, network=True)
    one, other = running.connect("unixpacket"), running.connect(kind)
    assert isinstance(other, StreamVM)
    talk = Conversation(one, mac(1), other, mac(2))
    talk.begin()
    sender, receiver = talk.ends
    name = name_of(running, mac(2))
    while (
        stats_of(running, port_of(running, name)["transport"])["egress_queue_bytes"] < 100_000
    ):  # the VM does not read, its socket is full
        for _ in range(100 + attempt):
            sender.sent += 1
            one.send(numbered(mac(2), mac(1), sender.sent))
    os.kill(port_of(running, name)["worker"]["pid"], signal.SIGSTOP)
    receiver.receive()
    cut = other.in_frame
    epoch = kill_worker(running, name, talk)
    assert goes_on(running, name, epoch, talk) == (not cut and kind == "unix")
    check(talk, running)


def test_frames_that_a_dead_worker_has_not_taken_are_counted(switch: StartSwitch) -> None:
    """Frames wait in the ring of a stopped worker; when it dies they are lost and counted."""
    running = switch(qemu=True, bess=True)
    one, other = running.connect("unix"), running.connect("unixpacket")
    talk = Conversation(one, mac(1), other, mac(2))
    talk.begin()
    victim = next(port for port in live(running, 2) if port["transport"] == "bess")
    os.kill(victim["worker"]["pid"], signal.SIGSTOP)
    sender, before = talk.ends[0], talk.ends[0].sent
    while sender.sent < before + 50:
        sender.send()
    sender.flush()
    waiting = sender.sent - before
    wait_for(lambda: stats_of(running, "qemu")["rx"]["frames"] == sender.sent, "the frames to be read")
    os.kill(victim["worker"]["pid"], signal.SIGKILL)
    wait_for(lambda: stats_of(running, "bess")["drops"]["egress_full"] == waiting, "the loss to be counted")
    assert talk.flows()
    talk.settle()
    assert talk.lost == waiting
    check(talk, running)


def test_a_stopped_worker_is_reported_disturbs_no_other_and_catches_up(switch: StartSwitch) -> None:
    running = switch(qemu=True, bess=True, vfkit=1)
    vms: list[FakeVM] = [running.connect(kind) for kind in ("unix", "unixpacket", "unix", "unixpacket")]
    others = Conversation(vms[0], mac(1), vms[1], mac(2))
    third = Conversation(vms[2], mac(3), vms[3], mac(4))
    others.begin()
    third.begin()
    name = name_of(running, mac(4))
    pid = port_of(running, name)["worker"]["pid"]
    for end in others.ends:
        end.mark()
    with others.going_on():
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: port_of(running, name)["state"] == "silent", "its silence to be reported")
        late = running.connect("unixgram", "late")
        late.send(build_frame(BROADCAST, mac(5)))
        wait_for(lambda: len(ask(running)["ports"]) == 5, "a VM to attach meanwhile")
        sent = sum(end.received for end in others.ends)
        wait_for(lambda: sum(end.received for end in others.ends) > sent + 1000, "the others to go on")
    assert others.lost == 0
    assert running.log().count("nothing is heard of its worker") == 1
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: port_of(running, name)["state"] == "live", "it to be heard again")
    assert third.flows()
    newcomers = Conversation(vms[3], mac(4), late, mac(5))
    assert newcomers.flows(), "it knows the VMs that came while it was stopped"
    assert port_of(running, name)["worker"]["pid"] == pid
    assert port_of(running, name)["worker"]["restarts"] == 0
    assert "heard again after" in running.log()
    for talk in (others, third, newcomers):
        check(talk, running)


def test_a_worker_whose_supervisor_never_comes_back_ends(tmp_path: Path) -> None:
    program = (
        "import functools, sys; from workers import template; "
        "template.Worker = functools.partial(template.Worker, orphan_s=1.0); "
        "sys.exit(template.run(sys.argv[1]))"
    )
    fake = FakeSupervisor(str(tmp_path), ("-c", program))
    try:
        vm = fake.assign("qemu")
        fake.until(Hello)
        fake.vanish()
        vm.send(frame(BROADCAST, mac(1)))
        assert fake.worker.wait(PATIENCE) == 0
    finally:
        fake.close()
