"""A switch for tests of ``explain``: facts that tests change, and what is said of them."""

from __future__ import annotations

from typing import Any

from supervisor.explain.ends import Facts
from supervisor.explain.explain import explain

MAC = {"web": "02:00:00:00:00:01", "db": "02:00:00:00:00:02", "other": "02:00:00:00:00:03"}
ADDRESS = {"web": "192.168.127.10", "db": "192.168.127.11", "other": "192.168.127.12"}
NOW = 1000.0
GATEWAY = {
    "subnet": "192.168.127.0/24",
    "prefix": "fd00::/64",
    "gateway": "192.168.127.1",
    "host": "192.168.127.254",
    "host6": "fd00::254",
    "refused": {},
    "refusals": [],
}


class World:
    """A switch of three ports and a gateway, all well; tests break something."""

    def __init__(self) -> None:
        self.ports = {name: self._port(number, name) for number, name in enumerate(("web", "db", "other"), 1)}
        self.ports["gateway"] = self._port(4, "gateway")
        self.gateway_state: dict[str, Any] | None = {"state": "live"}
        self.policy: dict[str, Any] | None = dict(GATEWAY)
        self.counted = {name: {"rx": 5, "drops": {"storm": 0}} for name in self.ports}
        self.macs = [self.mac(MAC[name], name) for name in MAC]
        self.leases = [
            {"address": ADDRESS[name], "mac": MAC[name], "port": self.ports[name]["port"]} for name in MAC
        ]
        self.events: list[dict[str, Any]] = []
        self.sent = [
            {"source": one, "target": other, "frames": 9, "age_s": 1.0, "longest": 98, "data_age_s": 1.0}
            for one in (1, 2, 3, 4)
            for other in (1, 2, 3, 4)
            if one != other
        ]
        self.questions: list[dict[str, Any]] = []
        self.forwards = [f"tcp:127.0.0.1:{8080 + each}:{ADDRESS[name]}:80" for each, name in enumerate(MAC)]
        self.reached: dict[str, Any] = {}
        self.lately: dict[str, dict[str, Any]] = {}
        """What was counted in the last seconds, where it is not what was counted in all."""
        self.unread: dict[int, int] = {}
        self.names: dict[str, dict[str, Any]] = {}
        self.recent_frames = 5
        """Frames to each VM."""
        self.by_source: dict[str, list[dict[str, Any]]] = {}

    @staticmethod
    def _port(number: int, name: str) -> dict[str, Any]:
        settings = {
            "isolated": False, "reaches": [], "max_macs": 1024, "pinned": [], "mtu": 0, "receive": "mtu",
            "offload": "none", "guard": True, "bytes_per_s": 0,
        }  # fmt: skip
        transport = "gateway" if name == "gateway" else "qemu"
        head = {"port": number, "name": name, "transport": transport, "state": "live", "stalled": False}
        head |= {"since_s": 100.0, "addresses": []}
        return head | {"settings": settings, "notes": []}

    def mac(self, mac: str, name: str, age: int | None = 1) -> dict[str, Any]:
        return {"mac": mac, "port": self.ports[name]["port"], "name": name, "age_s": age, "pinned": False}

    def happened(self, event: str, name: str, ago: float = 5.0, **fields: object) -> None:
        port = self.ports[name]["port"]
        self.events.append({"event": event, "port": port, "name": name, "time": NOW - ago} | fields)

    def between(self, source: str, target: str) -> dict[str, Any]:
        """Return what one has sent to the other, to change it."""
        wanted = (self.ports[source]["port"], self.ports[target]["port"])
        return next(row for row in self.sent if (row["source"], row["target"]) == wanted)

    def asks(self, name: str, target: str, sender: str = "", times: int = 5, vlan: int = 0) -> None:
        self.questions.append(
            {
                "port": self.ports[name]["port"],
                "sender": sender,
                "target": target,
                "times": times,
                "age_s": 1.0,
                "vlan": vlan,
            }
        )

    def explain(self, a: str = "web", b: str = "db") -> dict[str, Any]:
        status = {
            "ports": list(self.ports.values()),
            "listeners": [{"url": "unix:///vm.sock"}],
            "gateway": self.gateway_state,
        }
        rows = [
            {
                "port": self.ports[name]["port"],
                "rx": {"frames": self.counted[name]["rx"], "bytes": 0},
                "tx": {"frames": self.recent_frames, "bytes": 0},
                "drops": self.counted[name]["drops"],
                "by_source": self.by_source.get(name, []),
            }
            for name in self.ports
        ]
        stats = {"ports": rows}
        facts = Facts(
            status=status,
            stats=stats,
            macs=self.macs,
            leases=self.leases,
            sent=self.sent,
            questions=self.questions,
            recent=stats,
            lately={
                "ports": [row | self.lately.get(name, {}) for name, row in zip(self.ports, rows, strict=True)]
            },
            unread=self.unread,
            events=self.events,
            gateway=self.policy,
            forwards=self.forwards,
            reached=self.reached,
            names=self.names,
            now=NOW,
        )
        return explain(a, b, facts)

    def stopped(self, a: str = "web", b: str = "db") -> str:
        told = self.explain(a, b)
        assert not told["talk"], told["answer"]
        assert told["answer"].startswith(f"{a} cannot reach ")
        return str(told["answer"])

    def doubted(self, a: str = "web", b: str = "db") -> str:
        told = self.explain(a, b)
        assert told["talk"], told["answer"]
        assert told["answer"].startswith("the switch carries frames")
        return str(told["answer"])
