"""The fleet from tick to tick: pods that start, serve and drain, and pictures that wait in them.

Pods that are alike are one cohort, so a fleet of ten thousand costs no more than one of ten.
Waiting is a fluid: what a pod cannot serve in a tick is its backlog, and what its queue cannot hold
is refused. How long a picture takes in a pod without a backlog is the surface's to tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from wanwu_loadtest.planner.surface import P95, PROBABILITIES, Surface

Floats = NDArray[np.float64]
_keys = count()


@dataclass(frozen=True)
class Timing:
    """How long the parts of a pod's life take, seconds.

    Attributes:
        start_s: from its creation until it is ready: pull, load, engines, warm-up.
        pending_s: of which its container does not run yet.
        found_s: from then until callers have looked its name up.
        drain_s: what it has to finish when it is told to end.
    """

    start_s: float
    pending_s: float = 10.0
    found_s: float = 15.0
    drain_s: float = 50.0


@dataclass
class Cohort:
    """Pods that are alike.

    Attributes:
        count: how many.
        created_s: when they were made.
        backlog: pictures that wait in each.
        speed: of each, 1 is what was measured.
        key: by which the counters of its pods are kept.
    """

    count: int
    created_s: float
    backlog: float = 0.0
    speed: float = 1.0
    key: int = field(default_factory=lambda: next(_keys))


@dataclass(frozen=True)
class Served:
    """What one cohort answered in a tick: so many pictures, their seconds, their queue."""

    cohort: int
    pictures: float
    quantiles_s: Floats
    queue_s: float


@dataclass
class Tick:
    """What happened in a tick. `gpu` is the sum of the utilisations of pods that are ready."""

    served: list[Served] = field(default_factory=list)
    rejected: float = 0.0
    gpu: float = 0.0

    @property
    def answered(self) -> float:
        """Pictures that were answered."""
        return sum(each.pictures for each in self.served)

    def p95_s(self) -> float:
        """Give the P95 of what was answered, seconds in the server; NaN for nothing."""
        served = [each for each in self.served if each.pictures > 0]
        if len(served) < 2:
            return float(served[0].quantiles_s[P95]) if served else float("nan")
        seconds = np.concatenate([each.quantiles_s for each in served])
        shares = np.diff(PROBABILITIES, prepend=0.0)
        weights = np.concatenate([each.pictures * shares for each in served])
        order = np.argsort(seconds)
        total = np.cumsum(weights[order])
        return float(seconds[order][np.searchsorted(total, 0.95 * total[-1])])


class Fleet:
    """Pods of one Deployment."""

    def __init__(self, surface: Surface, timing: Timing, replicas: int) -> None:
        """Begin with `replicas` pods that are ready."""
        self.replicas = replicas
        self.surface = surface
        self.timing = timing
        self.cohorts = [Cohort(replicas, -1e9)]
        self.draining: list[tuple[float, Cohort]] = []
        self._limit = surface.pod.queue_limit

    @property
    def status(self) -> int:
        """Pods that exist, those that start included, those that drain not."""
        return sum(each.count for each in self.cohorts)

    @property
    def existing(self) -> int:
        """Pods that hold a GPU."""
        return self.status + sum(each.count for _, each in self.draining)

    @property
    def waiting(self) -> float:
        """Pictures that wait."""
        alive = sum(each.count * each.backlog for each in self.cohorts)
        return alive + sum(each.count * each.backlog for _, each in self.draining)

    def ready(self, now_s: float) -> int:
        """Pods that are ready."""
        return self._older(now_s - self.timing.start_s)

    def scraped(self, now_s: float) -> dict[int, int]:
        """Return how many pods of each cohort, by its key, are ready and so have metrics."""
        created_s = now_s - self.timing.start_s
        return {each.key: each.count for each in self.cohorts if each.created_s <= created_s}

    def pending(self, now_s: float) -> int:
        """Pods whose container does not run yet."""
        return self.status - self._older(now_s - min(self.timing.pending_s, self.timing.start_s))

    def _older(self, created_s: float) -> int:
        return sum(each.count for each in self.cohorts if each.created_s <= created_s)

    def scale(self, replicas: int, now_s: float) -> None:
        """Have so many replicas: new ones start, and the youngest are told to end."""
        self.replicas = replicas
        if self.status > replicas:
            for each in self._take(self.status - replicas):
                if each.created_s <= now_s - self.timing.start_s:
                    self.draining.append((now_s + self.timing.drain_s, each))
        elif self.status < replicas:
            self.cohorts.append(Cohort(replicas - self.status, now_s))

    def lose(self, count: int, now_s: float) -> float:
        """Lose the oldest pods with their node, start others, and give the pictures lost."""
        lost = sum(each.count * each.backlog for each in self._take(count, oldest=True))
        self.scale(self.replicas, now_s)
        return lost

    def slow(self, count: int, speed: float) -> None:
        """Have some of the oldest pods work at another speed."""
        for each in self._take(count, oldest=True):
            each.speed = speed
            self.cohorts.append(each)

    def _take(self, count: int, *, oldest: bool = False) -> list[Cohort]:
        taken = []
        for each in sorted(self.cohorts, key=_created, reverse=not oldest):
            some = min(count, each.count)
            if some:
                taken.append(Cohort(some, each.created_s, each.backlog, each.speed))
            each.count -= some
            count -= some
        self.cohorts = [each for each in self.cohorts if each.count]
        return taken

    def tick(self, now_s: float, length_s: float, arrived: float) -> Tick:
        """Serve what arrives in the next `length_s` seconds, shared out evenly among the pods."""
        tick = Tick()
        found = now_s - self.timing.start_s - self.timing.found_s
        sharing = self._older(found)
        share = arrived / sharing if sharing else 0.0
        if not sharing:
            tick.rejected += arrived
        for each in self.cohorts:
            if each.created_s <= now_s - self.timing.start_s:
                self._serve(tick, each, share if each.created_s <= found else 0.0, length_s)
        self._drain(tick, now_s, length_s)
        if len(self.cohorts) > 1:
            self._merge(found)
        return tick

    def _serve(self, tick: Tick, pods: Cohort, share: float, length_s: float) -> None:
        rate = self.surface.capacity * pods.speed
        before = pods.backlog
        served = min(before + share, rate * length_s)
        left = before + share - served
        pods.backlog = min(left, self._limit)
        tick.rejected += (left - pods.backlog) * pods.count
        response = self.surface.at(served / length_s / pods.speed)
        tick.gpu += response.busy * pods.count
        if not served:
            return
        wait_s = (before + pods.backlog) / 2 / rate
        quantiles = response.quantiles_s
        if wait_s or pods.speed != 1.0:
            quantiles = quantiles / pods.speed + wait_s
        queue_s = response.queue_s / pods.speed + wait_s
        tick.served.append(Served(pods.key, served * pods.count, quantiles, queue_s))

    def _drain(self, tick: Tick, now_s: float, length_s: float) -> None:
        gpu = tick.gpu
        for until_s, each in self.draining:
            self._serve(tick, each, 0.0, length_s)
            if until_s <= now_s:
                tick.rejected += each.count * each.backlog
        tick.gpu = gpu  # a pod that ends is no longer scraped
        if self.draining:
            self.draining = [each for each in self.draining if each[0] > now_s]

    def _merge(self, found_s: float) -> None:
        """Make one cohort of those that have become alike."""
        alike: dict[tuple[float, float, float], Cohort] = {}
        for each in self.cohorts:
            age = 0.0 if each.created_s <= found_s else each.created_s
            key = (age, each.speed, round(each.backlog, 6))
            if key in alike:
                alike[key].count += each.count
            else:
                alike[key] = each
        self.cohorts = list(alike.values())


def _created(cohort: Cohort) -> float:
    return cohort.created_s
