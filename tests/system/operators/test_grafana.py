"""The dashboard of ``contrib/``: a real Prometheus scrapes a real switch, and each query has an answer."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.guests import requirements
from tests.helpers.guests.fixtures import StartSwitch
from tests.helpers.guests.switch import ROOT
from tests.helpers.guests.waiting import PATIENCE, wait_for
from tests.helpers.listening import tcp_port
from tests.helpers.scene import playing
from tests.helpers.web import Web

DASHBOARD = ROOT / "contrib" / "grafana" / "bulkhead.json"
SCRAPES_S = 90.0
EVERY = "1s"
CONFIG = """
global: {{scrape_interval: {every}}}
scrape_configs:
  - job_name: bulkhead
    static_configs: [{{targets: ["{target}"]}}]
"""

Ask = Callable[[str, str], Any]


def panels() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return listed


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def filled(expression: str) -> str:
    """Return a query as Grafana sends it for all switches and ports."""
    values = {"$__rate_interval": "10s", "$switch": ".*", "$port": ".*"}
    return re.sub(r"\$\w+", lambda found: values[found[0]], expression)


@contextlib.contextmanager
def prometheus(directory: Path, target: str) -> Iterator[Ask]:
    """Run a Prometheus that scrapes ``target``; give what asks its API: a path and a query."""
    config = directory / "prometheus.yml"
    config.write_text(CONFIG.format(every=EVERY, target=target))
    words = ["--config.file", str(config), "--storage.tsdb.path", str(directory / "data")]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", *words, "--web.listen-address", "127.0.0.1:0"], stdout=log, stderr=log
        )
    try:
        port = wait_for(lambda: tcp_port(process.pid), (directory / "log").read_text, PATIENCE)

        def is_ready() -> bool:
            try:
                return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=PATIENCE))
            except urllib.error.HTTPError:  # 503: it still reads its own files
                return False

        wait_for(is_ready, "Prometheus to be ready")

        def ask(path: str, query: str) -> Any:
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode({'query': query})}"
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                return json.load(response)["data"]

        yield ask
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.guest
def test_each_query_has_data_from_a_real_switch(switch: StartSwitch, tmp_path: Path) -> None:
    requirements.require(("promtool", "root", "tun", *requirements.GATEWAY))
    running = switch("--gateway")
    with playing(running) as scene, contextlib.closing(Web(running.runtime_dir)) as served:
        for name in ("alice", "bob", "dave"):
            scene.add(name, deaf=name == "dave")
        running.wait_live(4)
        scene.greet()
        scene.talk({("alice", "bob"): 200_000, ("bob", "dave"): 4_000_000})
        with prometheus(tmp_path, f"127.0.0.1:{served.port}") as ask:
            missing = set(queries())

            def all_have_data() -> bool:
                missing.difference_update([each for each in missing if ask("query", filled(each))["result"]])
                return not missing

            wait_for(all_have_data, lambda: f"data for {missing}", SCRAPES_S)

            def only(query: str) -> Any:
                """Return what it finds once it is in two scrapes of the last seconds."""
                (found,) = wait_for(lambda: ask("query", query)["result"], query)
                return found

            assert only("bulkhead_port_stalled == 1")["metric"]["name"] == "dave"
            rate = only('rate(bulkhead_port_bytes_total{name="alice",direction="rx"}[10s])')
            assert 0 < float(rate["value"][1]) < 400_000


def test_the_panels_are_whole() -> None:
    places = [panel["gridPos"] for panel in panels()]
    for number, one in enumerate(places):
        assert one["x"] + one["w"] <= 24
        for other in places[number + 1 :]:
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or above
    assert all(panel["title"] and panel["targets"] for panel in panels())


def test_queries_name_existing_metrics() -> None:
    from tests.supervisor.web.test_metrics import answer, port, render  # noqa: PLC0415

    gateway = {"state": "live", "flows": {"tcp": 1}, "refused": {"denied": 2}}
    page = render(answer(port(1), gateway=gateway)).decode()
    names = {name for query in queries() for name in re.findall(r"bulkhead_\w+", query)}
    assert len(names) > 10
    assert [name for name in names if f"\n{name}" not in page] == []
