from __future__ import annotations

import pytest

from wanwu_loadtest.planner.behavior import Autoscaler, Behavior, Kind, Policy, Rules, Select
from wanwu_loadtest.planner.hpa import (
    ExternalAverage,
    ExternalValue,
    Metric,
    Pods,
    PodsMetric,
    PodValues,
    Tolerance,
    resource_metric,
    wanted,
)

FREE = Rules((Policy(Kind.PERCENT, 1000, 15),))
TOLERANCE = Tolerance()


def pods(count: int, ready: int | None = None) -> Pods:
    return Pods(spec=count, status=count, ready=count if ready is None else ready)


def average(milli: int, count: int, target: int) -> PodsMetric:
    return PodsMetric(PodValues(milli * count, count), target)


def push(scaler: Autoscaler, current: int, wish: int, now_s: float) -> int:
    """One round of the controller in which an External metric wants `wish` pods."""
    metric = ExternalValue(1000 * wish, 1000 * current)
    return scaler.sync(now_s, [metric], pods(current))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(200, 6), (50, 2), (100, 3), (110, 3), (90, 3), (111, 4), (89, 3), (60, 2)],
    ids=["doubles", "halves", "same", "1.1", "0.9", "above", "below-rounds-up", "0.6"],
)
def test_the_ratio_of_the_documentation(value: int, expected: int) -> None:
    assert average(value, 3, 100).wish(pods(3), TOLERANCE) == expected


def test_a_tolerance_may_differ_by_direction() -> None:
    eager_up = Tolerance(up=0.0, down=0.5)
    assert average(105, 10, 100).wish(pods(10), eager_up) == 11
    assert average(60, 10, 100).wish(pods(10), eager_up) == 10


def test_the_largest_of_several_metrics_wins() -> None:
    metrics = [ExternalValue(200, 100), average(50, 4, 100), ExternalValue(300, 100)]
    assert wanted(metrics, pods(4), TOLERANCE) == 12


def test_a_missing_metric_stops_scaling_down_and_not_up() -> None:
    lost = ExternalValue(None, 100)
    assert wanted([lost, average(50, 4, 100)], pods(4), TOLERANCE) is None
    assert wanted([lost, average(200, 4, 100)], pods(4), TOLERANCE) == 8


@pytest.mark.parametrize("lost", [ExternalValue(None, 1), ExternalAverage(None, 1)])
def test_nothing_is_done_without_any_metric(lost: Metric) -> None:
    assert wanted([lost, PodsMetric(None, 700)], pods(4), TOLERANCE) is None


def test_pods_without_the_metric_count_as_all_of_the_request_when_scaling_down() -> None:
    # (2 × 20 % + 2 × 100 %) / 4 is 60 % of a target of 80 %.
    assert resource_metric([20, 20], 80, missing=2, unready=0).wish(pods(4), TOLERANCE) == 3


def test_pods_without_the_metric_count_as_nothing_when_scaling_up() -> None:
    # (2 × 100 % + 0) / 3 is 66 % of a target of 50 %.
    assert resource_metric([100, 100], 50, missing=1, unready=0).wish(pods(3), TOLERANCE) == 4


def test_pods_that_are_not_ready_count_as_nothing_when_scaling_up() -> None:
    assert resource_metric([100, 100], 50, missing=0, unready=1).wish(pods(3), TOLERANCE) == 4


def test_pods_that_are_not_ready_are_set_aside_when_scaling_down() -> None:
    assert resource_metric([20, 20, 20], 80, missing=0, unready=3).wish(pods(6), TOLERANCE) == 1


@pytest.mark.parametrize(("percents", "missing"), [([60, 60], 4), ([30, 30], 5)])
def test_missing_pods_never_turn_the_direction_round(percents: list[int], missing: int) -> None:
    metric = resource_metric(percents, 50, missing=missing, unready=0)
    assert metric.wish(pods(len(percents) + missing), TOLERANCE) == len(percents) + missing


def test_missing_pods_of_a_pods_metric_count_as_the_target_when_scaling_down() -> None:
    metric = PodsMetric(PodValues(2 * 200, 2, missing=2), 800)
    assert metric.wish(pods(4), TOLERANCE) == 3


def test_an_external_value_is_applied_to_ready_pods_alone() -> None:
    assert ExternalValue(300_000, 150_000).wish(pods(8, ready=3), TOLERANCE) == 6


def test_an_external_average_is_shared_out_among_the_pods() -> None:
    assert ExternalAverage(3500, 700).wish(pods(2), TOLERANCE) == 5
    assert ExternalAverage(1500, 700).wish(pods(2), TOLERANCE) == 2


def test_pods_and_percent_from_eighty_down_as_documented() -> None:
    rules = Rules((Policy(Kind.PODS, 4, 60), Policy(Kind.PERCENT, 10, 60)))
    scaler = Autoscaler(10, 100, Behavior(down=rules))
    replicas = [80]
    for minute in range(1, 20):
        replicas.append(push(scaler, replicas[-1], 10, 60.0 * minute))
    assert replicas[:5] == [80, 72, 64, 57, 51]
    assert replicas[replicas.index(36) :][:4] == [36, 32, 28, 24]
    assert replicas[-1] == 10


def test_a_policy_holds_over_the_whole_of_its_period() -> None:
    rules = Rules((Policy(Kind.PERCENT, 10, 60),))
    scaler = Autoscaler(10, 100, Behavior(down=rules))
    replicas = [80]
    for sync in range(5):
        replicas.append(push(scaler, replicas[-1], 10, 15.0 * sync))
    assert replicas == [80, 72, 72, 72, 72, 64]


def test_nine_hundred_percent_a_minute_as_documented() -> None:
    scaler = Autoscaler(1, 10_000, Behavior(up=Rules((Policy(Kind.PERCENT, 900, 60),))))
    replicas = [1]
    for minute in range(3):
        replicas.append(push(scaler, replicas[-1], 10_000, 60.0 * minute))
    assert replicas == [1, 10, 100, 1000]


def test_select_policy_min_allows_the_least_change() -> None:
    policies = (Policy(Kind.PODS, 5, 60), Policy(Kind.PERCENT, 10, 60))
    scaler = Autoscaler(1, 100, Behavior(down=Rules(policies, select=Select.MIN)))
    assert push(scaler, 80, 10, 0.0) == 75


def test_scaling_down_can_be_disabled() -> None:
    scaler = Autoscaler(1, 100, Behavior(up=FREE, down=Rules((), select=Select.DISABLED)))
    assert push(scaler, 10, 1, 0.0) == 10
    assert push(scaler, 10, 20, 900.0) == 20


def test_without_a_behavior_pods_go_after_five_minutes_and_come_at_once() -> None:
    scaler = Autoscaler(1, 100)
    assert push(scaler, 10, 30, 0.0) == 20
    assert [push(scaler, 20, 2, each) for each in (15.0, 150.0, 299.0)] == [20, 20, 20]
    assert push(scaler, 20, 2, 300.0) == 2


def test_stabilisation_takes_the_highest_recommendation_of_the_window() -> None:
    scaler = Autoscaler(1, 100, Behavior(up=FREE))
    for number, wish in enumerate([10, 9, 8, 9]):
        assert scaler.follow(15.0 * number, wish, 10) == 10
    assert scaler.follow(60.0, 8, 12) == 10


def test_a_window_for_scaling_up_takes_the_lowest() -> None:
    scaler = Autoscaler(1, 100, Behavior(up=Rules(FREE.policies, stabilization_s=60)))
    assert [scaler.follow(15.0 * i, wish, 4) for i, wish in enumerate([5, 9, 6])] == [5, 5, 5]


def test_bounds_are_kept_whatever_the_metrics_say() -> None:
    scaler = Autoscaler(2, 10, Behavior(up=FREE))
    assert push(scaler, 8, 50, 0.0) == 10
    assert scaler.sync(15.0, [ExternalValue(None, 1)], pods(1)) == 2
    assert scaler.sync(30.0, [ExternalValue(None, 1)], pods(12)) == 10
