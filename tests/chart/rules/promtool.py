"""The chart's rules as real helm renders them, played over made-up series by real promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CHART = Path(__file__).parents[3] / "helm" / "wanwu"
NAMESPACE, RELEASE = "shop", "x"
#: One sample every 15 s, as the chart scrapes.
STEP_S = 15

#: What a release must be told whatever it watches.
NEEDED = (
    "imageRegistry=registry.example.internal",
    "repository.pvc.claimName=models",
    "gateway.auth.keysSecret=keys",
    "monitoring.enabled=true",
    # For tests of earlier releases.
    "triton.acceptKnownVulnerabilities=true",
)

#: How a release says where the GPU's utilisation comes from.
SOURCES: dict[str, tuple[str, ...]] = {
    "triton": (),
    "dcgm": ("autoscaling.gpuSource=dcgm",),
    "dcgm-mig": (
        "autoscaling.gpuSource=dcgm-mig",
        "triton.gpu.resourceName=nvidia.com/mig-1g.10gb",
    ),
}

Need = Callable[[bool, str], None]
Labels = dict[str, str]


def render(
    need: Need,
    *values: str,
    shown: Sequence[str] = ("monitoring/*.yaml",),
    served: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return a release's objects from some of its templates; `values` are as for `helm --set`.

    `served` are the APIs of the cluster beyond those of Kubernetes.
    """
    helm = shutil.which("helm")
    need(helm is not None, "helm")
    command = [str(helm), "template", RELEASE, str(CHART), f"--namespace={NAMESPACE}"]
    command += [f"--set={each}" for each in (*NEEDED, *values)]
    command += [f"--show-only=templates/{each}" for each in shown]
    command += [f"--api-versions={each}" for each in served]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def groups_of(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the rule groups of every PrometheusRule."""
    return [
        group
        for each in objects
        if each["kind"] == "PrometheusRule"
        for group in each["spec"]["groups"]
    ]


def rules_of(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Give the rules of a kind, `alert` or `record`, by name."""
    rules = (rule for group in groups_of(objects) for rule in group["rules"])
    return {rule[kind]: rule for rule in rules if kind in rule}


@dataclass(frozen=True)
class Promtool:
    """One rules file."""

    program: str
    file: Path

    def check(self) -> None:
        """Fail if a rule cannot be parsed."""
        self._run("check", "rules", "--lint-fatal", str(self.file))

    def play(self, series: dict[str, str], *expected: tuple[str, str, float]) -> None:
        """Fail unless each (time, expression, value) holds after the series have come in."""
        questions = [
            {"expr": expr, "eval_time": at, "exp_samples": [{"labels": "{}", "value": value}]}
            for at, expr, value in expected
        ]
        test = {
            "interval": f"{STEP_S}s",
            "input_series": [{"series": k, "values": v} for k, v in series.items()],
            "promql_expr_test": questions,
        }
        content = {
            "rule_files": [self.file.name],
            "evaluation_interval": f"{STEP_S}s",
            "tests": [test],
        }
        file = self.file.with_name("test.yaml")
        file.write_text(yaml.safe_dump(content))
        self._run("test", "rules", str(file))

    def _run(self, *words: str) -> None:
        done = subprocess.run([self.program, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def write_rules(need: Need, folder: Path, *values: str) -> Promtool:
    """Render the rules into a folder."""
    program = shutil.which("promtool")
    need(program is not None, "promtool: apt-get install prometheus")
    file = folder / "rules.yaml"
    groups = groups_of(render(need, *values))
    file.write_text(yaml.safe_dump({"groups": groups}, allow_unicode=True))
    return Promtool(str(program), file)


def named(metric: str, **labels: str) -> str:
    """Write a series' name; without others it has the labels of a Triton pod `a`."""
    pod = {"namespace": NAMESPACE, "job": f"{NAMESPACE}/x-wanwu-triton", "pod": "a"}
    text = ",".join(f'{key}="{value}"' for key, value in (pod | labels).items())
    return f"{metric}{{{text}}}"


def tower(metric: str, **labels: str) -> str:
    """Write the name of a series of the image tower."""
    return named(metric, model="image_encoder", version="1", **labels)


def counter(rate: float, steps: int = 80, start: float = 0) -> str:
    """Write a counter that grows by `rate` a second."""
    return f"{start:g}+{rate * STEP_S:.10g}x{steps}"


def steady(value: float, steps: int = 80) -> str:
    """Write a gauge that stays."""
    return f"{value:g}x{steps}"


def pod(
    name: str = "a",
    *,
    rate: float = 0.0,
    failed: float = 0.0,
    rejected: float = 0.0,
    queue_ms: float = 0.0,
    batch: float = 4.0,
    latencies_ms: Sequence[float] = (50.0,),
    steps: int = 80,
) -> dict[str, str]:
    """Give the series of one Triton pod under a steady load, from its first scrape on."""
    grows = {
        "nv_inference_request_success": rate,
        "nv_inference_count": rate,
        "nv_inference_exec_count": rate / batch,
        "nv_inference_queue_duration_us": rate * queue_ms * 1000,
        "nv_inference_request_duration_us": rate * float(np.mean(latencies_ms)) * 1000,
    }
    series = {tower(metric, pod=name): counter(each, steps) for metric, each in grows.items()}
    for reason, each in (("OTHER", failed), ("REJECTED", rejected), ("BACKEND", 0.0)):
        series[tower("nv_inference_request_failure", pod=name, reason=reason)] = counter(
            each, steps
        )
    series[named("up", pod=name)] = steady(1, steps)
    return series | histogram(name, rate, latencies_ms, steps)


def buckets_ms() -> list[int]:
    """Give the edges of the latency histogram that the chart's values have."""
    edges: list[int] = yaml.safe_load((CHART / "values.yaml").read_text())["triton"][
        "latencyBucketsMs"
    ]
    return edges


def histogram(name: str, rate: float, latencies_ms: Sequence[float], steps: int) -> dict[str, str]:
    """Give the histogram of a pod whose latencies are spread as these are."""
    metric = "nv_inference_first_response_histogram_ms"
    waited = np.asarray(latencies_ms)
    series = {}
    for edge in [*buckets_ms(), np.inf]:
        below = rate * float((waited <= edge).mean())
        le = "+Inf" if edge == np.inf else str(edge)
        series[tower(f"{metric}_bucket", pod=name, le=le)] = counter(below, steps)
    return series | {tower(f"{metric}_count", pod=name): counter(rate, steps)}


def scraped(pages: Sequence[str], metric: str) -> dict[str, str]:
    """Return the series of a metric that a Triton's pages of metrics have, one page a scrape."""
    samples: dict[str, list[str]] = {}
    for page in pages:
        for labels, value in re.findall(rf"^{metric}{{(.*)}} (\S+)$", page, re.MULTILINE):
            series = named(metric, **dict(re.findall(r'(\w+)="([^"]*)"', labels)))
            samples.setdefault(series, []).append(value)
    return {series: " ".join(values) for series, values in samples.items()}


def between(expr: str, low: float, high: float) -> str:
    """Write a question that is answered 1 where one series lies between two bounds."""
    return f"count(({expr}) >= {low:g} <= {high:g}) or vector(0)"


def firing(alert: str) -> str:
    """Write a question for the number of alarms of a name that are firing."""
    return f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'


def present(expr: str) -> str:
    """Write a question for the number of series."""
    return f"count({expr}) or vector(0)"
