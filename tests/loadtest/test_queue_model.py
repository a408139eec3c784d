from __future__ import annotations

from dataclasses import replace
from math import factorial

import numpy as np
import pytest

from wanwu import InputError
from wanwu_loadtest.planner import PodModel, make_surface, run_pod

#: 1 picture takes 10 ms, each further one 1 ms.
BATCHED = PodModel(execution_s=tuple(0.009 + 0.001 * size for size in range(1, 9)), cv=0.0)
SINGLE = PodModel(execution_s=(0.01,), cv=0.0)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_without_batching_it_waits_as_an_m_d_1_queue(load: float) -> None:
    run = run_pod(SINGLE, load * 100, requests=60_000)
    expected = load / (2 * (1 - load)) * 0.01
    assert run.queue_s.mean() == pytest.approx(expected, rel=0.05)
    assert run.utilization == pytest.approx(load, rel=0.02)


def test_without_batching_several_instances_wait_as_an_m_m_c_queue() -> None:
    servers, offered = 3, 2.25
    run = run_pod(
        replace(SINGLE, instances=servers),
        offered * 100,
        requests=100_000,
        noise=lambda rng, count: rng.exponential(size=count),
    )
    last = offered**servers / factorial(servers) / (1 - offered / servers)
    waiting = last / (sum(offered**n / factorial(n) for n in range(servers)) + last)
    assert run.queue_s.mean() == pytest.approx(waiting * 0.01 / (servers - offered), rel=0.06)


def test_a_lone_request_waits_out_the_delay() -> None:
    pod = replace(BATCHED, preferred=(4,), delay_s=0.005)
    run = run_pod(pod, 2.0, requests=200, poisson=False)
    assert run.latency_s == pytest.approx(np.full(len(run.latency_s), 0.015))
    assert run.mean_batch == 1


def test_four_that_come_within_the_delay_make_the_preferred_batch() -> None:
    pod = replace(BATCHED, preferred=(4,), delay_s=0.1)
    run = run_pod(pod, 250.0, requests=400, poisson=False)
    assert run.mean_batch == pytest.approx(4, abs=0.05)
    assert run.queue_s.max() < 0.02


def test_without_a_delay_nothing_waits_for_company() -> None:
    run = run_pod(replace(BATCHED, preferred=(4,)), 5.0, requests=200, poisson=False)
    assert run.queue_s.max() == 0


def test_after_the_delay_preferred_sizes_no_longer_count() -> None:
    pod = replace(BATCHED, preferred=(4,), delay_s=0.001)
    assert run_pod(pod, 0.97 * pod.capacity, requests=5000).mean_batch > 4.5


def test_an_overloaded_pod_answers_its_capacity_and_refuses_the_rest() -> None:
    pod = replace(BATCHED, max_queue=32, delay_s=0.001)
    run = run_pod(pod, 2 * pod.capacity, requests=20_000)
    assert pod.capacity == pytest.approx(8 / 0.017)
    assert run.rejected / run.arrived == pytest.approx(0.5, abs=0.02)
    assert run.utilization == pytest.approx(1, abs=0.01)


def test_a_request_that_waited_too_long_is_refused() -> None:
    run = run_pod(replace(SINGLE, timeout_s=0.05), 200.0, requests=5000)
    assert run.rejected > 0
    assert run.queue_s.max() <= 0.06 + 1e-9


def test_requests_of_four_pictures_are_never_split() -> None:
    pod = replace(BATCHED, pictures_per_request=4.0, delay_s=0.001)
    run = run_pod(pod, 100.0, requests=3000)
    assert run.latency_s.min() >= 0.013 - 1e-9
    assert 4 <= run.mean_batch <= 8


def test_variation_makes_the_tail_longer() -> None:
    steady, varied = (run_pod(replace(SINGLE, cv=cv), 60.0) for cv in (0.0, 0.8))
    assert varied.percentile_ms(95) > 1.3 * steady.percentile_ms(95)


def test_a_surface_rises_from_idle_to_capacity() -> None:
    surface = make_surface(replace(BATCHED, overhead_s=0.002), requests=3000)
    assert surface.percentile_ms(0) == pytest.approx(12, abs=1)
    times = [surface.percentile_ms(rate) for rate in surface.rates]
    assert times == sorted(times)
    assert surface.percentile_ms(10 * surface.capacity) == times[-1]


def test_a_surface_gives_the_rate_that_keeps_a_p95() -> None:
    surface = make_surface(BATCHED, requests=3000)
    rate = surface.rate_within(25)
    assert surface.percentile_ms(rate) == pytest.approx(25, rel=0.01)
    with pytest.raises(InputError, match="--p95-ms is 5 and the P95 of a pod that is nearly idle"):
        surface.rate_within(5)
