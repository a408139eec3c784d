"""The planner's answer to one question, from a load test, a traffic and the chart's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wanwu.errors import InputError
from wanwu_loadtest.planner.capacity import Plan, Price, make_plan
from wanwu_loadtest.planner.pod import PodModel, pod_model
from wanwu_loadtest.planner.simulation import Faults, Outcome, Scenario, simulate
from wanwu_loadtest.planner.surface import Surface, make_surface
from wanwu_loadtest.planner.sweep import Sweep, sweep
from wanwu_loadtest.planner.traffic import Traffic
from wanwu_loadtest.planner.values import ChartValues
from wanwu_loadtest.results import Results


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        results: of a load test of one pod.
        traffic: to plan for.
        values: the chart's.
        p95_ms: that callers shall see.
        pods_per_node: pods that a lost node takes away.
        price: None when no cost is wanted.
        pod_start_s: seconds until a new pod is ready; by default what the results' options have
            under that name, else the chart's limit, `triton.startupSeconds`.
        service_cv: standard deviation of an execution over its mean; None for the results' own.
        poisson: whether requests arrive by chance; else evenly.
        tick_s: seconds of a step.
        faults: what goes wrong.
    """

    results: Results
    traffic: Traffic
    values: ChartValues
    p95_ms: float
    pods_per_node: int = 1
    price: Price | None = None
    pod_start_s: float | None = None
    service_cv: float | None = None
    poisson: bool = True
    tick_s: float = 5.0
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        question: that was asked.
        scenario: that was simulated.
        surface: how the pod answers at every load.
        plan: pods of each hour.
        outcome: of the simulated scaler.
    """

    question: Question
    scenario: Scenario
    surface: Surface
    plan: Plan
    outcome: Outcome

    @property
    def kept_share(self) -> float:
        """Share of the time in which callers saw the P95 that was asked for."""
        return self.outcome.kept_share(self.question.p95_ms)

    @property
    def cost(self) -> float | None:
        """Of the simulated pods; None without a price."""
        price = self.question.price
        return price.of(self.outcome.pod_hours, self.scenario.values.gpus) if price else None

    @property
    def knee_rate(self) -> float | None:
        """Pictures per second that the load test found the server to keep up with, if it did."""
        return _knee_rate(self.question, self.surface.pod)

    def sweep(self, progress: Callable[[int], None] | None = None) -> Sweep:
        """Try other targets, with as many pods as they may need."""
        values = self.scenario.values
        most = max(values.max_replicas, round(1.5 * self.plan.peak_replicas) + 1)
        scenario = replace(self.scenario, values=replace(values, max_replicas=most))
        return sweep(
            self.surface,
            self.question.traffic,
            scenario,
            self.question.p95_ms,
            progress=progress,
        )


def answer(question: Question) -> Answer:
    """Measure the pod by its model, plan the hours, and simulate the scaler.

    Raises:
        InputError: the question cannot be answered; the message says what to change.
    """
    if question.p95_ms <= 0:
        raise InputError("--p95-ms is {0}; expected more than 0", f"{question.p95_ms:g}")
    total = question.results.total
    if question.results.knee is None and total.errors:
        raise InputError(
            "{0} of the load's {1} requests failed, and no rate was kept up with; measure again "
            "from a low rate on: wanwu loadtest --shape steps",
            total.errors,
            total.sent,
        )
    values = question.values
    pod = pod_model(question.results, values, question.service_cv)
    surface = make_surface(pod, poisson=question.poisson)
    plan = make_plan(
        surface,
        question.traffic,
        values,
        p95_ms=question.p95_ms,
        pods_per_node=question.pods_per_node,
        price=question.price,
        knee=_knee_rate(question, pod),
    )
    scenario = Scenario(
        values=values,
        start_replicas=_first_replicas(plan, question),
        pod_start_s=_pod_start_s(question),
        tick_s=question.tick_s,
        faults=replace(question.faults, pods_per_node=question.pods_per_node),
    )
    outcome = simulate(surface, question.traffic, scenario)
    return Answer(question, scenario, surface, plan, outcome)


def _knee_rate(question: Question, pod: PodModel) -> float | None:
    """Give the measured knee, unless it was measured with another batching than is asked of."""
    other = any(path.startswith("triton.batching.") for path in question.values.given)
    knee = question.results.knee
    return knee.rate * pod.pictures_per_request if knee and not other else None


def _first_replicas(plan: Plan, question: Question) -> int:
    values = question.values
    if values.driver == "none":
        return values.replicas
    needed = plan.replicas_at(float(question.traffic.rates[0]))
    return min(max(needed, values.min_replicas), values.max_replicas)


def _pod_start_s(question: Question) -> float:
    if question.pod_start_s is not None:
        return question.pod_start_s
    measured = question.results.options.get("pod_start_s")
    if measured is None:
        return float(question.values.startup_s)
    try:
        return float(measured)
    except ValueError as error:
        raise InputError(
            "the results have the pod_start_s {0}; expected seconds: give --pod-start-s",
            repr(measured),
        ) from error
