"""The settings of a port as operators write them: names, units and bounds, and that nothing is half set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import wire
from forwarder.errors import LocalError
from forwarder.names import (
    MAX_BYTES_PER_S,
    MAX_FRAMES_PER_S,
    MAX_MACS,
    MAX_MTU,
    MAX_PINNED,
    MAX_REACHES,
    MIN_BYTES_PER_S,
    MIN_MTU,
    OFFLOADS,
    RECEIVES,
    Policy,
    PortRecord,
    mtu_of,
)
from supervisor.ports import limits
from supervisor.ports.settings import (
    SETTINGS,
    SettingError,
    changed,
    check_transport,
    from_text,
    pin_clash,
    plain,
    shown,
)

MAC = "02:00:00:00:00:01"
FRAMES = st.just(0) | st.integers(1, MAX_FRAMES_PER_S)
POLICIES = st.builds(
    Policy,
    st.lists(
        st.integers(1, 99).map(lambda n: bytes((2, 0, 0, 0, 0, n))), max_size=MAX_PINNED, unique=True
    ).map(tuple),
    st.booleans(),
    FRAMES,
    FRAMES,
    FRAMES,
    st.just(0) | st.integers(MIN_BYTES_PER_S, MAX_BYTES_PER_S),
    st.integers(0, MAX_MACS),
    st.just(True),
    st.lists(st.sampled_from(["a", "gateway", "x" * 63]), max_size=3, unique=True).map(tuple),
    st.sampled_from(OFFLOADS),
    st.just(0) | st.integers(MIN_MTU, MAX_MTU),
    st.sampled_from(RECEIVES),
)


def test_every_field_of_a_policy_is_one_setting() -> None:
    assert tuple(setting.field for setting in SETTINGS.values()) == Policy._fields


@given(POLICIES)
def test_shown_settings_can_be_set_again(policy: Policy) -> None:
    values = {key: from_text(key, text) for key, text in shown(plain(policy))}
    assert changed(Policy(), values) == policy._replace(mtu=mtu_of(policy))


@given(POLICIES)
def test_every_policy_that_can_be_set_can_be_sent(policy: Policy) -> None:
    record = PortRecord(1, 1, 1, "a", "qemu", policy)
    message = wire.Update(1, 1, (wire.Change("change", record),), ())
    assert wire.decode(wire.encode(message)) == message


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("pin", f"{MAC}, 02-00-00-00-00-02", (bytes((2, 0, 0, 0, 0, 1)), bytes((2, 0, 0, 0, 0, 2)))),
        ("pin", "", ()),
        ("flood-unknown", "no", False),
        ("isolated", "true", True),
        ("limit-broadcast", "2000", 2000),
        ("limit-broadcast", "10k", 10_000),
        ("limit-multicast", "1.5M/s", 1_500_000),
        ("limit-unknown", "0", 0),
        ("limit-unknown", "none", 0),
        ("limit-bandwidth", "100Mbit/s", 12_500_000),
        ("limit-bandwidth", "12.5MB/s", 12_500_000),
        ("limit-bandwidth", "1Gbit/s", 125_000_000),
        ("limit-bandwidth", "0", 0),
        ("limit-macs", "16", 16),
        ("limit-macs", "none", 0),
        ("reach", "gateway,dns,gateway", ("gateway", "dns")),
        ("offload", "tso", "tso"),
        ("offload", "none", "none"),
        ("mtu", "1500", 1500),
        ("mtu", "none", 0),
        ("mtu", "0", 0),
        ("receive", "large", "large"),
    ],
)
def test_text_is_read_as_values(key: str, text: str, value: object) -> None:
    policy = changed(Policy(isolated=True), {key: from_text(key, text)})
    assert getattr(policy, SETTINGS[key].field) == value


@pytest.mark.parametrize(
    ("key", "text", "why"),
    [
        ("limit-broadcast", "10K", "is no rate; write frames a second like"),
        ("limit-broadcast", "10kB/s", "is no rate"),
        ("limit-broadcast", "0.4", "is no rate"),
        ("limit-broadcast", "-5", "is no rate"),
        ("limit-broadcast", "", "is no rate"),
        ("limit-broadcast", "\N{ARABIC-INDIC DIGIT FIVE}", "is no rate"),
        ("limit-broadcast", "2G", "out of bounds; write 1 to 1,000,000,000 frames a second, or none"),
        ("limit-bandwidth", "100", "write its unit like 100Mbit/s"),
        ("limit-bandwidth", "100Mb/s", "write its unit"),
        ("limit-bandwidth", "100mbit/s", "write its unit"),
        ("limit-bandwidth", "100Mbit", "write its unit"),
        ("limit-bandwidth", "10MiB/s", "write its unit"),
        ("limit-bandwidth", "800.001kbit/s", "write its unit"),
        ("limit-bandwidth", "799kbit/s", "write 100,000 to 1,000,000,000,000 bytes a second"),
        ("limit-macs", "1k", "is no number of addresses"),
        ("limit-macs", "10241", "write 1 to 10,240 addresses"),
        ("isolated", "maybe", "neither true nor false"),
        ("offload", "on", "'on' is not one of these: none, tso"),
        ("mtu", "67", "67 is out of bounds; write 68 to 65,521 bytes, or none"),
        ("mtu", "65522", "out of bounds"),
        ("mtu", "1.5k", "is no MTU; write its bytes like 1500, or none"),
        ("receive", "", "'' is not one of these: mtu, large"),
        ("pin", "ff:ff:ff:ff:ff:ff", "one station"),
        ("pin", f"{MAC},{MAC}", "is there twice"),
        (
            "pin",
            ",".join(f"02:00:00:00:00:{n:02x}" for n in range(MAX_PINNED + 1)),
            "more than the 16 allowed",
        ),
        ("reach", "a b", "names no port"),
        ("reach", ",".join("abcdefghijklmnopq"[: MAX_REACHES + 1]), "more than the 16 allowed"),
        ("limit-brodcast", "1", "unknown setting; known are pin, flood-unknown, limit-broadcast"),
    ],
)
def test_a_mistake_is_named_in_one_line(key: str, text: str, why: str) -> None:
    with pytest.raises(SettingError) as caught:
        from_text(key, text)
    line = str(caught.value)
    assert line.startswith(f"{key}: ")
    assert why in line
    assert line.isprintable()


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=12) | st.integers() | st.floats() | st.none())
def test_nothing_raises_but_a_setting_error_and_bounds_hold(key: str, value: object) -> None:
    try:
        policy = changed(Policy(isolated=True), {key: value})
    except SettingError:
        return
    wire.decode(
        wire.encode(wire.Update(1, 1, (wire.Change("join", PortRecord(1, 1, 1, "a", "qemu", policy)),), ()))
    )


def test_the_values_of_toml_need_no_text() -> None:
    assert limits.frames(2000) == 2000
    assert limits.bandwidth(0) == 0
    assert limits.addresses(5) == 5
    for wrong in (True, 2000.0, None, [1]):
        for read in (limits.frames, limits.bandwidth, limits.addresses, limits.mtu):
            with pytest.raises(LocalError):
                read(wrong)


def test_changes_are_taken_together_and_others_stay() -> None:
    policy = Policy(broadcast_per_s=7, max_macs=9)
    new = changed(policy, {"isolated": True, "reach": ["a"], "limit-macs": 3})
    assert new == policy._replace(isolated=True, reaches=("a",), max_macs=3)
    with pytest.raises(SettingError, match="reach: it has no effect unless isolated=true"):
        changed(new, {"isolated": False})
    assert changed(new, {"isolated": False, "reach": []}) == policy._replace(max_macs=3)


def test_an_address_has_one_place() -> None:
    mac = bytes((2, 0, 0, 0, 0, 1))
    there = PortRecord(3, 1, 1, "web", "qemu", Policy((mac,)))
    assert not pin_clash((), [there])
    assert not pin_clash((mac,), [there._replace(policy=Policy())])
    assert pin_clash((mac,), [there]).startswith(f"{MAC} is already pinned to port 3 (web)")


def test_a_vm_with_offloads_has_a_default_mtu() -> None:
    policy = changed(Policy(), {"offload": "tso"})
    assert plain(policy)["mtu"] == 1500
    assert plain(changed(policy, {"mtu": 9000}))["mtu"] == 9000
    assert plain(changed(policy, {"offload": "none"}))["mtu"] == 0


@pytest.mark.parametrize("transport", ["tap", "vhost", "dial_vhost"])
@pytest.mark.parametrize("setting", [{"offload": "tso"}, {"mtu": 1500}, {"receive": "large"}])
def test_transports_with_headers_refuse_settings_of_offloads(
    transport: str, setting: dict[str, object]
) -> None:
    policy, (key,) = changed(Policy(), setting), setting
    check_transport(transport, changed(policy, {"offload": "none", "mtu": "none", "receive": "mtu"}))
    check_transport("vfkit", policy)
    if key == "mtu" and transport != "tap":
        check_transport(transport, policy)
    else:
        with pytest.raises(SettingError, match=f"{key}: a {transport} port negotiates this itself"):
            check_transport(transport, policy)
