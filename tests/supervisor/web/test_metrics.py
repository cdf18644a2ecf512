"""The page for Prometheus: what promtool accepts, with names and labels that no guest chooses."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from supervisor.web.metrics import render
from tests.helpers.guests import requirements


def port(number: int, **values: Any) -> dict[str, Any]:
    worker = {"pid": 7, "epoch": 1, "restarts": 2, "cpu_seconds": 1.5, "pss_bytes": 9_000_000, "fds": 14}
    return {
        "port": number, "name": f"vm-{number}", "state": "live", "stalled": False, "worker": worker,
        "rx": {"frames": 3, "bytes": 180}, "tx": {"frames": 4, "bytes": 240}, "flooded": 1,
        "egress_queue_bytes": 5, "retries": {"eagain": 6}, "drops": {"egress_full": 8, "spoofed": 0},
    } | values  # fmt: skip


def answer(*ports: dict[str, Any], gateway: dict[str, Any] | None = None) -> dict[str, Any]:
    stats: dict[str, Any] = {
        "uptime_s": 2.0,
        "supervisor": {"cpu_seconds": 0.5, "rss_bytes": 40_000_000, "fds": None},
        "others": [
            {"name": "the gateway", "cpu_seconds": 3.5, "rss_bytes": 30_000_000, "fds": 31},
            {"name": "the gateway's namespace", "cpu_seconds": None, "rss_bytes": None, "fds": None},
        ],
        "ports": list(ports),
        "gateway": gateway,
    }
    return stats


def test_every_figure_of_a_port_has_a_line() -> None:
    lines = render(answer(port(1))).decode().splitlines()
    for line in (
        "bulkhead_up 1.0",
        'bulkhead_ports{state="live"} 1.0',
        'bulkhead_port_frames_total{direction="rx",name="vm-1",port="1"} 3.0',
        'bulkhead_port_bytes_total{direction="tx",name="vm-1",port="1"} 240.0',
        'bulkhead_port_drops_total{name="vm-1",port="1",reason="egress_full"} 8.0',
        'bulkhead_port_retries_total{error="eagain",name="vm-1",port="1"} 6.0',
        'bulkhead_port_restarts_total{name="vm-1",port="1"} 2.0',
        'bulkhead_port_egress_queue_bytes{name="vm-1",port="1"} 5.0',
        'bulkhead_worker_cpu_seconds_total{name="vm-1",port="1"} 1.5',
        'bulkhead_worker_pss_bytes{name="vm-1",port="1"} 9e+06',
        'bulkhead_worker_open_fds{name="vm-1",port="1"} 14.0',
        "bulkhead_supervisor_cpu_seconds_total 0.5",
        "bulkhead_supervisor_resident_memory_bytes 4e+07",
        'bulkhead_gateway_cpu_seconds_total{process="gateway"} 3.5',
        'bulkhead_gateway_resident_memory_bytes{process="gateway"} 3e+07',
        'bulkhead_gateway_open_fds{process="gateway"} 31.0',
    ):
        assert line in lines


def test_a_switch_that_does_not_answer_is_down() -> None:
    assert render(None).decode().splitlines()[-1] == "bulkhead_up 0.0"


def test_an_unknown_figure_has_no_line() -> None:
    worker = dict.fromkeys(("pid", "cpu_seconds", "pss_bytes", "fds")) | {"epoch": 1, "restarts": 0}
    page = render(answer(port(1, worker=worker))).decode()
    assert "bulkhead_supervisor_open_fds" not in page
    assert 'process="namespace"' not in page
    assert "bulkhead_worker_open_fds{" not in page
    assert "bulkhead_worker_pss_bytes{" not in page
    assert "bulkhead_worker_cpu_seconds_total{" not in page


@pytest.mark.parametrize("name", ['<b onclick="x">', "a\nb", "ü\\"])
def test_names_are_quoted(name: str, tmp_path: Path) -> None:
    requirements.require(("promtool",))
    gateway = {"state": "live", "flows": {"tcp": 1}, "refused": {"denied": 2}}
    page = render(answer(port(1, name=name), port(2), gateway=gateway))
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
