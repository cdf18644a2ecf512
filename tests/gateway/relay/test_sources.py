"""How many new addresses a port may use: one port has its bound, and others do not feel it."""

from gateway.relay.sources import BURST, MOST, RATE, Sources


def address(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_port_has_a_burst_and_then_a_rate_of_new_addresses() -> None:
    sources = Sources()
    assert all(sources.allows("mallory", address(number), 0.0) for number in range(BURST))
    assert not sources.allows("mallory", address(BURST), 0.0)
    assert all(sources.allows("mallory", address(number), 0.0) for number in range(BURST))  # known ones
    assert sources.allows("alice", address(BURST), 0.0)
    later = [sources.allows("mallory", address(1000 + number), 10.0) for number in range(100)]
    assert sum(later) == min(BURST, 10 * RATE)


def test_the_longest_unused_address_is_forgotten_and_a_port_that_left_is_too() -> None:
    sources = Sources()
    for number in range(MOST + 1):
        assert sources.allows("alice", address(number), float(number))
        assert sources.allows("alice", address(1), float(number)) or number < 1
    for number in range(BURST):
        sources.allows("alice", address(5000 + number), float(MOST + 1))
    assert sources.allows("alice", address(1), float(MOST + 1))
    assert not sources.allows("alice", address(0), float(MOST + 1))
    sources.forget("alice")
    assert sources.allows("alice", address(0), float(MOST + 1))
