"""How a pod answers at every load: what the fleet's simulation looks up instead of each request."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanwu.errors import InputError
from wanwu_loadtest.planner.pod import PodModel
from wanwu_loadtest.planner.queue_model import run_pod

Floats = NDArray[np.float64]

#: Loads that are simulated, as shares of the capacity. At the last the queue is still stable.
LEVELS = (0.001, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.78, 0.85, 0.9, 0.94, 0.97)
#: Quantiles that are kept of the latencies.
PROBABILITIES = np.concatenate([np.linspace(0, 0.98, 99), [0.985, 0.99, 0.995, 0.999, 1.0]])
P95 = 95


@dataclass(frozen=True)
class Response:
    """A pod at one load: quantiles of the seconds in the server, mean queue, GPU utilisation."""

    quantiles_s: Floats
    queue_s: float
    busy: float


@dataclass(frozen=True)
class Surface:
    """Responses of a pod by load.

    Attributes:
        pod: of which pod.
        rates: pictures per second, rising from 0.
        quantiles_s: a row a rate, at PROBABILITIES: seconds in the server.
        queue_s: mean seconds in the queue.
        busy: share of the time in which the GPU works, 0 to 1.
        utilization: share of the instances that work, 0 to 1.
        rejected: share of the requests that are refused.
    """

    pod: PodModel
    rates: list[float]
    quantiles_s: Floats
    queue_s: list[float]
    busy: list[float]
    utilization: list[float]
    rejected: list[float]

    @property
    def capacity(self) -> float:
        """Pictures per second of a pod whose queue is never empty."""
        return self.pod.capacity

    def at(self, rate: float) -> Response:
        """Give the response at a rate; above the last one it is that of the last one."""
        row = bisect_right(self.rates, rate) - 1
        if row + 1 >= len(self.rates):
            return Response(self.quantiles_s[-1], self.queue_s[-1], self.busy[-1])
        share = (rate - self.rates[row]) / (self.rates[row + 1] - self.rates[row])
        low, high = self.quantiles_s[row], self.quantiles_s[row + 1]
        return Response(
            low + (high - low) * share,
            self.queue_s[row] + (self.queue_s[row + 1] - self.queue_s[row]) * share,
            self.busy[row] + (self.busy[row + 1] - self.busy[row]) * share,
        )

    def percentile_ms(self, rate: float, percent: float = 95.0) -> float:
        """Give a percentile of what a caller waits at a steady rate, milliseconds."""
        seconds = np.interp(percent / 100, PROBABILITIES, self.at(rate).quantiles_s)
        return (float(seconds) + self.pod.overhead_s) * 1000

    def rate_within(self, p95_ms: float) -> float:
        """Give the largest rate of a pod whose P95 is within a limit, pictures per second.

        Raises:
            InputError: an idle pod is already slower.
        """
        times = (self.quantiles_s[:, P95] + self.pod.overhead_s) * 1000
        if times[0] > p95_ms:
            raise InputError(
                "--p95-ms is {0} and the P95 of a pod that is nearly idle is {1} ms; allow more, "
                "measure again from a low rate on (wanwu loadtest --shape steps), or serve a "
                "faster model or on faster hardware",
                f"{p95_ms:g}",
                f"{times[0]:.0f}",
            )
        above = np.flatnonzero(times > p95_ms)
        if not len(above):
            return self.rates[-1]
        last = int(above[0]) - 1
        share = (p95_ms - times[last]) / (times[last + 1] - times[last])
        return float(self.rates[last] + share * (self.rates[last + 1] - self.rates[last]))


def make_surface(
    pod: PodModel, *, poisson: bool = True, requests: int = 20_000, seed: int = 0
) -> Surface:
    """Simulate a pod at loads from idle to nearly its capacity.

    Args:
        pod: the pod.
        poisson: whether requests arrive by chance; else evenly.
        requests: how many arrive at each load.
        seed: of all that is drawn, the same at each load, so that loads compare.
    """
    rates = [share * pod.capacity for share in LEVELS]
    runs = [run_pod(pod, each, requests=requests, poisson=poisson, seed=seed) for each in rates]
    quantiles = np.array([np.quantile(run.latency_s, PROBABILITIES) for run in runs])
    queue = [float(run.queue_s.mean()) for run in runs]
    return Surface(
        pod=pod,
        rates=[0.0, *rates],
        quantiles_s=np.vstack([quantiles[:1], quantiles]),
        queue_s=[queue[0], *queue],
        busy=[0.0, *(run.busy for run in runs)],
        utilization=[0.0, *(run.utilization for run in runs)],
        rejected=[0.0, *(run.rejected / run.arrived for run in runs)],
    )
