from __future__ import annotations

import math

import msgspec
import pytest

from loadtest.planner_files import results, window
from wanwu import InputError
from wanwu_loadtest.planner import ChartValues, PodModel, chart_values, pod_model
from wanwu_loadtest.results import BatchTime, Results


def with_batches(*batches: tuple[int, int, float]) -> Results:
    service = results().service
    assert service
    times = [BatchTime(size=size, count=count, mean_ms=ms) for size, count, ms in batches]
    return results(service=msgspec.structs.replace(service, batches=times))


def model(measured: Results, values: ChartValues | None = None) -> PodModel:
    return pod_model(measured, values or ChartValues(), cv=0.1)


def milliseconds(pod: PodModel, *sizes: int) -> list[float]:
    return [round(pod.execution_s[size - 1] * 1000, 3) for size in sizes]


def test_times_are_linear_between_measured_sizes_and_go_on_beyond() -> None:
    pod = model(with_batches((2, 20, 10), (4, 20, 12), (8, 20, 20)))
    assert milliseconds(pod, 1, 2, 3, 4, 6, 8, 16) == [10, 10, 11, 12, 16, 20, 36]
    assert pod.measured_batch == 8
    assert pod.capacity == pytest.approx(16 / 0.036)


def test_one_size_tells_no_fixed_part() -> None:
    assert milliseconds(model(with_batches((1, 20, 10))), 1, 2, 16) == [10, 20, 160]


def test_a_size_that_hardly_ever_ran_is_left_out() -> None:
    assert milliseconds(model(with_batches((1, 90, 10), (2, 1, 500), (4, 90, 40))), 2) == [20]


def test_the_lightest_window_tells_what_a_request_takes_beside() -> None:
    assert model(results()).overhead_s == pytest.approx(0.003)
    assert model(results(windows=[])).overhead_s == pytest.approx(0.005)


def test_pictures_of_a_request_are_those_of_the_load_test() -> None:
    pod = model(results(total=window(50, 12, pictures=4)))
    assert pod.pictures_per_request == 4
    assert pod.queue_limit == min(4 * 64, 10 * pod.capacity)


def test_batching_of_a_values_file_wins_over_what_was_measured() -> None:
    values = chart_values({"triton": {"batching": {"maxBatchSize": 8, "queueDelayUs": 3000}}})
    pod = model(results(), values)
    assert (pod.max_batch, pod.delay_s, pod.max_queue) == (8, 0.003, 64)


@pytest.mark.parametrize("measured", [results(service=None), with_batches()])
def test_results_without_times_cannot_be_planned_with(measured: Results) -> None:
    with pytest.raises(InputError, match="no times of executions, since Triton could not be asked"):
        model(measured)


def test_the_spread_of_executions_is_that_of_calls_that_do_not_wait() -> None:
    # Of the lightest window: 10 ms and 12 ms at P95, of which 3 ms are beside the server.
    sigma = math.log((12 - 3) / (10 - 3)) / 1.645
    expected = math.sqrt(math.expm1(sigma**2))
    assert pod_model(results(), ChartValues()).cv == pytest.approx(expected)
    assert pod_model(results(), ChartValues(), cv=0.5).cv == 0.5


def test_without_the_servers_times_a_spread_is_assumed() -> None:
    blind = [msgspec.structs.replace(each, server=None) for each in results().windows]
    total = msgspec.structs.replace(results().total, server=None)
    assert pod_model(results(windows=blind, total=total), ChartValues()).cv == 0.1
