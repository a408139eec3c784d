"""What Prometheus knows of the fleet, and when: scrapes, rate windows and the recording rules."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanwu_loadtest.planner.hpa import ExternalAverage, ExternalValue, Metric, PodsMetric, PodValues
from wanwu_loadtest.planner.values import ChartValues

Floats = NDArray[np.float64]
#: Share of its target that a P95 above it counts as while the queue is empty: pods may go.
IDLE = 0.5


@dataclass(frozen=True)
class Recorded:
    """One evaluation of the recording rules that the scaler reads.

    Attributes:
        p95_ms: `wanwu_scaling_p95_ms`: that of the pod in the middle, in the server, as
            `histogram_quantile` has it from the buckets, as far as the queue shows load.
        queue_ms: `wanwu_scaling_queue_ms`: mean of the pod in the middle.
        gpu: mean utilisation of the pods that are scraped, 0 to 1.
        measured: how many are scraped.
    """

    p95_ms: float
    queue_ms: float
    gpu: float
    measured: int


@dataclass(frozen=True)
class _Scrape:
    """Counters by cohort, and how many pods each has that is scraped."""

    at_s: float
    counters: dict[int, Floats]
    gpu: float
    pods: dict[int, int]


class Prometheus:
    """Counters of the fleet, what was scraped of them, and what was recorded last."""

    def __init__(self, values: ChartValues) -> None:
        self.recorded: Recorded | None = None
        self.edges_s: Floats = np.array(values.latency_buckets_ms, dtype=float) / 1000
        self._values = values
        self._nothing: Floats = np.zeros(len(self.edges_s) + 2)
        self._counters: dict[int, Floats] = {}
        self._scrapes: deque[_Scrape] = deque()

    def count(self, cohort: int, below: Floats, answered: float, queue_s: float) -> None:
        """Count answers.

        Args:
            cohort: key of the pods that answered.
            below: how many were at most as slow as each edge.
            answered: how many there were.
            queue_s: how long all of them waited together, seconds.
        """
        before = self._counters.get(cohort, self._nothing)
        self._counters[cohort] = before + np.append(below, (answered, queue_s))

    def scrape(self, now_s: float, gpu: float, pods: dict[int, int]) -> None:
        """Keep the counters of the pods that are scraped, and the mean utilisation of these."""
        self._counters = {key: self._counters.get(key, self._nothing) for key in pods}
        self._scrapes.append(_Scrape(now_s, dict(self._counters), gpu, pods))

    def record(self, now_s: float) -> None:
        """Evaluate the recording rules; without a scraped pod they give nothing."""
        while self._scrapes and self._scrapes[0].at_s <= now_s - self._values.window_s:
            self._scrapes.popleft()
        if not self._scrapes or not self._scrapes[-1].pods:
            self.recorded = None
            return
        last = self._scrapes[-1]
        p95_ms, queue_ms = self._middle_pod()
        self.recorded = Recorded(
            p95_ms=_with_load(p95_ms, queue_ms, self._values),
            queue_ms=queue_ms,
            gpu=sum(each.gpu for each in self._scrapes) / len(self._scrapes),
            measured=sum(last.pods.values()),
        )

    def _middle_pod(self) -> tuple[float, float]:
        """Return the medians over the pods that answered: their P95 and mean queue, ms."""
        first, last = self._scrapes[0], self._scrapes[-1]
        rows = []
        for key, pods in last.pods.items():
            row = last.counters[key] - first.counters.get(key, self._nothing)
            answered, queue_s = row[-2:].tolist()
            if answered > 0:
                p95_s = _quantile(0.95, self.edges_s, row[:-2], answered)
                rows.append((p95_s * 1000, queue_s / answered * 1000, pods))
        if not rows:
            return 0.0, 0.0
        p95_ms, queue_ms, counts = np.array(rows).T
        return _median(p95_ms, counts), _median(queue_ms, counts)


def _with_load(p95_ms: float, queue_ms: float, values: ChartValues) -> float:
    """Return the P95 as far as it counts: above its target only as far as the queue shows load."""
    if p95_ms <= values.p95_ms:
        return p95_ms
    return min(p95_ms, values.p95_ms * max(IDLE, queue_ms / values.load_ms))


def _median(values: Floats, counts: Floats) -> float:
    """Return the median where each value is there so many times."""
    order = np.argsort(values)
    ends = np.cumsum(counts[order])
    places = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
    return float(values[order][places].mean())


def _quantile(share: float, edges: Floats, below: Floats, count: float) -> float:
    """Do as Prometheus' `histogram_quantile`: linear in a bucket, and never above the last edge."""
    if count <= 0:
        return 0.0
    rank = share * count
    bucket = int(np.searchsorted(below, rank))
    if bucket == len(edges):
        return float(edges[-1])
    start, before = (edges[bucket - 1], below[bucket - 1]) if bucket else (0.0, 0.0)
    return float(start + (edges[bucket] - start) * (rank - before) / (below[bucket] - before))


def chart_metrics(
    values: ChartValues, recorded: Recorded | None, *, status: int, ready: int, pending: int
) -> list[Metric]:
    """Give the metrics of the chart's scaler, in the form that its driver has them.

    Args:
        values: the chart's.
        recorded: what Prometheus has; None is an outage.
        status: pods that exist.
        ready: pods that are ready.
        pending: pods whose containers do not run yet.
    """
    metrics: list[Metric] = []
    if values.profile == "gpu" and values.gpu_utilization:
        metrics.append(_gpu_metric(values, recorded, status, ready, pending))
    p95 = _milli(recorded.p95_ms) if recorded else None
    queue = _milli(recorded.queue_ms) if recorded else None
    metrics.append(ExternalValue(p95, _milli(values.p95_ms)))
    metrics.append(ExternalValue(queue, _milli(values.queue_ms)))
    return metrics


def _gpu_metric(
    values: ChartValues, recorded: Recorded | None, status: int, ready: int, pending: int
) -> Metric:
    target = _milli(values.gpu_utilization)
    measured = min(recorded.measured, ready) if recorded else 0
    total = _milli(recorded.gpu) * measured if recorded else 0
    if values.driver == "keda":
        return ExternalAverage(total if recorded else None, target)
    pods = PodValues(total, measured, missing=status - pending - measured, unready=pending)
    return PodsMetric(pods if recorded else None, target)


def _milli(value: float) -> int:
    return round(value * 1000)
