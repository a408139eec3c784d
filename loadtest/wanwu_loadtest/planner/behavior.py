"""How fast a HorizontalPodAutoscaler follows its wish: stabilisation windows and policies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from wanwu_loadtest.planner.hpa import Metric, Pods, Tolerance, wanted


class Kind(str, Enum):
    """What a policy counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class Select(str, Enum):
    """Which of several policies counts: the one that allows most, or least; or no change at all."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True)
class Policy:
    """At most `value` pods, or percent of them, in `period_s` seconds."""

    kind: Kind
    value: int
    period_s: int


@dataclass(frozen=True)
class Rules:
    """One direction: what may change, and for how long it must have been wanted."""

    policies: tuple[Policy, ...]
    stabilization_s: int = 0
    select: Select = Select.MAX


@dataclass(frozen=True)
class Behavior:
    """Both directions; without arguments what Kubernetes does without a behavior."""

    up: Rules = Rules((Policy(Kind.PERCENT, 100, 15), Policy(Kind.PODS, 4, 15)))
    down: Rules = Rules((Policy(Kind.PERCENT, 100, 15),), stabilization_s=300)
    tolerance: Tolerance = field(default_factory=Tolerance)


@dataclass
class Autoscaler:
    """The controller of one target. It remembers recommendations and what it changed.

    Attributes:
        minimum: least replicas.
        maximum: most replicas.
        behavior: how fast they change.
    """

    minimum: int
    maximum: int
    behavior: Behavior = field(default_factory=Behavior)
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _added: list[tuple[float, int]] = field(default_factory=list)
    _removed: list[tuple[float, int]] = field(default_factory=list)

    def sync(self, now_s: float, metrics: Sequence[Metric], pods: Pods) -> int:
        """Give the replicas from now on: one round of the controller."""
        if not self._recommended:
            self._recommended.append((now_s, pods.spec))
        if not self.minimum <= pods.spec <= self.maximum:
            desired = min(max(pods.spec, self.minimum), self.maximum)
        else:
            wish = wanted(metrics, pods, self.behavior.tolerance)
            desired = pods.spec if wish is None else self.follow(now_s, wish, pods.spec)
        self._note_change(now_s, desired - pods.spec)
        return desired

    def follow(self, now_s: float, wish: int, current: int) -> int:
        """Give how far a wish comes true now."""
        desired = self._stabilized(now_s, wish, current)
        if desired > current:
            limit = max(current, self._limit(now_s, current, self.behavior.up, 1))
            return min(desired, self.maximum, limit)
        if desired < current:
            limit = min(current, self._limit(now_s, current, self.behavior.down, -1))
            return max(desired, self.minimum, limit)
        return desired

    def _stabilized(self, now_s: float, wish: int, current: int) -> int:
        """Go up by the least, and down by the most, that was wanted within the windows."""
        windows = self.behavior.up.stabilization_s, self.behavior.down.stabilization_s
        up = min([wish, *_since(self._recommended, now_s - windows[0])])
        down = max([wish, *_since(self._recommended, now_s - windows[1])])
        oldest = now_s - max(windows)
        self._recommended = [each for each in self._recommended if each[0] >= oldest]
        self._recommended.append((now_s, wish))
        return min(max(current, up), down)

    def _limit(self, now_s: float, current: int, rules: Rules, sign: int) -> int:
        """Give how far the policies of a direction let it go: `sign` is 1 up, -1 down."""
        if rules.select is Select.DISABLED:
            return current
        limits = []
        for policy in rules.policies:
            start = self._at_start(now_s, policy, current)
            if policy.kind is Kind.PODS:
                limits.append(start + sign * policy.value)
            else:
                share = start * (1 + sign * policy.value / 100)
                limits.append(math.ceil(share) if sign > 0 else int(share))
        # The largest change is the highest limit up, and the lowest down.
        lowest = (rules.select is Select.MIN) == (sign > 0)
        return min(limits) if lowest else max(limits)

    def _at_start(self, now_s: float, policy: Policy, current: int) -> int:
        """Give the replicas that there were when the policy's period began."""
        cutoff = now_s - policy.period_s
        return current - sum(_since(self._added, cutoff)) + sum(_since(self._removed, cutoff))

    def _note_change(self, now_s: float, change: int) -> None:
        rules = (*self.behavior.up.policies, *self.behavior.down.policies)
        oldest = now_s - max((each.period_s for each in rules), default=0)
        self._added = [each for each in self._added if each[0] > oldest]
        self._removed = [each for each in self._removed if each[0] > oldest]
        if change:
            (self._added if change > 0 else self._removed).append((now_s, abs(change)))


def _since(events: list[tuple[float, int]], cutoff_s: float) -> list[int]:
    return [value for at_s, value in events if at_s > cutoff_s]
