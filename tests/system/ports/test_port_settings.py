"""What an operator sets for a port, seen from outside: a real switch, and fake VMs that break the rules."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers.core.model_segments import Flow
from tests.helpers.guests.fake_vm import BROADCAST, FakeVM, build_frame, connect, mac
from tests.helpers.guests.ports import attach, gets_through, meet, port, settings
from tests.helpers.guests.switch import Switch
from tests.helpers.guests.waiting import wait_for

StartSwitch = Callable[..., Switch]
MULTICAST = b"\x01\x00\x5e\x00\x00\x01"


def test_a_source_that_is_not_pinned_is_dropped_at_ingress(switch: StartSwitch) -> None:
    running = switch()
    other = attach(running, "other")
    vm = attach(running, "web", "--pin", mac(1).hex(":"))
    running.wait_live(2)
    good, spoofed = build_frame(BROADCAST, mac(1), 70), build_frame(BROADCAST, mac(2), 80)
    wait_for(lambda: gets_through(vm, other, good), "the own address to pass")
    before = port(running, "web")["drops"]["spoofed"]
    vm.send(*[spoofed] * 5, good)
    seen: list[bytes] = []

    def all_there() -> bool:
        seen.extend(other.drain())
        return good in seen

    wait_for(all_there, "what came after")
    assert spoofed not in seen
    assert port(running, "web")["drops"]["spoofed"] == before + 5
    # An address that is pinned elsewhere may not be used, though this port pins nothing itself.
    other.send(build_frame(BROADCAST, mac(1), 90))
    wait_for(lambda: port(running, "other")["drops"]["spoofed"] == 1, "the thief to be refused")


def test_a_storm_is_limited_and_other_frames_pass(switch: StartSwitch) -> None:
    running = switch()
    vm = attach(running, "web", "--limit-broadcast", "100", "--limit-multicast", "none")
    other = attach(running, "other")
    running.wait_live(2)
    meet({1: vm, 2: other})
    before = port(running, "web")
    started = time.monotonic()
    unicast = [build_frame(mac(2), mac(1), 100, seed=seed) for seed in range(50)]
    received: list[bytes] = []
    for each in unicast:
        vm.send(*[build_frame(BROADCAST, mac(1), 70)] * 40, each, build_frame(MULTICAST, mac(1)))
        received += other.drain()

    def all_there() -> bool:
        received.extend(other.drain())
        return sum(frame[:6] in (MULTICAST, mac(2)) for frame in received) == 2 * len(unicast)

    wait_for(all_there, "all but broadcasts, which nothing limits; unicast may wait for its ring")
    elapsed = time.monotonic() - started
    assert [frame for frame in received if frame[:6] == mac(2)] == unicast
    after = port(running, "web")
    storm = after["drops"]["storm"] - before["drops"]["storm"]
    passed = after["flooded"] - before["flooded"] - len(unicast)
    assert storm + passed == 40 * len(unicast)
    assert passed <= 100 * (elapsed + 0.2) + 1
    assert sum(frame[:6] == BROADCAST and len(frame) == 70 for frame in received) == passed


class Stream:
    """One VM sends to another as fast as the switch reads."""

    def __init__(self, source: FakeVM, target: FakeVM) -> None:
        self.source, self.target = source, target
        self.frame = build_frame(mac(2), mac(1), 1514)
        self.sent = self.received = 0

    def receive(self) -> None:
        self.received += self.target.drain().count(self.frame)

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.source.sock.send(self.frame)
                self.sent += 1
            except BlockingIOError:
                self.receive()
                time.sleep(0.001)


def test_a_vm_that_is_too_fast_is_read_later_and_loses_nothing(switch: StartSwitch) -> None:
    running = switch()
    vm, other = attach(running, "web", "--limit-bandwidth", "1Gbit/s"), attach(running, "other")
    running.wait_live(2)
    meet({1: vm, 2: other})
    stream = Stream(vm, other)
    before = port(running, "web")["rx"]["frames"]

    def rate() -> float:
        """Bytes a second that are read in about a second."""
        first = running.json("stats")
        stream.run(1.0)
        second = running.json("stats")
        passed = [answer["ports"][0]["rx"]["bytes"] for answer in (first, second)]
        return float((passed[1] - passed[0]) / (second["uptime_s"] - first["uptime_s"]))

    for limit, wanted in (("32Mbit/s", 4e6), ("8Mbit/s", 1e6)):
        running.command("set", "web", f"limit-bandwidth={limit}")
        stream.run(0.5)  # what was read before the change, and the burst
        rates: list[float] = []
        # A busy machine may send less for a while, and never more.
        wait_for(lambda wanted=wanted, rates=rates: rates.append(rate()) or rates[-1] > 0.5 * wanted, limit)  # type: ignore[misc,func-returns-value]
        assert max(rates) < 1.8 * wanted
    running.command("set", "web", "limit-bandwidth=none")
    wait_for(lambda: port(running, "web")["rx"]["frames"] == before + stream.sent, "every frame to be read")
    assert not any(port(running, "web")["drops"].values())

    def accounted_for() -> bool:
        stream.receive()  # which the test did not do while a command ran
        return bool(stream.received + port(running, "other")["drops"]["egress_full"] == stream.sent)

    wait_for(accounted_for, "every frame to arrive or to be counted")


def test_a_vm_has_no_more_addresses_than_it_may(switch: StartSwitch) -> None:
    running = switch()
    vm, other = attach(running, "web", "--limit-macs", "3"), attach(running, "other")
    running.wait_live(2)
    meet({1: vm, 9: other})
    frames = [build_frame(BROADCAST, mac(number), 70) for number in (1, 2, 3, 4, 5)]
    vm.send(*frames, frames[0])
    received: list[bytes] = []

    def last() -> bool:
        received.extend(frame for frame in other.drain() if len(frame) == 70)
        return received.count(frames[0]) == 2

    wait_for(last, "the first address to pass again")
    assert received == [*frames[:3], frames[0]]
    assert port(running, "web")["drops"]["mac_limit"] == 2
    assert len(next(each for each in running.json("status")["ports"] if each["name"] == "web")["macs"]) == 3


def test_settings_change_while_running_and_a_refused_change_changes_nothing(switch: StartSwitch) -> None:
    running = switch()
    vm, other = attach(running, "web", "--limit-macs", "9"), attach(running, "other")
    running.wait_live(2)
    taken = mac(7).hex(":")
    running.command("attach", "--listen-vfkit", f"unixgram://{running.vfkit()}", "--pin", taken)
    done = running.command("set", "web", "limit-broadcast=1.5k", "flood-unknown=no")
    assert done.stdout == "set web limit-broadcast=1500/s flood-unknown=false\n"
    before = settings(running, "web")
    assert (before["broadcast_per_s"], before["flood_unknown"], before["max_macs"]) == (1500, False, 9)
    assert (
        next(each for each in running.json("status")["ports"] if each["name"] == "web")["settings"] == before
    )
    table = running.command("show", "web").stdout
    assert "limit-broadcast  1500/s" in table
    running.command("set", "other", f"pin={mac(2).hex(':')}")
    for wrong, why in (
        (f"pin={taken}", f"{taken} is already pinned to unixgram://{running.vfkit()}"),
        (f"pin={mac(2).hex(':')}", "is already pinned to port 2 (other)"),
        ("reach=other", "reach: it has no effect unless isolated=true"),
    ):
        refused = running.command("set", "web", "limit-broadcast=7", wrong, check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: ")
        assert why in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert settings(running, "web") == before
    missing = running.command("set", "wbe", "limit-broadcast=7", check=False)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    again = running.command(
        "attach", "--listen-qemu", f"unix://{running.qemu}", "--pin", mac(2).hex(":"), check=False
    )
    assert (again.returncode, again.stdout) == (1, "")
    assert "is already pinned to port 2 (other)" in again.stderr
    assert not running.qemu.exists()
    # The pin is in force at its own port.
    other.send(build_frame(BROADCAST, mac(8)))
    wait_for(lambda: port(running, "other")["drops"]["spoofed"] == 1, "the pin to be enforced")
    vm.close()


def test_settings_outlive_the_worker_and_the_supervisor(switch: StartSwitch) -> None:
    running = switch()
    vm, other = attach(running, "web"), attach(running, "other")
    running.wait_live(2)
    meet({1: vm, 2: other})
    running.command("set", "web", "limit-macs=1", "limit-multicast=77")
    in_force = settings(running, "web")

    def refused() -> bool:
        vm.send(build_frame(BROADCAST, mac(5)))
        return bool(port(running, "web")["drops"]["mac_limit"])

    wait_for(refused, "the limit to be enforced")
    os.kill(port(running, "web")["worker"]["pid"], signal.SIGKILL)
    wait_for(lambda: port(running, "web")["worker"]["restarts"] == 1, "the next worker")
    running.wait_live(2)
    before = port(running, "web")["drops"]["mac_limit"]
    vm.send(build_frame(BROADCAST, mac(6)))
    wait_for(lambda: port(running, "web")["drops"]["mac_limit"] > before, "the next worker to enforce it")
    assert running.process is not None
    running.process.kill()
    running.process.wait()
    sockets = [f"unixpacket://{running.directory / name}.sock" for name in ("web", "other")]
    running.start(*(word for url in sockets for word in ("--listen-bess", url)))
    running.wait_live(2)
    assert settings(running, "web") == in_force
    assert in_force["multicast_per_s"] == 77


def test_a_configuration_sets_ports_and_is_refused_by_file_and_line(
    switch: StartSwitch, tmp_path: Path
) -> None:
    file = tmp_path / "lab.toml"
    running = switch()
    table = f'[[listen-bess]]\nurl = "unixpacket://{running.bess}"\nname = "web"\n'
    bad = table + f'limit-bandwidth = "10Mb/s"\npin = ["{mac(1).hex(":")}"]\n'
    running.stop()
    file.write_text(bad)
    done = running.command("run", "--config", str(file), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {file}, line 4: limit-bandwidth: '10Mb/s' is no bandwidth; ")
    assert done.stderr.count("\n") == 1
    file.write_text(bad.replace("10Mb/s", "10Mbit/s"))
    running.start("--config", str(file))
    vm = connect(f"unixpacket://{running.bess}")
    running.wait_live(1)
    in_force = settings(running, "web")
    assert (in_force["bytes_per_s"], in_force["pinned"]) == (1_250_000, [mac(1).hex(":")])
    vm.close()


def test_unfinished_frames_are_finished_from_the_setting_on(switch: StartSwitch) -> None:
    running = switch()
    vm, other = attach(running, "web", "--offload", "tso"), attach(running, "other")
    running.wait_live(2)
    meet({1: vm, 2: other})
    flow = Flow(b"u" * 5000, 1448, options=bytes(12), destination=mac(2), source=mac(1))
    bare = flow.unfinished()[10:]

    def arrives() -> list[bytes]:
        last = build_frame(mac(2), mac(1), 100)
        vm.send(bare, last)
        got: list[bytes] = []
        other.receive_matching(lambda frame: frame == last or got.append(frame))  # type: ignore[func-returns-value]
        return [frame for frame in got if frame[12:14] == b"\x08\0"]

    assert arrives() == flow.finished()
    running.command("set", "web", "offload=none")
    assert arrives() == [bare]
    running.command("set", "web", "offload=tso", "mtu=1000")
    assert arrives() == flow._replace(mss=1000 - 52).finished()
    running.command("set", "other", "receive=large")
    assert arrives() == flow._replace(mss=5000).finished()
    shown = settings(running, "web")
    assert (shown["offload"], shown["mtu"], shown["receive"]) == ("tso", 1000, "mtu")
