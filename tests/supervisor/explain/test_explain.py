"""Why A cannot reach B: each fault from facts, the cause in the sentence."""

from __future__ import annotations

import pytest

from supervisor.explain.explain import CHECKS
from supervisor.explain.naming import far_end
from tests.helpers.explaining import ADDRESS, MAC, NOW, World


@pytest.fixture
def world() -> World:
    return World()


OTHERS = ("db", "2", MAC["db"], ADDRESS["db"])
ENDS = ("web", "1", MAC["web"], MAC["web"].upper(), ADDRESS["web"])


@pytest.mark.parametrize("a", ENDS)
@pytest.mark.parametrize(
    "b", ["db", "2", MAC["db"], ADDRESS["db"], "host", "192.168.127.254", "gateway", "1.1.1.1"]
)
def test_the_answer_is_the_same_for_every_way_to_name_a_port(world: World, a: str, b: str) -> None:
    told = world.explain(a, b)
    assert told["talk"]
    assert told["findings"] == []
    assert told["answer"].startswith("web can reach ")
    assert told["ends"][0]["port"] == 1


@pytest.mark.parametrize("b", ["nobody", "9", "02:00:00:00:00:99", "192.168.127.99"])
def test_b_is_not_attached(world: World, b: str) -> None:
    assert b in world.stopped("web", b)


def test_a_lease_whose_vm_has_left(world: World) -> None:
    world.leases[1]["port"] = None
    assert f"it is leased to {MAC['db']}: its VM is not attached" in world.stopped("web", ADDRESS["db"])
    world.happened("lease", "db", 50.0, state="given", mac=MAC["db"], address=ADDRESS["db"])
    world.happened("gone", "db", 7.0, reason="the VM hung up")
    del world.ports["db"]
    assert "its VM left 7 s ago: the VM hung up" in world.stopped("web", ADDRESS["db"])


def test_both_behind_one_port(world: World) -> None:
    assert "both are behind port 1" in world.stopped("web", "1")


@pytest.mark.parametrize(
    ("state", "word"), [("parked", "parked"), ("silent", "has a silent worker"), ("waiting", "lost")]
)
@pytest.mark.parametrize("name", ["web", "db"])
def test_a_port_that_does_not_forward(world: World, state: str, word: str, name: str) -> None:
    world.ports[name]["state"] = state
    answer = world.stopped()
    assert f"{name} " in answer
    assert word in answer


@pytest.mark.parametrize(("one", "other"), [("web", "db"), ("db", "web")])
def test_isolation_one_way(world: World, one: str, other: str) -> None:
    world.ports[one]["settings"]["isolated"] = True
    assert f"{one} is isolated, and {other} is not in its reach" in world.stopped()
    world.ports[one]["settings"]["reaches"] = [other]
    assert world.explain()["talk"]


def test_isolation_both_ways(world: World) -> None:
    for name in ("web", "db"):
        world.ports[name]["settings"] |= {"isolated": True, "reaches": ["other"]}
    assert "web and db are isolated, and neither has the other in its reach" in world.stopped()


def test_an_isolated_port_needs_the_gateway_in_its_reach_for_the_outside(world: World) -> None:
    world.ports["web"]["settings"]["isolated"] = True
    assert "gateway is not in its reach" in world.stopped("web", "1.1.1.1")
    world.ports["web"]["settings"]["reaches"] = ["gateway"]
    assert world.explain("web", "1.1.1.1")["talk"]


def test_a_mac_at_two_ports_is_named(world: World) -> None:
    world.macs.append(world.mac(MAC["db"], "other", 3))
    answer = world.stopped()
    assert f"{MAC['db']} is a duplicate MAC address: VMs behind db and other use it" in answer
    assert world.explain("web", "gateway")["talk"]
    world.macs[-1]["age_s"] = 1000  # the VM has moved long ago
    assert world.explain()["talk"]


def test_a_mac_that_goes_to_and_fro_is_named(world: World) -> None:
    world.happened("mac-flapping", "other", 500.0, mac=MAC["db"], former_port=2)
    assert f"{MAC['db']} is a duplicate MAC address" in world.stopped()
    world.happened("mac-flapping-end", "db", 3.0, mac=MAC["db"])
    assert world.explain()["talk"]


@pytest.mark.parametrize(
    ("event", "words"),
    [("spoof", "dropped as spoofed"), ("limit", "limit-macs of 1024"), ("storm", "ARP among them (storm)")],
)
@pytest.mark.parametrize("name", ["web", "db"])
def test_refusals_of_a_vm_are_explained(world: World, event: str, words: str, name: str) -> None:
    world.happened(event, name, 500.0)
    answer = world.stopped()
    assert words in answer
    assert f": {name} " in answer
    world.happened(f"{event}-end", name, 100.0)
    assert world.explain()["talk"]
    world.events.append({"event": event, "port": 1, "name": "one-that-had-the-number-before", "time": NOW})
    assert world.explain()["talk"]


@pytest.mark.parametrize("name", ["web", "db"])
def test_a_stalled_vm(world: World, name: str) -> None:
    world.ports[name]["stalled"] = True
    assert f"{name} is stalled: its VM takes no frames" in world.stopped()


def test_no_lease_is_a_doubt_that_says_which_address_would_do(world: World) -> None:
    del world.leases[1]
    assert (
        "db has no lease from the gateway; an address of its own must be in 192.168.127.0/24"
        in world.doubted()
    )


def test_a_vm_with_an_address_of_its_own_in_the_subnet_needs_no_lease(world: World) -> None:
    world.leases.clear()
    world.asks("db", sender="192.168.127.40", target="192.168.127.1", times=1)
    world.asks("web", sender="192.168.127.41", target="192.168.127.1", times=1)
    assert not [each for each in world.explain()["findings"] if each["check"] == "address"]


def test_another_subnet(world: World) -> None:
    world.leases[1]["address"] = "10.5.5.5"
    assert "db uses 10.5.5.5, which is not in the gateway's subnet 192.168.127.0/24" in world.stopped()


@pytest.mark.parametrize("state", ["silent", "parked", "starting", "waiting"])
@pytest.mark.parametrize("b", ["host", "8.8.8.8"])
def test_a_gateway_that_does_not_serve(world: World, state: str, b: str) -> None:
    world.gateway_state, world.policy = {"state": state}, None
    assert f"the gateway is {state}" in world.stopped("web", b)
    assert world.explain()["talk"]


def test_the_gateways_own_port_is_not_blamed_for_its_gateway(world: World) -> None:
    world.gateway_state, world.policy = {"state": "silent"}, None
    world.ports["gateway"]["state"] = "silent"
    assert "the gateway is silent: it does not answer" in world.stopped("web", "gateway")


def test_a_number_is_a_port_before_it_is_a_name(world: World) -> None:
    world.ports["web"]["name"] = "2"
    assert world.explain("1", "2")["ends"][1]["name"] == "db"


def test_a_vm_that_is_called_gateway_is_a_vm(world: World) -> None:
    world.gateway_state = world.policy = None
    world.ports["gateway"]["transport"] = "qemu"
    assert world.explain("web", "gateway")["talk"]
    assert "this switch has no gateway" in world.stopped("web", "8.8.8.8")


def test_no_gateway(world: World) -> None:
    world.gateway_state = world.policy = None
    del world.ports["gateway"], world.counted["gateway"]
    answer = world.stopped("web", "8.8.8.8")
    assert "no VM uses 8.8.8.8, and this switch has no gateway" in answer
    assert world.stopped("web", "host").endswith(
        ": this switch has no gateway, which would lead there; run it with --gateway"
    )


@pytest.mark.parametrize("reason", ["denied", "metadata", "no_outbound", "no_host_access", "unroutable"])
def test_refused_by_policy(world: World, reason: str) -> None:
    assert world.policy is not None
    world.policy["refused"] = {"203.0.113.9": reason}
    assert f"the gateway refuses 203.0.113.9 ({reason})" in world.stopped("web", "203.0.113.9")


def test_a_vm_that_never_sent(world: World) -> None:
    world.counted["db"]["rx"] = 0
    assert "the VM of db has sent nothing yet" in world.doubted()


def test_frames_that_were_too_long(world: World) -> None:
    world.ports["db"]["notes"] = ["7 frames to it were refused: they were longer than its MTU of 1400"]
    assert "MTU of 1400" in world.doubted()


def test_findings_that_stop_come_before_doubts_and_lost_frames_are_shown(world: World) -> None:
    world.counted["web"]["rx"] = 0
    world.ports["db"]["stalled"] = True
    world.by_source["db"] = [{"port": 1, "egress_full": 7}, {"port": 3, "egress_full": 1}]
    told = world.explain()
    assert [each["check"] for each in told["findings"]] == ["stalled", "mute"]
    assert told["lost_between"] == [{"source": "web", "target": "db", "egress_full": 7}]


def test_a_vm_that_left_is_missing_with_its_reason(world: World) -> None:
    last = {"port": 9, "name": "old"}
    world.events += [
        {"event": "mac-new", "mac": "02:00:00:00:00:99", "time": NOW - 90} | last,
        {"event": "lease", "state": "given", "address": "192.168.127.99", "time": NOW - 80} | last,
        {"event": "gone", "time": NOW - 12, "reason": "the VM hung up"} | last,
        {"event": "lease", "state": "ended", "address": "192.168.127.99", "time": NOW - 12} | last,
    ]
    for said in ("old", "9", "02:00:00:00:00:99", "192.168.127.99"):
        assert "its VM left 12 s ago: the VM hung up" in world.stopped("web", said)
    world.happened("gone", "db", reason="the VM hung up")
    world.events.append({"event": "attach", "time": NOW} | {"port": 2, "name": "db"})
    assert world.explain()["talk"]


def test_a_vm_that_only_answers_is_found_by_its_address(world: World) -> None:
    del world.leases[1]
    for said in ("192.168.127.50", "fe80::2", "fe80::2%eth0"):
        world.asks("db", "", sender=said.partition("%")[0], times=9)
        told = world.explain("web", said)
        assert told["talk"]
        assert told["ends"][1]["name"] == "db"
        assert told["unanswered"] == []
    assert "asked or answered with it" in world.stopped("web", "fe80::77")


def test_addresses_of_the_gateway_and_of_the_host_in_both_families(world: World) -> None:
    world.ports["gateway"]["addresses"] = ["192.168.127.1", "192.168.127.254", "fd00::1", "fd00::254"]
    for said in ("192.168.127.1", "fd00::1"):
        assert world.explain("web", said)["ends"][1]["name"] == "gateway"
    for said in ("192.168.127.254", "fd00::254"):
        told = world.explain("web", said)
        assert (told["talk"], told["ends"][1]["port"]) == (True, None)


def test_a_neighbour_that_does_not_answer(world: World) -> None:
    world.asks("web", ADDRESS["db"])
    world.between("db", "web")["age_s"] = 30.0
    assert f"web asks for {ADDRESS['db']} (5 times, last 1 s ago), and db does not answer" in world.stopped()


@pytest.mark.parametrize("times", [1, 2])
def test_a_question_that_is_not_repeated_was_answered(world: World, times: int) -> None:
    world.asks("web", ADDRESS["db"], times=times)
    world.between("db", "web")["age_s"] = 4.0
    assert world.explain()["unanswered"] == []


def test_a_question_that_was_answered_is_none(world: World) -> None:
    world.asks("web", ADDRESS["db"])
    assert world.explain()["findings"] == []


def test_a_wrong_gateway_in_the_guest(world: World) -> None:
    world.asks("web", "192.168.127.99", sender=ADDRESS["web"])
    assert world.explain("web", "1.1.1.1")["talk"], "a VM whose frames reach the gateway has a right route"
    world.between("web", "gateway")["data_age_s"] = None
    answer = world.stopped("web", "1.1.1.1")
    assert "192.168.127.99" in answer
    assert "the gateway is 192.168.127.1: the guest's route is wrong" in answer
    assert "no VM has that address" in world.doubted("web", "db")


def test_addresses_in_different_subnets_without_a_gateway(world: World) -> None:
    world.gateway_state = world.policy = None
    world.leases = []
    world.asks("web", "10.99.0.2", sender="10.99.0.1")
    world.asks("db", "10.77.0.1", sender="10.77.0.2", times=1)
    world.sent = []
    said = "web uses 10.99.0.1 and db 10.77.0.2, which are in different subnets"
    assert said in world.stopped()
    assert world.explain("web", "10.77.0.2")["ends"][1]["uses"] == ["10.77.0.2"]


def test_an_address_outside_of_the_gateways_subnet(world: World) -> None:
    del world.leases[1]
    world.asks("db", "10.5.5.1", sender="10.5.5.5")
    assert "db uses 10.5.5.5, which is not in the gateway's subnet" in world.stopped()
    world.asks("db", "192.168.127.1", sender="192.168.127.77")
    assert "10.5.5.5" not in str(world.explain()["findings"]), "one address that fits is enough"


def test_an_address_that_a_vm_has_given_up(world: World) -> None:
    strangers = [row for row in world.sent if {row["source"], row["target"]} != {1, 2}]
    world.gateway_state = world.policy = None
    world.leases, world.sent = [], strangers
    world.asks("web", "10.99.0.2", sender="10.99.0.1", times=1)
    world.asks("db", "10.77.0.1", sender="10.77.0.2", times=1)
    assert "which are in different subnets" in world.stopped()
    world.questions[-1]["age_s"] = 200.0
    assert "which are in different subnets" in world.stopped(), "it has not used another one since"
    world.asks("db", "10.99.0.1", sender="10.99.0.2", times=1)
    assert world.explain()["talk"]


def test_a_filter_in_the_guest(world: World) -> None:
    world.between("db", "web")["data_age_s"] = None
    assert "nothing but ARP answers has come back: a filter in the guest of db" in world.stopped()
    world.between("db", "web")["data_age_s"] = 1.0
    assert world.explain()["findings"] == []
    world.between("db", "web")["data_age_s"] = 40.0
    assert "none has come back for 40 s: a filter in the guest of db" in world.doubted()


def test_questions_that_the_gateway_leaves_without_an_answer(world: World) -> None:
    world.between("gateway", "web")["data_age_s"] = None
    answer = world.stopped("web", "host")
    assert "nothing but ARP answers has come back: `supervisor stats` counts" in answer
    assert "the guest of gateway" not in answer


def test_a_vm_that_asks_the_gateway_too_much(world: World) -> None:
    world.happened("asks", "web")
    assert "than its share, and others are dropped (over_rate)" in world.doubted("web", "host")
    assert world.explain("web", "db")["findings"] == []
    world.happened("asks-end", "web")
    assert world.explain("web", "host")["findings"] == []


@pytest.mark.parametrize("name", ["web", "db"])
def test_a_vm_that_reads_slowly(world: World, name: str) -> None:
    world.counted[name]["drops"] = {"egress_full": 1}
    assert f"1 frames for {name} were lost in the last minute (egress_full)" in world.doubted()
    world.recent_frames = 1000
    assert world.explain()["findings"] == []


def test_no_route_in_the_guest(world: World) -> None:
    world.sent = [row for row in world.sent if {row["source"], row["target"]} != {1, 4}]
    assert "web has sent nothing to the gateway: its guest has no route" in world.doubted("web", "1.1.1.1")
    assert world.explain("host", "web")["findings"] == []


def test_a_lease_to_which_nothing_came_back_is_no_filter(world: World) -> None:
    """The gateway answers a broadcast; a VM that has only got its lease has sent it nothing."""
    world.sent.remove(world.between("web", "gateway"))
    told = world.explain("web", "host")
    assert told["talk"]
    assert "none has come back" not in str(told["findings"])
    assert "its guest has no route to there" in told["answer"]


def test_mtus_that_differ(world: World) -> None:
    world.between("web", "db")["longest"] = 1514
    world.between("db", "web")["longest"] = 1414
    assert "frames of up to 1,514 bytes, and db none above 1,414" in world.doubted()
    world.ports["db"]["settings"]["mtu"] = 1280
    assert "web sends packets of 1,500 bytes, and the MTU of db is 1,280" in world.doubted()


def test_a_second_dhcp_server(world: World) -> None:
    world.happened("guard", "db", reason="server", mac=MAC["db"])
    said = f"db sends DHCP answers, as a second DHCP server does (from {MAC['db']}, first 5.0 s ago)"
    assert said in world.doubted()


def test_a_vm_that_shows_more_addresses_than_the_gateway_hears(world: World) -> None:
    world.happened("guard", "gateway", reason="sources", mac=MAC["web"])
    said = f"web sends from more new IP addresses than a port may use (from {MAC['web']})"
    assert f"{said}, and the gateway does not hear further ones" in world.doubted("web", "1.1.1.1")
    assert "more new IP addresses" not in str(world.explain("db", "1.1.1.1"))


def test_a_gateway_that_was_lost_a_moment_ago(world: World) -> None:
    text = "the gateway was ended by SIGKILL and is started again"
    world.events.append({"event": "gateway", "state": "waiting", "time": NOW - 3, "message": text})
    assert "the gateway was ended by SIGKILL 3 s ago" in world.doubted("web", "1.1.1.1")
    assert world.explain()["findings"] == []


@pytest.mark.parametrize("way", ["refused", "timeout", "unreachable", "forbidden"])
def test_a_far_end_that_this_host_does_not_reach(world: World, way: str) -> None:
    world.reached = {"way": way, "why": "in the kernel's words"}
    assert "in the kernel's words" in world.stopped("web", "1.1.1.1:443")
    world.reached = {"way": "open", "why": ""}
    assert world.explain("web", "1.1.1.1:443")["talk"]


@pytest.mark.parametrize(
    ("said", "address", "number"),
    [
        ("1.1.1.1:443", "1.1.1.1", 443),
        ("[fd00::1]:80", "fd00::1", 80),
        ("fd00::80", "fd00::80", None),
        ("1.1.1.1", "1.1.1.1", None),
        ("1.1.1.1:99999", "1.1.1.1:99999", None),
        ("1.1.1.1:" + 5000 * "9", "1.1.1.1:" + 5000 * "9", None),
        ("02:00:00:00:00:01", "02:00:00:00:00:01", None),
        ("::", "::", None),
    ],
)
def test_a_far_end_has_an_address_and_perhaps_a_port(said: str, address: str, number: int | None) -> None:
    assert far_end(said) == (address, number)


def test_each_check_has_a_name_of_its_own() -> None:
    names = [name for name, _ in CHECKS]
    assert len(set(names)) == len(names)
