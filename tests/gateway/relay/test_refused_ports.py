"""The guests' ports at which connections failed: the newest last, bounded, forgotten once they answer."""

from ipaddress import ip_address

from gateway.relay.refused_ports import MOST_PORTS, RefusedPorts

GUEST = ip_address("192.168.127.2")


def numbers(ports: RefusedPorts) -> list[object]:
    return [each["port"] for each in ports.plain()]


def test_a_port_is_shown_with_its_last_failure_until_it_answers() -> None:
    now = 100.0
    ports = RefusedPorts(lambda: now)
    ports.failed((GUEST, 80), "timed_out")
    ports.failed((GUEST, 80), "refused")
    now = 102.5
    assert ports.plain() == [{"address": str(GUEST), "port": 80, "way": "refused", "age_s": 2.5}]
    ports.answered((GUEST, 80))
    ports.answered((GUEST, 22))
    assert ports.plain() == []


def test_the_port_that_failed_longest_ago_is_forgotten_first() -> None:
    ports = RefusedPorts(lambda: 0.0)
    for number in range(1, MOST_PORTS + 1):
        ports.failed((GUEST, number), "refused")
    ports.failed((GUEST, 1), "refused")
    ports.failed((GUEST, 9999), "refused")
    assert numbers(ports) == [*range(3, MOST_PORTS + 1), 1, 9999]
