"""Filters are compiled by libpcap; a mistake in one is reported in a line."""

import struct
import time

import pytest

from forwarder.errors import LocalError
from supervisor.capture.filters import compile_filter
from tests.helpers.guests import requirements


@pytest.fixture(autouse=True)
def libpcap() -> None:
    requirements.require(("libpcap",))


def test_a_filter_becomes_instructions() -> None:
    code = compile_filter("arp")
    instructions = list(struct.iter_unpack("=HBBI", code))
    assert instructions[0] == (0x28, 0, 0, 12)  # load the EtherType
    assert instructions[1] == (0x15, 0, 1, 0x806)
    assert instructions[-1][0] == 0x06


@pytest.mark.parametrize(
    ("expression", "line"),
    [
        ("(" * 4000, "does not compile: can't parse"),
        (" or ".join(f"host 10.0.0.{number}" for number in range(256)), "is too long: 4096 bytes at most"),
        ("ether host <b>", "does not compile: "),
        ("tcp\nprt\x1b[31m", "does not compile: "),
    ],
)
def test_a_filter_that_is_long_or_hostile_is_a_short_line_and_costs_little(
    expression: str, line: str
) -> None:
    before = time.thread_time()
    with pytest.raises(LocalError) as raised:
        compile_filter(expression)
    said = str(raised.value)
    assert line in said
    assert len(said) < 200
    assert said.isprintable()
    assert time.thread_time() - before < 30


@pytest.mark.parametrize("expression", ["tcp prt 80", "host", "ether[", "vlan vlan vlan 9999999999"])
def test_a_filter_that_does_not_compile_is_named(expression: str) -> None:
    with pytest.raises(LocalError, match="does not compile: ") as raised:
        compile_filter(expression)
    assert expression in str(raised.value)
    assert "\n" not in str(raised.value)
