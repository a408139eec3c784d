"""Which targets of the scaler keep the P95 at the least cost, by simulating many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from wanwu_loadtest.planner.simulation import Outcome, Scenario, simulate
from wanwu_loadtest.planner.surface import Surface
from wanwu_loadtest.planner.traffic import Traffic
from wanwu_loadtest.planner.values import ChartValues

#: An objective is met when the P95 is kept in this share of the time ...
KEPT = 0.99
#: ... and no more than this share of the pictures is refused.
REJECTED = 0.001
#: Costs that differ by less are the same: a simulation knows no better.
SAME_COST = 0.02

GPU_TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
#: Of the objective.
P95_SHARES = (0.3, 0.5, 0.8)
QUEUE_TARGETS_MS = (5.0, 20.0, 50.0)
STABILIZATIONS_S = (60, 300, 900)
SCALE_UPS = ((50, 2), (100, 4), (200, 8))
#: Values that are tried, with their paths in the chart.
SWEPT = {
    "gpu_utilization": "autoscaling.gpuUtilization",
    "p95_ms": "autoscaling.p95Ms",
    "queue_ms": "autoscaling.queueMs",
    "scale_down_stabilization_s": "autoscaling.scaleDownStabilizationSeconds",
    "scale_up_percent": "autoscaling.scaleUpPercent",
    "scale_up_pods": "autoscaling.scaleUpPods",
}


@dataclass(frozen=True)
class Trial:
    """Values that were tried, and what came of them."""

    values: ChartValues
    kept_share: float
    rejected_share: float
    pod_hours: float

    @property
    def meets(self) -> bool:
        """Whether the objective was met."""
        return self.kept_share >= KEPT and self.rejected_share <= REJECTED


@dataclass(frozen=True)
class Finding:
    """What a sweep says of one of the chart's values: `best` is None where it is confirmed."""

    path: str
    chart: float
    best: float | None


@dataclass(frozen=True)
class Sweep:
    """All trials: first those that meet the objective, the cheapest first. `chart` is its own."""

    trials: list[Trial]
    chart: Trial

    @property
    def best(self) -> Trial | None:
        """The cheapest that meets the objective; the chart's own where it costs as much."""
        first = self.trials[0]
        if not first.meets:
            return None
        same = self.chart.meets and self.chart.pod_hours <= first.pod_hours * (1 + SAME_COST)
        return self.chart if same else first

    def findings(self) -> list[Finding]:
        """Say of each value whether the chart's is confirmed, or which is better."""
        best = self.best
        if best is None:
            return []
        found = []
        for name, path in SWEPT.items():
            if name == "gpu_utilization" and best.values.profile != "gpu":
                continue
            chart, other = getattr(self.chart.values, name), getattr(best.values, name)
            confirmed = chart == other or self._as_cheap(name, chart, best)
            found.append(Finding(path, chart, None if confirmed else other))
        return found

    def _as_cheap(self, name: str, value: Any, best: Trial) -> bool:
        """Tell whether some trial with this value meets the objective at the cost of the best."""
        return any(
            each.meets and each.pod_hours <= best.pod_hours * (1 + SAME_COST)
            for each in self.trials
            if getattr(each.values, name) == value
        )


def sweep(
    surface: Surface,
    traffic: Traffic,
    scenario: Scenario,
    p95_ms: float,
    *,
    progress: Callable[[int], None] | None = None,
) -> Sweep:
    """Try targets, and then windows and policies around the best and the chart's own targets.

    Args:
        surface: of a pod.
        traffic: that passes.
        scenario: whose values are the chart's.
        p95_ms: that callers shall see.
        progress: is told how many were tried.
    """
    done: dict[ChartValues, Trial] = {}

    def attempt(values: ChartValues) -> Trial:
        if values not in done:
            outcome = simulate(surface, traffic, replace(scenario, values=values))
            done[values] = _trial(values, outcome, p95_ms)
            if progress:
                progress(len(done))
        return done[values]

    chart = attempt(scenario.values)
    for values in _targets(scenario.values, p95_ms):
        attempt(values)
    start = {scenario.values, min(done.values(), key=_order).values}
    for values in start:
        for each in _speeds(values):
            attempt(each)
    return Sweep(sorted(done.values(), key=_order), chart)


def _trial(values: ChartValues, outcome: Outcome, p95_ms: float) -> Trial:
    return Trial(values, outcome.kept_share(p95_ms), outcome.rejected_share, outcome.pod_hours)


def _order(trial: Trial) -> tuple[bool, float, float]:
    """Put first what meets the objective, then by cost, or by how near it comes."""
    if trial.meets:
        return (False, trial.pod_hours, 0.0)
    return (True, trial.rejected_share - trial.kept_share, trial.pod_hours)


def _targets(chart: ChartValues, p95_ms: float) -> Iterator[ChartValues]:
    scaled = chart.profile == "gpu" and chart.gpu_utilization
    gpus = {chart.gpu_utilization, *GPU_TARGETS} if scaled else {chart.gpu_utilization}
    latencies = {chart.p95_ms, *(round(share * p95_ms) for share in P95_SHARES)}
    queues = {chart.queue_ms, *QUEUE_TARGETS_MS}
    for gpu, latency, queue in product(sorted(gpus), sorted(latencies), sorted(queues)):
        yield replace(chart, gpu_utilization=gpu, p95_ms=latency, queue_ms=queue)


def _speeds(values: ChartValues) -> Iterator[ChartValues]:
    own = (values.scale_up_percent, values.scale_up_pods)
    windows = {values.scale_down_stabilization_s, *STABILIZATIONS_S}
    for window, (percent, pods) in product(sorted(windows), sorted({own, *SCALE_UPS})):
        yield replace(
            values,
            scale_down_stabilization_s=window,
            scale_up_percent=percent,
            scale_up_pods=pods,
        )
