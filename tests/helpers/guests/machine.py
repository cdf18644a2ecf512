"""What a test does with anything that has an IP stack: a QEMU guest, a User-Mode Linux, a network namespace.

All of them run shell commands and all have busybox, so one class speaks for them; a subclass says how a
command gets there (``run``), how one is left running (``start``), and which interface leads to the switch.
"""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.guests.waiting import PATIENCE, wait_for

IPERF_PORT = 5201


class CommandError(Exception):
    """A command inside a machine failed; carries its output."""

    def __init__(self, machine: str, command: str, code: int, output: str) -> None:
        super().__init__(f"{machine}: {command!r} ended with {code}:\n{output}")
        self.code = code
        self.output = output


class Machine:
    """Something with a shell and one interface to the switch."""

    def __init__(self, name: str, interface: str) -> None:
        self.name = name
        self.interface = interface
        self._iperf_runs = False

    def __repr__(self) -> str:
        return self.name

    def run(self, command: str, timeout: float = PATIENCE) -> str:
        """Run a shell command and return what it printed; raises CommandError unless it ends with 0."""
        raise NotImplementedError

    def start(self, command: str) -> None:
        """Start a shell command that goes on until the machine ends."""
        raise NotImplementedError

    def address(self, ipv4: str, *, mtu: int | None = None) -> None:
        """Give the interface an address (``10.1.2.3/24``), and an MTU if one is named, and bring it up."""
        if mtu is not None:
            self.run(f"ip link set {self.interface} mtu {mtu}")
        self.run(f"ip addr add {ipv4} dev {self.interface}")
        self.run(f"ip link set {self.interface} up")

    def wrong_sums(self) -> int:
        """Return the segments and datagrams whose checksum its kernel has found wrong so far."""
        lines = self.run("cat /proc/net/snmp").splitlines()
        found = 0
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            row = dict(zip(names.split(), values.split(), strict=True))
            found += int(row.get("InCsumErrors", 0))
        six = self.run("grep CsumErrors /proc/net/snmp6 || true").split()[1::2]
        return found + sum(map(int, six))

    def vlan(self, tag: int, ipv4: str) -> None:
        """Add an 802.1Q sub-interface with an address of its own."""
        name = f"vlan{tag}"
        self.run(f"ip link add link {self.interface} name {name} type vlan id {tag}")
        self.run(f"ip addr add {ipv4} dev {name}")
        self.run(f"ip link set {name} up")

    def link_local(self) -> str:
        """Return the IPv6 link-local address, once duplicate address detection has let it be used.

        Detection multicasts a solicitation and fails if that comes back, so this also shows that the switch
        returns nothing to its sender.
        """

        def usable() -> str | None:
            for line in self.run(f"busybox ip -6 addr show dev {self.interface} scope link").splitlines():
                words = line.split()
                if words[:1] == ["inet6"] and "tentative" not in words:
                    return words[1].split("/")[0]
            return None

        return wait_for(usable, f"{self.name} to have a usable link-local address")

    def ping(self, address: str, *, size: int = 56, count: int = 1, timeout: float = PATIENCE) -> None:
        """Ping until ``count`` requests in a row are answered; raises TimeoutError."""
        target = f"{address}%{self.interface}" if address.startswith("fe80:") else address
        output = "nothing tried"

        def answered() -> bool:
            nonlocal output
            try:
                self.run(f"busybox ping -c {count} -A -W 2 -s {size} {target}", timeout=10.0 + 2 * count)
            except CommandError as error:
                output = error.output
                return False
            return True

        wait_for(answered, lambda: f"{self.name} to ping {target}: {output}", timeout)

    def serve_iperf(self) -> None:
        """Have an iperf3 server listening, one for the machine's whole life."""
        if not self._iperf_runs:
            self.start("iperf3 -s")
            self._iperf_runs = True

        def listening() -> bool:
            return f":{IPERF_PORT} " in self.run("busybox netstat -ltn")

        wait_for(listening, f"{self.name} to listen for iperf3")

    def run_iperf(self, address: str, *words: str) -> dict[str, Any]:
        """Run iperf3 as a client with these arguments, and return what it reports of its end.

        A server is not done with its last client at once. Then it closes its listener, which resets a client
        in the backlog, and listens anew. So a reset is a fault only once the streams are connected.
        """

        def ended() -> dict[str, Any] | None:
            report = json.loads(self.run(f"iperf3 -c {address} -J {' '.join(words)} || true", timeout=60.0))
            why = report.get("error", "")
            is_early = not report["start"]["connected"] and "reset" in why
            assert not why or is_early or "busy" in why or "refused" in why, why
            end: dict[str, Any] | None = None if why else report["end"]
            return end

        return wait_for(ended, f"{self.name} to run iperf3 with {address}")

    def iperf(self, address: str, *, seconds: int = 1, streams: int = 1, reverse: bool = False) -> float:
        """Return the TCP throughput in bits per second towards ``address`` (from it, if ``reverse``)."""
        words = (f"-t {seconds}", f"-P {streams}", *(["-R"] if reverse else []))
        return float(self.run_iperf(address, *words)["sum_received"]["bits_per_second"])
