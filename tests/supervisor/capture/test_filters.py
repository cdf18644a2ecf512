"""Filters are compiled by libpcap; a mistake in one is reported in a line."""

import struct

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


@pytest.mark.parametrize("expression", ["tcp prt 80", "host", "ether[", "vlan vlan vlan 9999999999"])
def test_a_filter_that_does_not_compile_is_named(expression: str) -> None:
    with pytest.raises(LocalError, match="does not compile: ") as raised:
        compile_filter(expression)
    assert expression in str(raised.value)
    assert "\n" not in str(raised.value)
