"""A pod under a steady load, request by request: Triton's dynamic batcher in SimPy.

It follows `GetDynamicBatch` of Triton's dynamic_batch_scheduler.cc, for a queue with a limit or a
timeout, as the chart sets: then a batch is formed only when an instance is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from wanwu_loadtest.planner.pod import PodModel

Floats = NDArray[np.float64]
#: Draws so many factors, of mean 1, by which executions are longer than their mean.
Noise = Callable[[np.random.Generator, int], Floats]
Steps = Generator[Any, None, None]

#: Share of the requests that only fill the pod.
WARM_UP = 0.1
_ROUNDING_S = 1e-9


@dataclass(frozen=True)
class Run:
    """What a simulated load did to a pod.

    Attributes:
        latency_s: seconds of each answered request, queue and execution.
        queue_s: seconds of each in the queue.
        utilization: mean share of the instances that ran, 0 to 1.
        busy: share of the time in which any instance ran, as a GPU's utilisation counts, 0 to 1.
        arrived: requests.
        rejected: requests refused by a full queue, or too long in it.
        mean_batch: pictures of an execution.
    """

    latency_s: Floats
    queue_s: Floats
    utilization: float
    busy: float
    arrived: int
    rejected: int
    mean_batch: float

    def percentile_ms(self, percent: float) -> float:
        """Give a percentile of the latency, milliseconds."""
        return float(np.percentile(self.latency_s, percent)) * 1000


def run_pod(
    pod: PodModel,
    rate: float,
    *,
    requests: int = 20_000,
    poisson: bool = True,
    noise: Noise | None = None,
    seed: int = 0,
) -> Run:
    """Load a pod.

    Args:
        pod: the pod.
        rate: pictures per second.
        requests: how many arrive.
        poisson: whether they arrive by chance; else evenly.
        noise: by default lognormal with the pod's `cv`.
        seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    mean_gap = pod.pictures_per_request / rate
    gaps = rng.exponential(mean_gap, requests) if poisson else np.full(requests, mean_gap)
    sizes = _request_sizes(rng, pod.pictures_per_request, requests)
    factors = (noise or _lognormal(pod.cv))(rng, requests)
    triton = _Triton(pod, simpy.Environment(), factors)
    triton.env.process(triton.receive(gaps.tolist(), sizes))
    triton.env.process(triton.batch())
    triton.env.run()
    return triton.observed(gaps)


def _request_sizes(rng: np.random.Generator, mean: float, count: int) -> list[int]:
    whole = int(mean)
    larger = rng.random(count) < mean - whole
    return [whole + int(each) for each in larger]


def _lognormal(cv: float) -> Noise:
    variance = float(np.log1p(cv * cv))
    return lambda rng, count: rng.lognormal(-variance / 2, variance**0.5, count)


@dataclass
class _Triton:
    pod: PodModel
    env: simpy.Environment
    factors: Floats
    queue: deque[tuple[float, int]] = field(default_factory=deque)
    rejected: int = 0
    answered: list[tuple[float, float, float]] = field(default_factory=list)
    executions: list[tuple[float, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = self.pod.instances
        self.changed = self.env.event()
        self.preferred = frozenset(self.pod.preferred or (self.pod.max_batch,))
        self.largest = max(self.preferred)

    def receive(self, gaps: list[float], sizes: list[int]) -> Steps:
        limit = self.pod.max_queue
        for gap, size in zip(gaps, sizes, strict=True):
            yield self.env.timeout(gap)
            if limit and len(self.queue) >= limit:
                self.rejected += 1
            else:
                self.queue.append((self.env.now, size))
                self.wake()

    def wake(self, _event: object = None) -> None:
        if self.free and self.queue and not self.changed.triggered:
            self.changed.succeed()

    def batch(self) -> Steps:
        while True:
            self._expire()
            if self.free and self.queue:
                count, wait_s = self._choose()
                if count:
                    self._start([self.queue.popleft() for _ in range(count)])
                    continue
                timer = self.env.timeout(wait_s)
                timer.callbacks.append(self.wake)
            self.changed = self.env.event()
            yield self.changed

    def _expire(self) -> None:
        oldest = self.env.now - self.pod.timeout_s
        while self.pod.timeout_s and self.queue and self.queue[0][0] < oldest:
            self.queue.popleft()
            self.rejected += 1

    def _choose(self) -> tuple[int, float]:
        """Give how many requests to run now; if none, how long to wait for more, seconds."""
        pictures = count = best = 0
        full = False
        for _, size in self.queue:
            if count and pictures + size > self.largest and not best:
                best = count
            if count and pictures + size > self.pod.max_batch:
                full = True
                break
            pictures += size
            count += 1
            if pictures in self.preferred:
                best = count
        waited_s = self.env.now - self.queue[0][0]
        left_s = self.pod.delay_s - waited_s
        late = self.pod.delay_s > 0 and left_s <= _ROUNDING_S
        if best and not late:
            return best, 0.0
        if full or late or pictures >= self.largest or self.pod.delay_s == 0:
            # Once the oldest has waited its time, preferred sizes no longer count.
            return count, 0.0
        return 0, left_s

    def _start(self, requests: list[tuple[float, int]]) -> None:
        self.free -= 1
        pictures = min(sum(size for _, size in requests), self.pod.max_batch)
        factor = float(self.factors[len(self.executions) % len(self.factors)])
        seconds = self.pod.execution_s[pictures - 1] * factor
        self.executions.append((self.env.now, self.env.now + seconds, pictures))
        for arrived, _ in requests:
            self.answered.append((arrived, self.env.now, self.env.now + seconds))
        self.env.timeout(seconds).callbacks.append(self._end)

    def _end(self, _event: object) -> None:
        self.free += 1
        self.wake()

    def observed(self, gaps: Floats) -> Run:
        """Leave out the warm-up, and the emptying after the last arrival."""
        begin, end = float(gaps.sum()) * WARM_UP, float(gaps.sum())
        times = np.array(self.answered)
        times = times[times[:, 0] >= begin]
        runs = np.array(self.executions)
        starts, ends = np.clip(runs[:, 0], begin, end), np.clip(runs[:, 1], begin, end)
        length = end - begin
        return Run(
            latency_s=times[:, 2] - times[:, 0],
            queue_s=times[:, 1] - times[:, 0],
            utilization=float((ends - starts).sum()) / length / self.pod.instances,
            busy=_covered(starts, ends) / length,
            arrived=len(gaps),
            rejected=self.rejected,
            mean_batch=float(runs[:, 2].mean()),
        )


def _covered(starts: Floats, ends: Floats) -> float:
    """Give the length of the union of intervals that are sorted by their starts."""
    before = np.concatenate([[-np.inf], np.maximum.accumulate(ends)[:-1]])
    return float(np.maximum(0.0, ends - np.maximum(starts, before)).sum())
