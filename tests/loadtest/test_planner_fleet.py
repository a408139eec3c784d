from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest

from wanwu_loadtest.planner import (
    Faults,
    Outcome,
    PodModel,
    Scenario,
    Surface,
    Traffic,
    chart_values,
    make_surface,
    simulate,
)
from wanwu_loadtest.planner.fleet import Fleet, Timing

POD = PodModel(
    execution_s=tuple(0.004 + 0.0008 * size for size in range(1, 17)),
    delay_s=0.001,
    max_queue=64,
    timeout_s=10.0,
)
SCALED = {"driver": "prometheus-adapter", "maxReplicas": 20, "minReplicas": 2}


@pytest.fixture(scope="module")
def surface() -> Surface:
    return make_surface(POD, requests=3000)


def traffic(*rates: float, step_s: float = 1800) -> Traffic:
    times = np.arange(len(rates)) * step_s
    return Traffic(datetime(2026, 1, 1), False, times, np.array(rates, dtype=float))


def scenario(replicas: int = 2, faults: Faults | None = None, **autoscaling: object) -> Scenario:
    values = chart_values({"autoscaling": {**SCALED, **autoscaling}})
    return Scenario(values, replicas, pod_start_s=60, faults=faults or Faults())


def on_cpus(replicas: int, faults: Faults | None = None, **autoscaling: object) -> Scenario:
    """Return a scenario in which latencies alone scale."""
    tree = {"triton": {"profile": "cpu"}, "autoscaling": {**SCALED, "p95Ms": 150, **autoscaling}}
    return Scenario(chart_values(tree), replicas, pod_start_s=60, faults=faults or Faults())


def lost_pictures(outcome: Outcome) -> float:
    gone = outcome["answered"].sum() + outcome["rejected"].sum() + outcome["waiting"][-1]
    return float(outcome["arrived"].sum() - gone)


@pytest.mark.parametrize("rates", [(100, 100), (500, 4000, 500), (20_000, 20_000), (0, 0)])
@pytest.mark.parametrize("driver", ["prometheus-adapter", "keda", "none"])
def test_no_picture_is_lost_from_sight(
    surface: Surface, rates: tuple[float, ...], driver: str
) -> None:
    faults = Faults(lost_node_s=900, slow_pod_s=300)
    outcome = simulate(surface, traffic(*rates), scenario(faults=faults, driver=driver))
    assert lost_pictures(outcome) == pytest.approx(0, abs=1e-3)
    assert outcome["arrived"].sum() == pytest.approx(traffic(*rates).pictures)


def test_an_idle_fleet_goes_down_to_its_minimum_after_the_window(surface: Surface) -> None:
    outcome = simulate(surface, traffic(0, 0), scenario(replicas=10))
    assert set(outcome["desired"][: 300 // 5]) == {10}
    assert outcome["desired"][-1] == 2
    assert np.isnan(outcome["p95_ms"]).all()


def test_no_scaler_keeps_the_charts_replicas(surface: Surface) -> None:
    outcome = simulate(surface, traffic(100, 9000), scenario(replicas=3, driver="none"))
    assert set(outcome["existing"]) == {3}


def test_more_traffic_brings_pods_that_serve_once_they_have_started(surface: Surface) -> None:
    outcome = simulate(surface, traffic(3000, 3000), scenario())
    grown = int(np.argmax(outcome["desired"] > 2))
    ready = int(np.argmax(outcome["ready"] > 2))
    assert (ready - grown) * outcome.tick_s == pytest.approx(60, abs=5)
    assert outcome["rejected"][:grown].sum() > 0
    assert outcome["rejected"][-60:].sum() == 0
    assert outcome["p95_ms"][-1] < 100


def test_a_step_up_is_no_larger_than_the_policy(surface: Surface) -> None:
    outcome = simulate(surface, traffic(9000, 9000), scenario())
    replicas = sorted(set(outcome["desired"].astype(int)))
    assert replicas[-1] > 8
    assert all(after <= max(before * 2, before + 4) for before, after in pairwise(replicas))


def test_without_prometheus_the_pods_stay_as_they_are(surface: Surface) -> None:
    blind = Faults(blind_s=(600, 1800))
    outcome = simulate(surface, traffic(3000, 3000, 0, 0, step_s=600), scenario(10, faults=blind))
    during = outcome["desired"][(outcome["at_s"] >= 600) & (outcome["at_s"] < 1800)]
    assert len(set(during)) == 1


def test_an_overloaded_fleet_answers_its_capacity(surface: Surface) -> None:
    outcome = simulate(surface, traffic(9000, 9000), scenario(driver="none"))
    expected = 2 * surface.capacity / 9000
    assert 1 - outcome.rejected_share == pytest.approx(expected, rel=0.01)
    full_queue_ms = 64 / surface.capacity * 1000
    assert outcome["p95_ms"][-1] > full_queue_ms


def test_one_slow_pod_shows_in_the_p95_of_all(surface: Surface) -> None:
    calm = scenario(4, driver="none")
    slow = replace(calm, faults=Faults(slow_pod_s=600))
    before, after = (simulate(surface, traffic(2000, 2000), each) for each in (calm, slow))
    assert after["p95_ms"][-1] > 3 * before["p95_ms"][-1]
    assert after["rejected"].sum() > 0


@pytest.mark.parametrize("speed", [1 / 3, 0.25])
@pytest.mark.parametrize("share", [0.35, 0.6])
def test_one_slow_pod_of_ten_does_not_double_the_fleet(
    surface: Surface, share: float, speed: float
) -> None:
    slow = Faults(slow_pod_s=600, slow_speed=speed)
    load = 10 * share * surface.capacity
    outcome = simulate(surface, traffic(load, load), on_cpus(10, minReplicas=10, faults=slow))
    # Before, the fleet's own P95 and queue were read, and it went up to 20.
    assert set(outcome["desired"]) == {10}
    assert outcome["rejected"].sum() > 0


def test_a_target_below_the_models_own_latency_does_not_drive_the_fleet_up() -> None:
    pod = replace(POD, execution_s=(0.184,) * 4, instances=8)
    outcome = simulate(make_surface(pod, requests=3000), traffic(12, 12), on_cpus(2))
    assert outcome["p95_ms"].min() > 150
    assert set(outcome["desired"]) == {2}
    # What a spike has left goes, though the latency stays above the target.
    outcome = simulate(make_surface(pod, requests=3000), traffic(12, 12), on_cpus(10))
    assert outcome["desired"][-1] == 2


def test_a_lost_node_is_made_good_when_its_pods_have_started(surface: Surface) -> None:
    lost = Faults(lost_node_s=600, pods_per_node=3)
    outcome = simulate(surface, traffic(1000, 1000), scenario(6, faults=lost, driver="none"))
    ready = outcome["ready"]
    assert (ready[119], ready[121], ready[-1]) == (6, 3, 6)
    assert outcome["desired"].min() == 6


def test_what_the_scaler_sees_comes_late(surface: Surface) -> None:
    day = traffic(200, 200, 8000, 8000, step_s=300)
    outcome = simulate(surface, day, replace(scenario(driver="none"), tick_s=1))
    truth = int(np.argmax(outcome["p95_ms"] > 60))
    seen = int(np.argmax(outcome["seen_p95_ms"] > 60))
    assert 5 <= seen - truth <= 90


def test_shorter_ticks_tell_the_same(surface: Surface) -> None:
    fine, coarse = (
        simulate(surface, traffic(500, 4000, 500), replace(scenario(), tick_s=tick_s))
        for tick_s in (1, 5)
    )
    assert fine.pod_hours == pytest.approx(coarse.pod_hours, rel=0.05)


def test_pods_that_end_are_the_youngest_and_finish_what_waits(surface: Surface) -> None:
    fleet = Fleet(surface, Timing(start_s=60), 2)
    fleet.tick(0, 5, 2 * 5 * surface.capacity + 100)
    assert fleet.waiting == pytest.approx(100)
    fleet.scale(4, 5)
    fleet.scale(1, 10)
    assert (fleet.status, fleet.existing) == (1, 2)
    ticks = [fleet.tick(15 + 5 * step, 5, 0) for step in range(12)]
    assert sum(each.answered for each in ticks) == pytest.approx(100)
    assert fleet.existing == 1


def test_ten_thousand_pods_are_no_more_than_a_few_cohorts(surface: Surface) -> None:
    rate = 0.5 * surface.capacity * 10_000
    outcome = simulate(
        surface, traffic(rate / 10, rate), scenario(1000, maxReplicas=20_000, minReplicas=1000)
    )
    assert outcome["ready"].max() > 5000
    assert lost_pictures(outcome) == pytest.approx(0, abs=1)
