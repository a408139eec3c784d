"""What the HorizontalPodAutoscaler wants of its metrics, as Kubernetes' replica calculator has it.

Amounts are in thousandths, as the metrics APIs carry them. How fast the wish comes true is not
known here: see `behavior`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Tolerance:
    """How far a ratio may be from 1 before anything is done, for each direction."""

    up: float = 0.1
    down: float = 0.1

    def holds(self, ratio: float) -> bool:
        """Tell whether a ratio is near enough to 1."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class Pods:
    """The pods of the target as the controller sees them.

    Attributes:
        spec: replicas that the scale asks for.
        status: replicas that exist, starting ones included.
        ready: running and ready.
    """

    spec: int
    status: int
    ready: int


@dataclass(frozen=True)
class PodValues:
    """A metric of pods, summed.

    Attributes:
        total_milli: of the pods that have the metric.
        measured: how many have it.
        missing: how many run without it.
        unready: how many are pending.
    """

    total_milli: int
    measured: int
    missing: int = 0
    unready: int = 0


class Metric(Protocol):
    """One metric of the scaler: it wants a number of pods, or None while it is unknown."""

    def wish(self, pods: Pods, tolerance: Tolerance) -> int | None:
        """Give the pods that this metric wants."""
        ...


@dataclass(frozen=True)
class PodsMetric:
    """A metric of type Pods: the average over the pods is held at `target_milli`.

    Attributes:
        values: None while the metric is unknown.
        target_milli: the average to hold.
        missing_low_milli: what a pod without the metric counts as when the others want fewer pods:
            the target, or for a Resource metric the whole request.
    """

    values: PodValues | None
    target_milli: int
    missing_low_milli: int | None = None

    def wish(self, pods: Pods, tolerance: Tolerance) -> int | None:
        """Give the pods that this metric wants."""
        values = self.values
        if values is None or not values.measured:
            return None
        ratio = self._ratio(values.total_milli, values.measured)
        unready = values.unready if ratio > 1 else 0
        if not unready and not values.missing:
            return pods.spec if tolerance.holds(ratio) else math.ceil(ratio * values.measured)
        return self._careful(values, ratio, unready, pods, tolerance)

    def _careful(
        self, values: PodValues, ratio: float, unready: int, pods: Pods, tolerance: Tolerance
    ) -> int:
        """Count pods without a metric such that they dampen the change, and never turn it round."""
        low = self.target_milli if self.missing_low_milli is None else self.missing_low_milli
        total = values.total_milli + (values.missing * low if ratio < 1 else 0)
        count = values.measured + values.missing + unready
        again = self._ratio(total, count)
        turned = (ratio < 1 < again) or (again < 1 < ratio)
        if tolerance.holds(again) or turned:
            return pods.spec
        wanted = math.ceil(again * count)
        against = (again < 1 and wanted > pods.spec) or (again > 1 and wanted < pods.spec)
        return pods.spec if against else wanted

    def _ratio(self, total_milli: int, count: int) -> float:
        return (total_milli // count) / self.target_milli


def resource_metric(percents: Sequence[int], target: int, missing: int, unready: int) -> PodsMetric:
    """Give a metric of type Resource with the target type Utilization.

    Args:
        percents: use of the request, a pod.
        target: percent to hold.
        missing: pods without the metric; they count as 100 percent when the others want fewer pods.
        unready: pods that are not ready.
    """
    values = PodValues(sum(percents), len(percents), missing, unready)
    return PodsMetric(values, target, missing_low_milli=max(100, target))


@dataclass(frozen=True)
class ExternalValue:
    """A metric of type External with a target Value: it is not shared out among the pods.

    The ratio is applied to the ready pods, so what is starting does not count twice.
    """

    value_milli: int | None
    target_milli: int

    def wish(self, pods: Pods, tolerance: Tolerance) -> int | None:
        """Give the pods that this metric wants."""
        if self.value_milli is None:
            return None
        ratio = self.value_milli / self.target_milli
        if pods.spec == 0:
            return math.ceil(ratio)
        return pods.spec if tolerance.holds(ratio) else math.ceil(ratio * pods.ready)


@dataclass(frozen=True)
class ExternalAverage:
    """A metric of type External with a target AverageValue: shared out among existing pods."""

    value_milli: int | None
    target_milli: int

    def wish(self, pods: Pods, tolerance: Tolerance) -> int | None:
        """Give the pods that this metric wants."""
        if self.value_milli is None or not pods.status:
            return None
        ratio = self.value_milli / (self.target_milli * pods.status)
        if tolerance.holds(ratio):
            return pods.status
        return math.ceil(self.value_milli / self.target_milli)


def wanted(metrics: Sequence[Metric], pods: Pods, tolerance: Tolerance) -> int | None:
    """Give the largest wish over the metrics, or None where the controller would do nothing.

    It does nothing when every metric is unknown, and when one is and the others want fewer pods.
    """
    wishes = [metric.wish(pods, tolerance) for metric in metrics]
    known = [wish for wish in wishes if wish is not None]
    if not known or (len(known) < len(wishes) and max(known) < pods.spec):
        return None
    return max(known)
