"""Export the switch's figures in the format of Prometheus, with its client library.

Names and labels follow https://prometheus.io/docs/practices/naming/: a unit in the name, ``_total`` for
counters. The number of time series is bounded: at most 1,023 ports times the counters of a port. A port's
labels are its number and its name; a guest can choose neither.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PORT = ("port", "name")

Json = Mapping[str, Any]

_COSTS = (
    ("cpu_seconds", CounterMetricFamily, "cpu_seconds", "CPU time"),
    ("resident_memory_bytes", GaugeMetricFamily, "rss_bytes", "Resident memory"),
    ("open_fds", GaugeMetricFamily, "fds", "Open descriptors"),
)
"""What is told of a process: metric, its type, the figure in ``stats``, and its meaning."""
_NAMES = {"the gateway": "gateway", "the gateway's namespace": "namespace"}
"""Value of the label ``process`` for each of the gateway's processes."""


class _Once(Collector):
    """Collect the metrics of one answer."""

    def __init__(self, stats: Json | None) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        up = self._stats is not None
        yield GaugeMetricFamily("bulkhead_up", "1 if the switch answers, else 0.", value=float(up))
        if self._stats is not None:
            yield from _switch(self._stats)
            yield from _processes(self._stats)
            yield from _ports(self._stats["ports"])
            yield from _gateway(self._stats.get("gateway"))


def render(stats: Json | None) -> bytes:
    """Return the answer of ``stats`` as a page for Prometheus; None says that the switch does not answer."""
    registry = CollectorRegistry()
    registry.register(_Once(stats))
    return generate_latest(registry)


def _switch(stats: Json) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "bulkhead_uptime_seconds", "Time since the supervisor started.", stats["uptime_s"]
    )
    ports = GaugeMetricFamily("bulkhead_ports", "Ports by state.", labels=("state",))
    states: dict[str, int] = {}
    for port in stats["ports"]:
        states[port["state"]] = states.get(port["state"], 0) + 1
    for state, count in sorted(states.items()):
        ports.add_metric((state,), count)
    yield ports


def _processes(stats: Json) -> Iterator[Metric]:
    """Yield the cost of the supervisor and of the gateway's processes; that of workers is with the ports."""
    of_gateway = {_NAMES[row["name"]]: row for row in stats["others"] if row["name"] in _NAMES}
    for process, label, rows in (
        ("supervisor", (), {"": stats["supervisor"]}),
        ("gateway", ("process",), of_gateway),
    ):
        for name, family, figure, text in _COSTS:
            metric = family(f"bulkhead_{process}_{name}", f"{text} of the {process}.", labels=label)
            for key, row in rows.items():
                if row[figure] is not None:
                    metric.add_metric((key,) if label else (), row[figure])
            if metric.samples:
                yield metric


def _labels(port: Json) -> tuple[str, str]:
    return str(port["port"]), str(port["name"])


def _ports(ports: Iterable[Json]) -> Iterator[Metric]:
    frames = CounterMetricFamily(
        "bulkhead_port_frames", "Frames from (rx) and to (tx) the VM.", labels=(*PORT, "direction")
    )
    octets = CounterMetricFamily(
        "bulkhead_port_bytes", "Bytes of frames from (rx) and to (tx) the VM.", labels=(*PORT, "direction")
    )
    drops = CounterMetricFamily("bulkhead_port_drops", "Frames dropped, by reason.", labels=(*PORT, "reason"))
    flooded = CounterMetricFamily("bulkhead_port_flooded", "Frames from the VM to all ports.", labels=PORT)
    retries = CounterMetricFamily(
        "bulkhead_port_retries",
        "Writes that the VM's socket did not accept at once.",
        labels=(*PORT, "error"),
    )
    restarts = CounterMetricFamily("bulkhead_port_restarts", "Workers that were replaced.", labels=PORT)
    cpu = CounterMetricFamily("bulkhead_worker_cpu_seconds", "CPU time of the worker.", labels=PORT)
    queue = GaugeMetricFamily("bulkhead_port_egress_queue_bytes", "Bytes that wait for the VM.", labels=PORT)
    stalled = GaugeMetricFamily("bulkhead_port_stalled", "1 if the VM reads no frames.", labels=PORT)
    live = GaugeMetricFamily("bulkhead_port_live", "1 if the port forwards frames.", labels=PORT)
    memory = GaugeMetricFamily(
        "bulkhead_worker_pss_bytes", "Memory of the worker, with its share of shared pages.", labels=PORT
    )
    fds = GaugeMetricFamily("bulkhead_worker_open_fds", "Open descriptors of the worker.", labels=PORT)
    for port in ports:
        labels = _labels(port)
        for direction in ("rx", "tx"):
            frames.add_metric((*labels, direction), port[direction]["frames"])
            octets.add_metric((*labels, direction), port[direction]["bytes"])
        for reason, count in port["drops"].items():
            drops.add_metric((*labels, reason), count)
        for error, count in port["retries"].items():
            retries.add_metric((*labels, error), count)
        flooded.add_metric(labels, port["flooded"])
        restarts.add_metric(labels, port["worker"]["restarts"])
        queue.add_metric(labels, port["egress_queue_bytes"])
        stalled.add_metric(labels, float(port["stalled"]))
        live.add_metric(labels, float(port["state"] == "live"))
        if port["worker"]["cpu_seconds"] is not None:
            cpu.add_metric(labels, port["worker"]["cpu_seconds"])
        if port["worker"]["pss_bytes"] is not None:
            memory.add_metric(labels, port["worker"]["pss_bytes"])
        if port["worker"]["fds"] is not None:
            fds.add_metric(labels, port["worker"]["fds"])
    yield from (frames, octets, drops, flooded, retries, restarts, cpu, queue, stalled, live, memory, fds)


def _gateway(gateway: Json | None) -> Iterator[Metric]:
    if gateway is None:
        return
    yield GaugeMetricFamily(
        "bulkhead_gateway_live", "1 if the gateway answers.", float(gateway["state"] == "live")
    )
    flows = GaugeMetricFamily("bulkhead_gateway_flows", "Open flows of the gateway.", labels=("kind",))
    for kind, count in (gateway.get("flows") or {}).items():
        flows.add_metric((kind,), count)
    refused = CounterMetricFamily(
        "bulkhead_gateway_refused", "Refusals of the gateway, by reason.", labels=("reason",)
    )
    for reason, count in (gateway.get("refused") or {}).items():
        refused.add_metric((reason,), count)
    yield from (flows, refused)
