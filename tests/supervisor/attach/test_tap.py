"""TAP devices as ports: made, also in a named namespace, and refused in one line where that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from forwarder.errors import LocalError
from forwarder.names import Policy, PortId, PortRecord
from supervisor.attach.addresses import Attachment, PortOptions, parse_listen, parse_tap
from supervisor.attach.tap import TapDevice
from tests.helpers.fakes import FakeOwner
from tests.helpers.guests.netns import Namespace

NewNamespace = Callable[[str], Namespace]


@pytest.fixture
def owner() -> Iterator[FakeOwner]:
    made = FakeOwner()
    yield made
    made.close()


def test_a_device_is_made_in_a_namespace_and_goes_with_its_port(namespace: NewNamespace) -> None:
    room, owner = namespace("room"), FakeOwner()
    address = parse_tap(f"bh0,netns={room.netns}")
    device = TapDevice(address, PortOptions(), owner)
    ((made, descriptor),) = owner.arrived
    assert device.port == made.id
    assert made.name == f"bh0@{room.netns}"
    assert not os.get_blocking(descriptor)
    assert "bh0" in room.run("ip -o link show up")
    with pytest.raises(LocalError, match="another process has that device"):
        TapDevice(address, PortOptions(), owner)
    owner.close()
    assert "bh0" not in room.run("ip -o link")


def test_a_namespace_can_be_a_path_and_a_port_can_be_named(namespace: NewNamespace, owner: FakeOwner) -> None:
    room = namespace("room")
    TapDevice(parse_tap(f"bh0,netns={room.path}"), PortOptions("web"), owner)
    assert owner.arrived[0][0].name == "web"


def test_a_refused_device_is_not_left_behind(namespace: NewNamespace, owner: FakeOwner) -> None:
    room = namespace("room")
    owner.refuse = "the switch is stopping"
    with pytest.raises(LocalError, match="stopping"):
        TapDevice(parse_tap(f"bh0,netns={room.netns}"), PortOptions(), owner)
    assert "bh0" not in room.run("ip -o link")


def test_an_interface_that_is_no_tap_is_refused(namespace: NewNamespace, owner: FakeOwner) -> None:
    room = namespace("room")
    with pytest.raises(LocalError, match="cannot open TAP lo"):
        TapDevice(parse_tap(f"lo,netns={room.netns}"), PortOptions(), owner)


def test_a_missing_namespace_is_named(owner: FakeOwner) -> None:
    with pytest.raises(LocalError, match="network namespace /run/netns/absent: no such file"):
        TapDevice(parse_tap("bh0,netns=absent"), PortOptions(), owner)


UNPRIVILEGED = """
import os
from supervisor.attach.addresses import PortOptions, parse_tap
from supervisor.attach.tap import TapDevice
from forwarder.errors import LocalError
os.setgid(65534)
os.setuid(65534)
try:
    TapDevice(parse_tap("bh0"), PortOptions(), None)
except LocalError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to do without it")
def test_a_missing_privilege_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("cannot open TAP bh0: ")
    assert done.stdout.endswith(
        ("run as root, or in a user namespace of your own\n", "run as root, or get access to it\n")
    )


def test_a_port_that_was_taken_over_is_known_by_its_device() -> None:
    device = TapDevice.adopted(PortRecord(1, 5, 3, "web-2", "tap", Policy()), parse_tap("bh0,netns=blue"))
    assert (device.url, device.port, device.unclaimed) == ("tap://bh0,netns=blue", PortId(1, 3), True)
    assert device.is_of(Attachment(parse_tap("bh0,netns=/run/netns/blue"), PortOptions("web")))
    assert not device.is_of(Attachment(parse_tap("bh0"), PortOptions("web-2")))
    assert not device.is_of(Attachment(parse_listen("qemu", "unix:///bh0")))


@pytest.mark.parametrize("name", ["bh0", "uplink", "bh0@blue"])
def test_a_port_whose_device_is_not_known_is_known_by_its_name(name: str) -> None:
    device = TapDevice.adopted(PortRecord(1, 5, 3, name, "tap", Policy()), None)
    assert (device.url, device.port, device.unclaimed) == (f"tap://{name}", PortId(1, 3), True)
    attachments = {
        "bh0": Attachment(parse_tap("bh0")),
        "uplink": Attachment(parse_tap("bh0"), PortOptions("uplink")),
        "bh0@blue": Attachment(parse_tap("bh0,netns=blue")),
        "": Attachment(parse_listen("qemu", f"unix:///{name}")),
    }
    assert [each for each, attachment in attachments.items() if device.is_of(attachment)] == [name]
