"""Answers of a supervisor, and their text, for tests of screens."""

import io

from rich.console import Console

from supervisor.screen import tables


def port(number=1, name="qemu-1", **changes):
    worker = {
        "pid": 4711,
        "epoch": 1,
        "restarts": 0,
        "cpu_percent": 0.3,
        "cpu_seconds": 0.42,
        "rss_bytes": 30 << 20,
        "pss_bytes": 9 << 20,
        "threads": 1,
        "fds": 14,
        "ctx_switches": 1234,
    }
    return {
        "port": number,
        "name": name,
        "transport": "qemu",
        "state": "live",
        "stalled": False,
        "since_s": 2.9,
        "worker": worker,
        "macs": ["02:00:00:00:00:01", "02:00:00:00:00:02"],
        "addresses": ["192.168.127.9"],
        "rx": {"frames": 10, "bytes": 1514},
        "tx": {"frames": 11, "bytes": 987654},
        "flooded": 1,
        "egress_queue_bytes": 0,
        "retries": {"eagain": 21, "enobufs": 22},
        "drops": {
            "egress_full": 31,
            "runt": 32,
            "oversize": 33,
            "spoofed": 34,
            "stale_ring": 35,
            "sources": 44,
            "refused": 36,
            "over_rate": 43,
            "storm": 37,
            "isolated": 38,
            "offload": 40,
            "mac_limit": 39,
        },
        "filtered": {"hairpin": 41, "filtered": 42},
        "notes": [],
    } | changes


def answer(*ports, **changes):
    process = {key: value for key, value in port()["worker"].items() if key not in {"epoch", "restarts"}}
    process["cell"] = {
        "required": False,
        "in_force": ["user", "landlock"],
        "others": {},
        "missing": ["seccomp"],
        "landlock_abi": 3,
    }
    drops = dict.fromkeys(port()["drops"], 0)
    departed = {"ports": 0, "rx": {}, "tx": {}, "drops": drops}
    head = {"name": "bulkhead", "epoch": "815", "sequence": 12, "uptime_s": 245.0, "supervisor": process}
    head |= {"gateway": None, "lost_log_lines": 0, "others": []}
    head["listeners"] = [{"transport": "qemu", "url": "unix:///run/q.sock"}]
    return head | {"ports": list(ports), "departed": departed} | changes


def text(renderable, width=tables.PLAIN_WIDTH):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()
