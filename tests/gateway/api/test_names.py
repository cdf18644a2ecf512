"""Zones: reading, writing, joining, and malformed names."""

from __future__ import annotations

import contextlib
import json
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.names import MOST_RECORDS, Record, Zone, added, address, domain

LABELS = st.sampled_from(["a", "b"])


def names(most: int) -> st.SearchStrategy[str]:
    return st.lists(LABELS, min_size=1, max_size=most).map(".".join)


ADDRESSES = st.integers(1, 200).map(lambda number: IPv4Address(0x0A000000 + number))
RECORDS = st.lists(st.builds(Record, names(2), ADDRESSES), max_size=4).map(tuple)
ZONES = st.lists(st.builds(Zone, names(3), RECORDS, st.none() | ADDRESSES), max_size=6)


@given(ZONES)
def test_to_add_again_changes_nothing(asked_for: list[Zone]) -> None:
    zones: tuple[Zone, ...] = ()
    for zone in asked_for:
        zones = added(zones, Zone.parse(str(zone)))
        assert added(zones, Zone.parse(str(zone))) == zones


def test_gvproxys_json_is_read_and_written() -> None:
    text = (
        b'{"name": "CRC.testing.", "Records": [{"Name": "api", "IP": "192.168.127.2", "Regexp": null},'
        b'{"Name": "api", "IP": "fd00::2"}, {"Name": "api", "IP": "10.0.0.9"}],'
        b'"DefaultIP": "::ffff:10.0.0.1"}'
    )
    zone = Zone.parse(text)
    assert zone.plain() == {
        "Name": "crc.testing.",
        "Records": [{"Name": "api", "IP": "192.168.127.2"}, {"Name": "api", "IP": "fd00::2"}],
        "DefaultIP": "10.0.0.1",
    }
    assert Zone.parse(str(zone)) == zone
    empty = Zone.parse(b'{"Name": "x", "Records": null, "DefaultIP": ""}')
    assert empty.plain() == {"Name": "x.", "Records": [], "DefaultIP": ""}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"{", "that is not JSON"),
        (b"\xff", "that is not JSON"),
        (b"[" * 100_000, "that is not JSON"),
        (b"[]", "a zone has to be a JSON object"),
        (b"{}", "'' is no name"),
        (b'{"Name": 5}', "name has to be text"),
        (b'{"Name": "."}', "'' is no name"),
        (b'{"Name": "a..b"}', "'' is no name"),
        (b'{"Name": "a/b"}', "'a/b' is no name"),
        (b'{"Name": "a", "DefaultIP": "x"}', "'x' is no IP address"),
        (b'{"Name": "a", "DefaultIP": "fe80::1%eth0"}', "has a zone; a name's address is without"),
        (b'{"Name": "a", "Records": {}}', "Records has to be a list"),
        (b'{"Name": "a", "Records": ["x"]}', "a record has to be a JSON object"),
        (b'{"Name": "a", "Records": [{"Name": "x"}]}', "'' is no IP address"),
        (b'{"Name": "a", "Records": [{"IP": "10.0.0.1"}]}', "'' is no name"),
        (b'{"Name": "a", "Records": [{"Regexp": "x.*", "IP": "10.0.0.1"}]}', "Regexp is not supported"),
        (b'{"Name": "a", "Records": [{"Name": "x", "Regexp": "", "IP": "10.0.0.1"}]}', "Regexp is not"),
    ],
)
def test_a_wrong_zone_is_named_in_one_line(text: bytes, line: str) -> None:
    with pytest.raises(ValueError, match=line) as caught:
        Zone.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("letter", [*" ,/\n\r#*%\"'\\\0=:", "é", "²"])
def test_a_name_or_an_address_has_no_other_letters(letter: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        domain(f"a{letter}b")
    for written in (f"10.0.0.1{letter}", f"fe80::1%a{letter}server=1.2.3.4"):
        with pytest.raises(ValueError, match=r"is no IP address|has a zone"):
            address(written)


@given(st.text())
def test_any_text_is_an_error_or_a_name_of_known_letters(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert set(domain(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    with contextlib.suppress(ValueError):
        assert ip_address(str(address(text)))


def test_names_and_tables_are_bounded() -> None:
    long = ".".join(["a" * 63] * 4)
    with pytest.raises(ValueError, match="it has more than 253 letters"):
        domain(long)
    with pytest.raises(ValueError, match="it has more than 253 letters"):
        Zone.parse(json.dumps({"Name": long[64:], "Records": [{"Name": "a" * 63, "IP": "10.0.0.1"}]}))
    records = tuple(Record(f"n{number}", address("10.0.0.1")) for number in range(MOST_RECORDS - 1))
    zones = added((), Zone("a", records))
    with pytest.raises(ValueError, match="more than 1024 records; leave some out"):
        added(zones, Zone("b"))
