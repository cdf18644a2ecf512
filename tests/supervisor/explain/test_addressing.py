"""Why A cannot reach B: addresses, VLANs and ports that do not fit, VMs that read or send no more."""

from __future__ import annotations

import pytest

from tests.helpers.explaining import ADDRESS, NOW, World


@pytest.fixture
def world() -> World:
    return World()


def strangers(world: World) -> None:
    """Let web and db have no lease, and not have talked."""
    world.gateway_state = world.policy = None
    world.leases, world.sent = [], []


def test_an_address_that_two_vms_use_is_named(world: World) -> None:
    strangers(world)
    world.asks("web", "10.99.0.2", sender="10.99.0.1", times=1)
    for name in ("db", "other"):
        world.asks(name, "10.99.0.1", sender="10.99.0.2", times=1)
    assert "10.99.0.2 is a duplicate IP address: VMs behind db and other use it" in world.stopped()
    world.questions[-1]["age_s"] = 61.0  # it has given the address up
    assert world.explain()["findings"] == []


def test_one_address_in_two_vlans_is_no_duplicate(world: World) -> None:
    strangers(world)
    for vlan, name in enumerate(("web", "db")):
        world.asks(name, "10.99.0.9", sender="10.99.0.1", vlan=vlan, times=1)
    assert "duplicate" not in world.stopped()


@pytest.mark.parametrize(("first", "then"), [("web", "db"), ("db", "web")])
def test_no_common_family_of_addresses(world: World, first: str, then: str) -> None:
    strangers(world)
    world.asks(first, "fd00::2", sender="fd00::1", times=1)
    world.asks(then, "10.99.0.1", sender="10.99.0.2", times=1)
    said = f"{first} uses IPv6 only (fd00::1), and {then} IPv4 only (10.99.0.2): no address fits"
    assert said in world.stopped()
    world.asks(then, "fd00::1", sender="fd00::2", times=1)
    assert world.explain()["talk"]


def test_two_prefixes_are_different_subnets_and_a_common_one_is_enough(world: World) -> None:
    strangers(world)
    world.asks("web", "fd00::2", sender="fd00::1", times=1)
    world.asks("db", "fd01::1", sender="fd01::2", times=1)
    assert "web uses fd00::1 and db fd01::2, which are in different subnets" in world.stopped()
    for name, last in (("web", 1), ("db", 2)):
        world.asks(name, "10.99.0.9", sender=f"10.99.0.{last}", times=1)
    assert "which are in different subnets" in world.doubted()


def test_guests_in_different_vlans(world: World) -> None:
    strangers(world)
    world.asks("web", "10.99.0.2", sender="10.99.0.1", vlan=10, times=1)
    world.asks("db", "10.99.0.1", sender="10.99.0.2", times=1)
    said = "web sends in VLAN 10 and db without a VLAN tag: their guests' VLANs differ"
    assert said in world.stopped()
    world.asks("db", "10.99.0.1", sender="10.99.0.2", vlan=10, times=1)
    assert world.explain()["talk"]


def test_a_netmask_that_is_too_wide(world: World) -> None:
    world.asks("web", "203.0.113.9", sender=ADDRESS["web"])
    said = "which is outside of 192.168.127.0/24: its netmask is too wide"
    assert said in world.stopped("web", "203.0.113.9")


@pytest.mark.parametrize(
    ("way", "words"), [("refused", "no program listens there in the guest"), ("timed_out", "did not answer")]
)
def test_a_forward_to_a_port_where_nothing_listens(world: World, way: str, words: str) -> None:
    assert world.policy is not None
    world.policy["refusals"] = [{"address": ADDRESS["web"], "port": 80, "way": way, "age_s": 3.0}]
    assert f"port 80 of {ADDRESS['web']}" in world.stopped("host", f"{ADDRESS['web']}:80")
    assert words in world.doubted("web", "host")
    assert words in world.doubted("host", f"{ADDRESS['web']}:81")
    assert world.explain("host", "db")["findings"] == []


@pytest.mark.parametrize("near", ["tcp:127.0.0.1:8080", "udp:[::1]:53", "unix:/run/a:b.sock"])
def test_the_host_reaches_a_vm_by_a_forward_alone(world: World, near: str) -> None:
    world.forwards = [f"{near}:{ADDRESS['db']}:80"]
    said = "no forward leads to web, and nothing else does; `supervisor forward add` makes one"
    for outside in ("host", "203.0.113.9"):
        assert world.doubted(outside, "web").endswith(said)
        assert world.explain(outside, "db")["findings"] == []
        assert world.explain("web", outside)["findings"] == []
    assert "no forward leads to port 22 of db" in world.doubted("host", f"{ADDRESS['db']}:22")
    assert world.explain("host", f"{ADDRESS['db']}:80")["findings"] == []
    world.asks("web", "fd00::1", sender="fd00::2", times=1)
    world.forwards = [f"{near}:[fd00::2]:80"]
    assert world.explain("host", "web")["findings"] == []


def test_a_paused_vm(world: World) -> None:
    world.unread[2] = 768
    assert world.explain()["findings"] == []  # it has sent something
    world.lately["db"] = {"rx": {"frames": 0, "bytes": 0}, "tx": {"frames": 4, "bytes": 400}}
    said = "the VM of db has read and sent nothing for 5 s, and frames wait in its socket: it is paused"
    assert said in world.stopped()
    world.lately["db"]["tx"]["bytes"] = 769  # it has read some of that
    assert world.explain()["findings"] == []


def test_what_a_vm_reads_of_its_own_memory_is_not_seen(world: World) -> None:
    world.sent = [row for row in world.sent if (row["source"], row["target"]) != (2, 1)]
    assert "none has come back: a filter in the guest of db" in world.stopped()
    world.ports["db"]["transport"] = "vhost"
    assert (
        "none has come back: its VM is paused (which vhost-user does not show), a filter" in world.stopped()
    )


def test_a_vm_that_sends_as_much_as_its_limit(world: World) -> None:
    world.ports["web"]["settings"]["bytes_per_s"] = 12_500_000
    world.lately["web"] = {"rx": {"frames": 9, "bytes": 5 * 12_000_000}}
    said = "web sends 96 Mbit/s of its limit-bandwidth of 100 Mbit/s, so its VM has to wait"
    assert said in world.doubted()
    world.lately["web"]["rx"]["bytes"] = 5 * 9_000_000
    assert world.explain()["findings"] == []


def test_resolvers_that_do_not_answer(world: World) -> None:
    world.events.append({"event": "resolver", "state": "silent", "time": NOW - 7})
    assert "no resolver of this host answered VMs' questions for names 7 s ago" in world.doubted(
        "web", "1.1.1.1"
    )
    assert world.explain()["findings"] == []
    world.events.append({"event": "resolver", "state": "live", "time": NOW - 1})
    assert world.explain("web", "1.1.1.1")["findings"] == []


def test_a_name_outside_is_the_address_that_this_host_knows(world: World) -> None:
    world.names = {
        "example.org": {"address": "192.0.2.7"},
        "no.example": {"why": "name or service not known"},
    }
    assert world.policy is not None
    world.policy["refused"] = {"192.0.2.7": "denied"}
    assert "the gateway refuses example.org:443 (denied)" in world.stopped("web", "example.org:443")
    assert "this host does not know the name: name or service not known" in world.stopped("web", "no.example")
