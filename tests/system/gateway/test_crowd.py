"""Many VMs that ask a gateway for a lease at the same moment, right after its start, as an ordinary user."""

from __future__ import annotations

import contextlib
import re
import time
from functools import partial

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.crowd import Crowd
from tests.helpers.guests.fixtures import short_directory
from tests.helpers.guests.ordinary import NOBODY, as_user
from tests.helpers.guests.switch import Switch

pytestmark = pytest.mark.guest

UDHCPC = ("busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-s", "/bin/true")
"""As it comes, it asks three times, three seconds apart, and again 20 seconds later, until it has a lease."""

DISCOVER, ACK = 1, 5
KIND = 282
"""Where the kind of a DHCP message is in a frame: busybox and the gateway put it first."""


class Times:
    """When each guest has asked first, and was answered."""

    def __init__(self) -> None:
        self.asked: dict[int, float] = {}
        self.answered: dict[int, float] = {}

    def look(self, number: int, frame: bytes, sent: bool) -> None:
        """Note a message of DHCP."""
        if frame[12:14] != b"\x08\x00" or frame[23] != 17 or len(frame) < KIND + 3:
            return
        kind = frame[KIND + 2]
        if sent and kind == DISCOVER:
            self.asked.setdefault(number, time.monotonic())
        elif not sent and kind == ACK:
            self.answered.setdefault(number, time.monotonic())

    def longest(self) -> float:
        """Return the longest time from a guest's first question to its lease."""
        return max(self.answered[number] - asked for number, asked in self.asked.items())


@pytest.mark.parametrize(
    ("count", "subnet"), [(50, "192.168.127.0/24"), (250, "10.77.0.0/16")], ids=["50", "250"]
)
def test_all_that_ask_at_once_have_a_lease_of_their_own(count: int, subnet: str) -> None:
    requirements.require((*requirements.NAMESPACE, *requirements.GATEWAY, "user namespaces", "busybox"))
    times = Times()
    with short_directory() as directory, contextlib.ExitStack() as stack:
        directory.chmod(0o777)
        switch = Switch(directory, wrap=partial(as_user, NOBODY))
        stack.callback(switch.kill)
        switch.start("--gateway", "--subnet", subnet, *switch.arguments(qemu=True))
        crowd = stack.enter_context(contextlib.closing(Crowd(count, switch.qemu, times.look)))
        crowd.attach()
        switch.wait_live(count + 1, timeout=120)
        done = crowd.run(*UDHCPC)
        said = [re.search(r"lease of (\S+) obtained", each.stdout + each.stderr) for each in done]
        leases = [found[1] for found in said if found]
        assert len(leases) == len(set(leases)) == count
        print(f"{count} leases, the slowest {times.longest():.2f} s after its first question")
        rows = switch.json("leases")["leases"]
        assert {row["address"] for row in rows} == set(leases)
        assert len({row["port"] for row in rows}) == count
        refused = switch.json("stats")["gateway"]["refused"]
        assert {word: refused[word] for word in ("over_rate", "no_port", "dhcp_no_address")} == {
            "over_rate": 0,
            "no_port": 0,
            "dhcp_no_address": 0,
        }
        switch.stop()
