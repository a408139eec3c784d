"""How many pods each hour needs, when their number could follow the traffic without delay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wanwu.errors import InputError
from wanwu_loadtest.planner.surface import Surface
from wanwu_loadtest.planner.traffic import Hour, Traffic
from wanwu_loadtest.planner.values import ChartValues

#: Share of its capacity that a pod is planned for: above it a small error of the model, or of the
#: traffic, makes a queue that does not end.
LARGEST_LOAD = 0.9


@dataclass(frozen=True)
class Price:
    """What an hour of a GPU costs, on CPU nodes of a pod."""

    per_hour: float
    currency: str

    def of(self, pod_hours: float, gpus: int) -> float:
        """Give the price of pods that have so many GPUs each."""
        return pod_hours * max(1, gpus) * self.per_hour


@dataclass(frozen=True)
class HourPlan:
    """Pods of an hour.

    Attributes:
        hour: of the clock.
        replicas: that keep the P95 at the hour's peak.
        with_spare: that still keep it without the pods of one node, and at least the chart's least.
        gpus: of `with_spare`.
        cost: of `with_spare`, None without a price.
    """

    hour: Hour
    replicas: int
    with_spare: int
    gpus: int
    cost: float | None


@dataclass(frozen=True)
class Plan:
    """Pods of every hour, and those of the largest one all the time.

    Attributes:
        p95_ms: that callers shall see.
        rate: pictures per second of a pod that keeps it.
        hours: in order.
        peak_replicas: `with_spare` of the largest hour.
        static_pod_hours: of as many pods all the time.
        static_cost: of these, None without a price.
    """

    p95_ms: float
    rate: float
    hours: list[HourPlan]
    peak_replicas: int
    static_pod_hours: float
    static_cost: float | None

    def replicas_at(self, rate: float) -> int:
        """Give the pods that keep the P95 at a rate."""
        # A rate that is a multiple of a pod's must not become one pod more by rounding.
        return max(1, math.ceil(rate / self.rate - 1e-9))


def make_plan(
    surface: Surface,
    traffic: Traffic,
    values: ChartValues,
    *,
    p95_ms: float,
    pods_per_node: int = 1,
    price: Price | None = None,
    knee: float | None = None,
) -> Plan:
    """Plan the pods of each hour.

    Args:
        surface: of a pod.
        traffic: to plan for.
        values: the chart's.
        p95_ms: that callers shall see.
        pods_per_node: pods that a lost node takes away.
        price: None when no cost is wanted.
        knee: pictures per second that a pod was measured to keep up with, the most it is given.

    Raises:
        InputError: no number of pods keeps the P95.
    """
    rate = min(surface.rate_within(p95_ms), LARGEST_LOAD * surface.capacity, knee or float("inf"))
    if rate <= 0:
        raise InputError(
            "no number of pods has a P95 of {0} ms; raise --p95-ms, or serve a faster model",
            f"{p95_ms:g}",
        )
    empty = Plan(p95_ms, rate, [], 0, 0.0, None)
    hours = []
    for hour in traffic.hours():
        replicas = empty.replicas_at(hour.peak)
        spare = max(values.min_replicas, replicas + pods_per_node)
        cost = price.of(spare * hour.seconds / 3600, values.gpus) if price else None
        hours.append(HourPlan(hour, replicas, spare, spare * values.gpus, cost))
    peak = max(each.with_spare for each in hours)
    pod_hours = peak * traffic.length_s / 3600
    cost = price.of(pod_hours, values.gpus) if price else None
    return Plan(p95_ms, rate, hours, peak, pod_hours, cost)
