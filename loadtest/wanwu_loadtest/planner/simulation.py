"""A day of traffic over the fleet, with the scaler that the chart's values describe."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wanwu_loadtest.planner.behavior import Autoscaler
from wanwu_loadtest.planner.fleet import Fleet, Tick, Timing
from wanwu_loadtest.planner.hpa import Pods
from wanwu_loadtest.planner.signals import Prometheus, chart_metrics
from wanwu_loadtest.planner.surface import PROBABILITIES, Surface
from wanwu_loadtest.planner.traffic import Traffic
from wanwu_loadtest.planner.values import SYNC_S, ChartValues

Floats = NDArray[np.float64]
COLUMNS = (
    *("at_s", "arrived", "answered", "rejected", "waiting", "desired", "ready", "existing"),
    *("p95_ms", "seen_p95_ms", "queue_ms", "gpu"),
)


@dataclass(frozen=True)
class Faults:
    """What goes wrong, in seconds since the first row of traffic.

    Attributes:
        lost_node_s: when the pods of a node vanish.
        pods_per_node: how many these are.
        slow_pod_s: when one pod becomes slow.
        slow_speed: of what it could do.
        blind_s: from when until when Prometheus cannot be asked.
    """

    lost_node_s: float | None = None
    pods_per_node: int = 1
    slow_pod_s: float | None = None
    slow_speed: float = 0.25
    blind_s: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scenario:
    """What is simulated beside the traffic.

    Attributes:
        values: the chart's.
        start_replicas: pods that are ready at first.
        pod_start_s: seconds until a new pod is ready.
        tick_s: seconds of a step, 1 to 5.
        faults: what goes wrong.
    """

    values: ChartValues
    start_replicas: int
    pod_start_s: float
    tick_s: float = 5.0
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True)
class Outcome:
    """Each tick of a simulation, by the names in COLUMNS.

    `p95_ms` is what callers wait, NaN while none is answered; `seen_p95_ms`, `queue_ms` and `gpu`
    are what the scaler sees, NaN while it sees nothing. Pictures are counted a tick.
    """

    tick_s: float
    columns: dict[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        return self.columns[name]

    @property
    def rejected_share(self) -> float:
        """Refused pictures among those that arrived."""
        arrived = float(self["arrived"].sum())
        return float(self["rejected"].sum()) / arrived if arrived else 0.0

    @property
    def pod_hours(self) -> float:
        """Hours that pods existed, starting and draining included."""
        return float(self["existing"].sum()) * self.tick_s / 3600

    def kept_share(self, p95_ms: float) -> float:
        """Give the share of the time with answers in which their P95 was within a limit."""
        times = self["p95_ms"][~np.isnan(self["p95_ms"])]
        return float((times <= p95_ms).mean()) if len(times) else 1.0


def simulate(surface: Surface, traffic: Traffic, scenario: Scenario) -> Outcome:
    """Let a traffic pass over the fleet."""
    day = _Day(surface, scenario)
    ticks = math.ceil(traffic.length_s / scenario.tick_s)
    edges = np.minimum(np.arange(ticks + 1) * scenario.tick_s, traffic.length_s)
    arrived = np.diff(traffic.arrived(edges)).tolist()
    rows = [day.step(number * scenario.tick_s, each) for number, each in enumerate(arrived)]
    table = np.array(rows, dtype=float)
    return Outcome(scenario.tick_s, {name: table[:, i] for i, name in enumerate(COLUMNS)})


class _Day:
    def __init__(self, surface: Surface, scenario: Scenario) -> None:
        values = scenario.values
        drain_s = float(values.pre_stop_s + values.exit_timeout_s)
        self.scenario = scenario
        self.values = values
        self.overhead_s = surface.pod.overhead_s
        timing = Timing(scenario.pod_start_s, drain_s=drain_s)
        self.fleet = Fleet(surface, timing, scenario.start_replicas)
        self.prometheus = Prometheus(values)
        self.scaler: Autoscaler | None = None
        if values.driver != "none":
            self.scaler = Autoscaler(values.min_replicas, values.max_replicas, values.behavior)
        # The three clocks are not in step: what is scraped is recorded, and then looked at.
        self.scrape = _Every(values.scrape_interval_s, values.scrape_interval_s)
        self.record = _Every(values.scrape_interval_s, values.scrape_interval_s * 4 / 3)
        self.sync = _Every(SYNC_S, SYNC_S * 2 / 3)
        faults = scenario.faults
        self.lost_node = _Once(faults.lost_node_s)
        self.slow_pod = _Once(faults.slow_pod_s)

    def step(self, now_s: float, arrived: float) -> tuple[float, ...]:
        """Take one tick, and give its row of COLUMNS."""
        lost = self._break(now_s)
        if self.sync.due(now_s) and self.scaler:
            self._scale(now_s, self.scaler)
        tick = self.fleet.tick(now_s, self.scenario.tick_s, arrived)
        tick.rejected += lost
        self._observe(now_s + self.scenario.tick_s, tick)
        return self._row(now_s, arrived, tick)

    def _break(self, now_s: float) -> float:
        faults = self.scenario.faults
        if self.slow_pod.due(now_s):
            self.fleet.slow(1, faults.slow_speed)
        return self.fleet.lose(faults.pods_per_node, now_s) if self.lost_node.due(now_s) else 0.0

    def _blind(self, now_s: float) -> bool:
        blind = self.scenario.faults.blind_s
        return blind is not None and blind[0] <= now_s < blind[1]

    def _scale(self, now_s: float, scaler: Autoscaler) -> None:
        fleet, ready = self.fleet, self.fleet.ready(now_s)
        recorded = None if self._blind(now_s) else self.prometheus.recorded
        metrics = chart_metrics(
            self.values,
            recorded,
            status=fleet.status,
            ready=ready,
            pending=fleet.pending(now_s),
        )
        wanted = scaler.sync(now_s, metrics, Pods(fleet.replicas, fleet.status, ready))
        if wanted != fleet.replicas:
            fleet.scale(wanted, now_s)

    def _observe(self, now_s: float, tick: Tick) -> None:
        prometheus = self.prometheus
        for each in tick.served:
            below = np.interp(prometheus.edges_s, each.quantiles_s, PROBABILITIES, left=0.0)
            prometheus.count(
                each.cohort, below * each.pictures, each.pictures, each.queue_s * each.pictures
            )
        blind = self._blind(now_s)
        if self.scrape.due(now_s) and not blind:
            pods = self.fleet.scraped(now_s)
            ready = sum(pods.values())
            prometheus.scrape(now_s, tick.gpu / ready if ready else 0.0, pods)
        if self.record.due(now_s) and not blind:
            prometheus.record(now_s)

    def _row(self, now_s: float, arrived: float, tick: Tick) -> tuple[float, ...]:
        fleet, seen = self.fleet, self.prometheus.recorded
        nan = float("nan")
        signals = (seen.p95_ms, seen.queue_ms, seen.gpu) if seen else (nan, nan, nan)
        return (
            *(now_s, arrived, tick.answered, tick.rejected, fleet.waiting),
            *(fleet.replicas, fleet.ready(now_s), fleet.existing),
            *((tick.p95_s() + self.overhead_s) * 1000, *signals),
        )


class _Every:
    """A clock that is due each so many seconds."""

    def __init__(self, period_s: float, first_s: float) -> None:
        self.period_s, self.next_s = period_s, first_s

    def due(self, now_s: float) -> bool:
        if now_s < self.next_s:
            return False
        while self.next_s <= now_s:
            self.next_s += self.period_s
        return True


class _Once:
    """A moment that comes once, or never."""

    def __init__(self, at_s: float | None) -> None:
        self.at_s = at_s

    def due(self, now_s: float) -> bool:
        if self.at_s is None or now_s < self.at_s:
            return False
        self.at_s = None
        return True
