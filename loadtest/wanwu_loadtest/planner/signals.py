"""What Prometheus knows of the fleet, and when: scrapes, rate windows and the recording rules."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanwu_loadtest.planner.hpa import ExternalAverage, ExternalValue, Metric, PodsMetric, PodValues
from wanwu_loadtest.planner.values import ChartValues

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recorded:
    """One evaluation of the recording rules.

    Attributes:
        p95_ms: of all pods, in the server, as `histogram_quantile` tells it from the buckets.
        queue_ms: mean.
        gpu: mean utilisation of the pods that are scraped, 0 to 1.
        measured: how many are scraped.
    """

    p95_ms: float
    queue_ms: float
    gpu: float
    measured: int


@dataclass(frozen=True)
class _Scrape:
    at_s: float
    below: Floats
    answered: float
    queue_s: float
    gpu: float
    measured: int


class Prometheus:
    """Counters of the fleet, what was scraped of them, and what was recorded last."""

    def __init__(self, values: ChartValues) -> None:
        self.recorded: Recorded | None = None
        self.edges_s: Floats = np.array(values.latency_buckets_ms, dtype=float) / 1000
        self._window_s = values.window_s
        self._below: Floats = np.zeros(len(self.edges_s))
        self._answered = self._queue_s = 0.0
        self._scrapes: deque[_Scrape] = deque()

    def count(self, below: Floats, answered: float, queue_s: float) -> None:
        """Count answers.

        Args:
            below: how many were at most as slow as each edge.
            answered: how many there were.
            queue_s: how long all of them waited together, seconds.
        """
        self._below += below
        self._answered += answered
        self._queue_s += queue_s

    def scrape(self, now_s: float, gpu: float, measured: int) -> None:
        """Keep the counters as they are now, and the mean utilisation of the scraped pods."""
        self._scrapes.append(
            _Scrape(now_s, self._below.copy(), self._answered, self._queue_s, gpu, measured)
        )

    def record(self, now_s: float) -> None:
        """Evaluate the recording rules; without a scraped pod they give nothing."""
        while self._scrapes and self._scrapes[0].at_s <= now_s - self._window_s:
            self._scrapes.popleft()
        if not self._scrapes or not self._scrapes[-1].measured:
            self.recorded = None
            return
        first, last = self._scrapes[0], self._scrapes[-1]
        answered = last.answered - first.answered
        below = last.below - first.below
        self.recorded = Recorded(
            p95_ms=1000 * _quantile(0.95, self.edges_s, below, answered),
            queue_ms=1000 * (last.queue_s - first.queue_s) / answered if answered > 0 else 0.0,
            gpu=sum(each.gpu for each in self._scrapes) / len(self._scrapes),
            measured=last.measured,
        )


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
    if values.profile == "gpu":
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
