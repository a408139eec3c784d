"""A real Triton under load, a real Prometheus, the chart's rules: do they tell the truth?"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml

from chart.rules.promtool import NAMESPACE, render, write_rules
from wanwu import Recognizer
from wanwu.channel import Address, Array
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.transport import GrpcTransport

CALLERS = 6
#: The summaries of Triton look back for 60 s, the rates for 30 s; a P95 counts once the first
#: scrape is older than those.
LOAD_S, SUMMARY_S, RATE_S = 100.0, 60.0, 30.0
CLEARS_S = 75.0
LIMIT_MS = 45
#: The embedded Triton is 24.10, and the rules look at each second.
VALUES = (
    "triton.image.release=24.10",
    "triton.acceptKnownVulnerabilities=true",
    "monitoring.scrapeIntervalSeconds=1",
    f"monitoring.rateWindowSeconds={RATE_S:.0f}",
    "monitoring.alerts.forSeconds=5",
    f"monitoring.alerts.p95Ms={LIMIT_MS}",
)
LOADED = ("request_p95_ms", "queue_ms", "request_rate", "batch_size", "scaling_queue_ms")
IDLE = (*LOADED, "error_ratio", "middle_pod_p95_ms", "scaling_p95_ms")
PICTURE = np.zeros((260, 260, 3), np.uint8)


@dataclass
class TimedTransport:
    """A wire that notes when each picture's call ended, and how long it took."""

    wire: GrpcTransport
    calls: list[tuple[float, float]] = field(default_factory=list)

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        started = time.monotonic()
        answer = self.wire.infer(model, inputs, outputs, timeout_s=timeout_s)
        if model == "image_encoder":
            ended = time.monotonic()
            self.calls.append((ended, (ended - started) * 1000))
        return answer

    def is_ready(self, model: str | None = None, *, timeout_s: float) -> bool:
        return self.wire.is_ready(model, timeout_s=timeout_s)

    def models(self, *, timeout_s: float) -> dict[str, list[str]]:
        return self.wire.models(timeout_s=timeout_s)

    def close(self) -> None:
        self.wire.close()


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        address = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(self, expr: str) -> float | None:
        """Give the one value of an expression, None where there is none."""
        found = self.get("/api/v1/query", query=expr)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self, alert: str) -> bool:
        return self.ask(f'ALERTS{{alertname="{alert}",alertstate="firing"}}') == 1


def until(holds: Callable[[], bool], within_s: float) -> float | None:
    """Wait until something holds: the seconds it took, None where it did not."""
    started = time.monotonic()
    while time.monotonic() - started < within_s:
        if holds():
            return time.monotonic() - started
        time.sleep(0.5)
    return None


@pytest.fixture(scope="module")
def watched(repository: Path, need) -> Iterator[EmbeddedServer]:
    need(importlib.util.find_spec("pytriton") is not None, "Triton: pip install 'wanwu[server]'")
    (pods,) = render(need, *VALUES, shown=["triton/deployment.yaml"])
    words = pods["spec"]["template"]["spec"]["containers"][0]["args"]
    arguments = tuple(word for word in words if word.startswith("--metrics-config"))
    assert arguments
    options = ServerOptions(
        repository, grpc_port=free_port(), metrics_port=free_port(), arguments=arguments
    )
    with EmbeddedServer(options) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(watched: EmbeddedServer, need, tmp_path_factory) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    need(program is not None, "prometheus: apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    rules = write_rules(need, folder, *VALUES)
    target = {
        "targets": [f"127.0.0.1:{watched.options.metrics_port}"],
        "labels": {"namespace": NAMESPACE, "pod": "embedded"},
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules.file)],
        # The operator gives a PodMonitor's job this name.
        "scrape_configs": [{"job_name": f"{NAMESPACE}/x-wanwu-triton", "static_configs": [target]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    running = Prometheus(f"http://127.0.0.1:{free_port()}")
    command = [
        *(str(program), f"--config.file={folder / 'prometheus.yaml'}"),
        *(f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"),
        f"--web.listen-address={running.url.removeprefix('http://')}",
    ]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            assert until(lambda: answers(running), 20) is not None, (folder / "log.txt").read_text()
            yield running
        finally:
            process.terminate()
            process.wait(20)


def answers(prometheus: Prometheus) -> bool:
    try:
        return prometheus.ask("sum(up) and sum(wanwu_request_rate)") == 1
    except (urllib.error.URLError, ConnectionError):
        return False


@dataclass(frozen=True)
class Seen:
    """What the client and Prometheus say of the same load."""

    client_p95_ms: float
    client_mean_ms: float
    client_rate: float
    server_queue_ms: float
    server_compute_ms: float
    p95_ms: float
    queue_ms: float
    rate: float
    batch: float
    scaling_queue_ms: float
    silent_before: bool
    fired_s: float | None
    unhealthy: list[str]
    cleared_s: float | None
    idle: list[float | None]


def statistics(url: str) -> np.ndarray:
    """Give image_encoder's requests, and the ms that they queued and were computed."""
    with triton.InferenceServerClient(url) as client:
        (model,) = client.get_inference_statistics("image_encoder").model_stats
    stats = model.inference_stats
    compute = stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
    return np.array([stats.success.count, stats.queue.ns / 1e6, compute / 1e6])


@pytest.fixture(scope="module")
def seen(watched: EmbeddedServer, prometheus: Prometheus) -> Seen:
    silent_before = not prometheus.firing("WanwuLatencyHigh")
    wire = TimedTransport(GrpcTransport(Address(watched.url)))
    stop, started = threading.Event(), time.monotonic()
    with Recognizer(transport=wire) as recognizer:
        recognizer.recognize(PICTURE, bank="seed18")

        def call() -> None:
            while not stop.is_set():
                recognizer.recognize(PICTURE, bank="seed18")

        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            fired_s = until(lambda: prometheus.firing("WanwuLatencyHigh"), LOAD_S)
            time.sleep(max(0.0, started + LOAD_S - RATE_S - time.monotonic()))
            before = statistics(watched.url)
            time.sleep(RATE_S)
            # Prometheus is asked before the callers stop, of the same seconds as they.
            now = time.monotonic()
            requests, queued, computed = statistics(watched.url) - before
            told = [prometheus.ask(f"wanwu_{name}") for name in LOADED]
        finally:
            stop.set()
            for caller in callers:
                caller.join()
    assert None not in told
    unhealthy = [
        rule["name"]
        for group in prometheus.get("/api/v1/rules")["groups"]
        for rule in group["rules"]
        if rule["health"] != "ok"
    ]
    cleared_s = until(lambda: not prometheus.firing("WanwuLatencyHigh"), CLEARS_S)
    within = [waited for ended, waited in wire.calls if now - SUMMARY_S < ended <= now]
    rated = [waited for ended, waited in wire.calls if now - RATE_S < ended <= now]
    result = Seen(
        client_p95_ms=float(np.quantile(within, 0.95)),
        client_mean_ms=float(np.mean(rated)),
        client_rate=len(rated) / RATE_S,
        server_queue_ms=queued / requests,
        server_compute_ms=computed / requests,
        p95_ms=told[0] or 0.0,
        queue_ms=told[1] or 0.0,
        rate=told[2] or 0.0,
        batch=told[3] or 0.0,
        scaling_queue_ms=told[4] or 0.0,
        silent_before=silent_before,
        fired_s=fired_s,
        unhealthy=unhealthy,
        cleared_s=cleared_s,
        idle=[prometheus.ask(f"wanwu_{name}") for name in IDLE],
    )
    print(result)  # noqa: T201 - `pytest -s` shows the figures
    return result


def test_the_p95_is_the_one_that_callers_see(seen: Seen) -> None:
    assert seen.p95_ms == pytest.approx(seen.client_p95_ms, rel=0.15)


def test_the_request_rate_is_the_callers_own(seen: Seen) -> None:
    assert seen.rate == pytest.approx(seen.client_rate, rel=0.15)


def test_the_time_in_the_queue_is_what_computing_leaves_of_a_callers_wait(seen: Seen) -> None:
    assert seen.queue_ms == pytest.approx(seen.server_queue_ms, rel=0.15)
    whole = seen.queue_ms + seen.server_compute_ms
    assert whole == pytest.approx(seen.client_mean_ms, rel=0.15)


def test_of_one_pod_scalers_read_the_fleets_own_queue(seen: Seen) -> None:
    assert seen.scaling_queue_ms == pytest.approx(seen.queue_ms, rel=0.1)


def test_the_alarm_fires_under_the_load_and_clears_after_it(seen: Seen) -> None:
    assert seen.silent_before
    assert seen.client_p95_ms > LIMIT_MS
    assert seen.fired_s is not None
    assert seen.cleared_s is not None


def test_prometheus_could_evaluate_every_rule(seen: Seen) -> None:
    assert seen.unhealthy == []
    assert 1 <= seen.batch <= CALLERS


def test_once_idle_every_signal_is_zero(seen: Seen) -> None:
    assert seen.idle == [0.0] * len(IDLE)
