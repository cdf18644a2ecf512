"""The sampler on real blocks and real processes."""

import os
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from ipaddress import IPv4Address

import psutil
import pytest

from forwarder import _core
from forwarder.names import Identity, Policy, PortId, PortRecord
from supervisor.base.proc import start_time
from supervisor.console.history import History
from supervisor.console.process_sampler import BASELINE_S, ProcessSampler
from supervisor.console.readings import Switch
from supervisor.console.sampler import Sampler
from supervisor.ports.view import PortView
from tests.helpers.core.claims import arp, tagged
from tests.helpers.core.mini_switch import BROADCAST, MiniSwitch, frame, mac


def identity_of(pid):
    return Identity(pid, start_time(pid))


@contextmanager
def child(program="import sys; sys.stdin.read()"):
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    try:
        yield identity_of(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def test_a_process_is_measured():
    own = identity_of(os.getpid())
    usage = ProcessSampler().sample([own], time.monotonic())[own]
    assert usage.rss_bytes > 1 << 20
    assert usage.cpu_seconds == pytest.approx(time.process_time(), abs=0.5)
    assert usage.threads >= 1
    assert usage.fds > 2
    assert usage.ctx_switches > 0
    assert usage.pss_bytes is None or 0 < usage.pss_bytes <= usage.rss_bytes


def test_the_first_share_of_cpu_is_since_the_process_began():
    started = time.monotonic()
    with child("import sys, time\nwhile time.process_time() < 0.2: pass\nsys.stdin.read()") as identity:
        used = 0.0
        while used < 0.15:  # counted in ticks, so the last of the 0.2 may be missing
            assert time.monotonic() < started + 30
            now = time.monotonic()
            usage = ProcessSampler().sample([identity], now)[identity]
            used = usage.cpu_seconds
    assert 0.9 * 100 * used / (now - started) <= usage.cpu_percent <= 115


def test_later_shares_are_since_a_sample_that_is_old_enough():
    own = identity_of(os.getpid())
    sampler = ProcessSampler()
    now = time.monotonic() + 1000
    sampler.sample([own], now)
    used = sampler.sample([own], now + BASELINE_S / 2)[own].cpu_seconds
    assert sampler.sample([own], now + 1)[own].cpu_percent <= 100 * (used + 1) / 1
    before = sampler.sample([own], now + 2)[own]
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    after = sampler.sample([own], now + 3)[own]
    assert after.cpu_percent == pytest.approx(100 * (after.cpu_seconds - before.cpu_seconds), abs=0.1)
    assert after.cpu_percent >= 9


def test_a_process_that_ended_is_left_out_and_forgotten():
    sampler = ProcessSampler()
    with child() as identity:
        assert identity in sampler.sample([identity], time.monotonic())
    assert sampler.sample([identity], time.monotonic()) == {}
    assert sampler._watched == {}


def test_a_process_that_is_not_asked_about_any_more_is_forgotten():
    sampler = ProcessSampler()
    with child() as identity:
        sampler.sample([identity], time.monotonic())
        sampler.sample([], time.monotonic())
        assert sampler._watched == {}


def test_another_process_with_the_same_pid_is_not_sampled():
    own = identity_of(os.getpid())
    assert ProcessSampler().sample([own._replace(start=own.start - 1)], time.monotonic()) == {}


def test_an_unknown_proportional_share_is_null(monkeypatch):
    own = identity_of(os.getpid())

    def refused(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refused)
    assert ProcessSampler().sample([own], time.monotonic())[own].pss_bytes is None


@pytest.fixture
def page():
    fd = _core.stats_page_create()
    yield fd
    os.close(fd)


def view_of(identity):
    return PortView(PortRecord(1, 1, 1, "qemu-1", "qemu", Policy()), "live", False, False, 0.0, identity, 0)


@pytest.fixture
def history(tmp_path):
    made = History(str(tmp_path / "history"), inherit=False)
    yield made
    made.end(keep=False)


def test_a_port_has_readings_from_its_arrival_to_its_departure(page, history):
    own = identity_of(os.getpid())
    switch = Switch(1, 1, 0.0, own)
    sampler = Sampler(history)
    sampler.arrive(1, 1, page)
    answer = sampler.stats(switch, [view_of(own)], time.monotonic(), sources=True)
    assert answer["ports"][0]["rx"]["frames"] == 0
    assert answer["supervisor"]["rss_bytes"] == answer["ports"][0]["worker"]["rss_bytes"]
    assert sampler.status(switch, [view_of(own)], {}, 1.0)["ports"][0]["macs"] == []
    assert sampler.macs(switch, [view_of(own)], 1.0)["macs"] == []
    sampler.depart(1)
    sampler.depart(1)
    assert sampler.stats(switch, [], time.monotonic())["departed"]["ports"] == 1


def test_the_block_stays_readable_after_its_descriptor_is_closed(history):
    fd = _core.stats_page_create()
    sampler = Sampler(history)
    sampler.arrive(1, 1, fd)
    os.close(fd)
    answer = sampler.stats(Switch(1, 1, 0.0, identity_of(os.getpid())), [view_of(None)], time.monotonic())
    assert answer["ports"][0]["tx"] == {"frames": 0, "bytes": 0}


def test_live_follows_each_page_and_no_page_of_before(history):
    """Readings of pages that counted nothing are kept from one question to the next."""
    sampler, head = Sampler(history), Switch(1, 1, 0.0, identity_of(os.getpid()))

    def received():
        ((_, _, _, rx_bytes, *_),) = sampler.live(head, [view_of(None)], time.monotonic())["ports"]
        return rx_bytes

    with closing(MiniSwitch()) as switch:
        vm = switch.add(1, "stream")
        sampler.arrive(1, 1, switch.stats[1])
        seen = []
        for _ in range(3):
            seen += [received(), received()]
            vm.send(frame(BROADCAST, mac(1), size=100))
            switch.settle()
        assert seen == [0, 0, 100, 100, 200, 200]
        assert received() == 300
        sampler.depart(1)
        page = _core.stats_page_create()
        sampler.arrive(1, 2, page)
        os.close(page)
        assert received() == 0


def test_only_requested_ports_are_weighed():
    own, sampler = Identity(os.getpid(), start_time(os.getpid())), ProcessSampler()
    now = time.monotonic()
    assert sampler.sample([own], now, ())[own].pss_bytes is None
    assert sampler.sample([own], now, ())[own].rss_bytes > 0
    assert sampler.sample([own], now, (own,))[own].pss_bytes == pytest.approx(
        sampler.sample([own], now)[own].pss_bytes, rel=0.5
    )


def test_the_addresses_with_which_a_vm_asks_are_in_use(history):
    sampler = Sampler(history)
    with MiniSwitch() as switch:
        for number in (1, 2):
            switch.add(number, "stream")
            sampler.arrive(number, switch.attachments[number], switch.stats[number])
        switch.vms[1].send(
            arp(mac(1), "192.168.127.50", "192.168.127.1"),
            arp(mac(1), "192.168.127.60", "192.168.127.60"),
            arp(mac(1), "0.0.0.0", "192.168.127.70"),
            tagged(arp(mac(1), "192.168.127.80", "192.168.127.1"), b"\x81\x00\x00\x05"),
        )
        switch.settle()
        sampler.tick(1.0)
        one = PortId(1, switch.attachments[1])
        used = tuple(int(IPv4Address(f"192.168.127.{n}")) for n in (50, 60))
        assert dict(sampler.in_use()) == {one: used, PortId(2, switch.attachments[2]): ()}
        assert sampler.in_use() == []
        switch.vms[2].send(frame(mac(1), mac(2)))
        switch.settle()
        sampler.tick(2.0)
        assert sampler.in_use() == []  # no VM has asked since
