"""One Triton pod as a load test measured it: how it batches, and how long executions take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from wanwu.errors import InputError
from wanwu_loadtest.planner.values import ChartValues
from wanwu_loadtest.results import BatchTime, Results, Service, Window

T = TypeVar("T")
#: Standard deviations from the median to P95, of a normal distribution.
P95_DEVIATIONS = 1.645
#: The spread of executions where results do not show it.
UNKNOWN_SPREAD = 0.1
#: A mean over fewer executions than this is left out where there are better ones.
FEW = 10


@dataclass(frozen=True)
class PodModel:
    """What decides how long a picture takes in one pod.

    Attributes:
        execution_s: seconds of an execution of 1, 2, ... pictures, up to the largest batch.
        instances: executions that run at a time.
        preferred: batch sizes that are not waited on.
        delay_s: how long a batch may wait for more.
        max_queue: requests that may wait; 0 is no limit.
        timeout_s: how long a request may wait; 0 is no limit.
        pictures_per_request: mean.
        overhead_s: what a request takes beside queue and execution.
        cv: standard deviation of an execution over its mean.
        measured_batch: largest batch that was measured; larger ones are extrapolated.
    """

    execution_s: tuple[float, ...]
    instances: int = 1
    preferred: tuple[int, ...] = ()
    delay_s: float = 0.0
    max_queue: int = 0
    timeout_s: float = 0.0
    pictures_per_request: float = 1.0
    overhead_s: float = 0.0
    cv: float = 0.1
    measured_batch: int = 0

    @property
    def max_batch(self) -> int:
        """Most pictures in an execution."""
        return len(self.execution_s)

    @property
    def capacity(self) -> float:
        """Pictures per second of a pod whose queue is never empty."""
        most = self.max_batch
        if self.max_queue:
            most = min(most, round(self.max_queue * self.pictures_per_request))
        whole = max(1, int(most / self.pictures_per_request)) * self.pictures_per_request
        size = min(self.max_batch, max(1, round(whole)))
        return self.instances * size / self.execution_s[size - 1]

    @property
    def queue_limit(self) -> float:
        """Pictures that may wait in a pod before it refuses more."""
        limits = [float("inf")]
        if self.max_queue:
            limits.append(self.max_queue * self.pictures_per_request)
        if self.timeout_s:
            limits.append(self.timeout_s * self.capacity)
        return min(limits)


def pod_model(results: Results, values: ChartValues, cv: float | None = None) -> PodModel:
    """Give the pod that a load test measured; batching that a values file sets wins over it.

    Args:
        results: of a load test of one pod.
        values: the chart's.
        cv: standard deviation of an execution over its mean; by default the load test's.

    Raises:
        InputError: the results do not say how Triton served.
    """
    service = results.service
    if service is None or not service.batches:
        raise InputError(
            "the results hold no times of executions, since Triton could not be asked; "
            "run the load test again with Triton's own gRPC address within reach"
        )
    max_batch = _chosen(values, "maxBatchSize", values.largest_batch, service.max_batch_size)
    preferred = _chosen(
        values,
        "preferredBatchSizes",
        values.preferred_batch_sizes,
        tuple(service.preferred_batch_sizes),
    )
    sizes, seconds = _trusted(service)
    return PodModel(
        execution_s=tuple(_by_size(sizes, seconds, max(1, max_batch))),
        instances=max(1, service.instances),
        preferred=tuple(size for size in preferred if size <= max_batch),
        delay_s=_chosen(values, "queueDelayUs", values.queue_delay_us, service.queue_delay_us)
        / 1e6,
        max_queue=_chosen(values, "maxQueueSize", values.max_queue_size, service.max_queue_size),
        timeout_s=values.queue_timeout_us / 1e6,
        pictures_per_request=_pictures_per_request(results),
        overhead_s=_overhead_ms(results) / 1000,
        cv=_spread(results) if cv is None else cv,
        measured_batch=max(sizes),
    )


def _chosen(values: ChartValues, key: str, chart: T, measured: T) -> T:
    return chart if f"triton.batching.{key}" in values.given else measured


def _trusted(service: Service) -> tuple[list[int], list[float]]:
    """Give sizes and seconds; a larger batch takes no less time, whatever a rare one measured."""
    often = [each for each in service.batches if each.count >= FEW] or service.batches
    often = sorted(often, key=_size)
    seconds = np.maximum.accumulate([each.mean_ms / 1000 for each in often])
    if seconds[0] <= 0:
        raise InputError(
            "the results have executions of {0} ms; expected more than 0: measure again",
            f"{seconds[0] * 1000:g}",
        )
    return [each.size for each in often], seconds.tolist()


def _size(batch: BatchTime) -> int:
    return batch.size


def _by_size(sizes: list[int], seconds: list[float], max_batch: int) -> list[float]:
    """Interpolate between sizes; beyond the last one go on with its slope."""
    wanted = np.arange(1, max_batch + 1)
    times = np.interp(wanted, sizes, seconds)
    if len(sizes) > 1:
        slope = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
    else:
        slope = seconds[0] / sizes[0]  # one size tells no fixed part
    return [float(each) for each in times + slope * np.maximum(0, wanted - sizes[-1])]


def _lightest(results: Results) -> Window | None:
    """Give the answered window with the least load: there requests hardly wait."""
    windows = [
        each
        for each in (*results.windows, results.total)
        if each.latency and each.server and each.server.requests
    ]
    return min(windows, key=_planned_rate, default=None)


def _planned_rate(window: Window) -> float:
    return window.planned_rate


def _overhead_ms(results: Results) -> float:
    window = _lightest(results)
    if window is None or window.latency is None or window.server is None:
        return 0.0
    return max(0.0, window.latency.p50_ms - window.server.queue_ms - window.server.compute_ms)


def _spread(results: Results) -> float:
    """Give the spread of executions: that of calls under the least load, where none waits.

    Their P95 over their median is that of a lognormal.
    """
    window = _lightest(results)
    called = window and (window.call or window.latency)
    if window is None or window.server is None or not called:
        return UNKNOWN_SPREAD
    beside = max(0.0, called.mean_ms - window.server.request_ms)
    if called.p50_ms <= beside:
        return UNKNOWN_SPREAD
    sigma = math.log((called.p95_ms - beside) / (called.p50_ms - beside)) / P95_DEVIATIONS
    return math.sqrt(math.expm1(sigma**2))


def _pictures_per_request(results: Results) -> float:
    server = results.total.server
    if server and server.requests:
        return max(1.0, server.pictures / server.requests)
    answered = results.total.sent - results.total.errors
    return max(1.0, results.total.pictures / answered) if answered else 1.0
