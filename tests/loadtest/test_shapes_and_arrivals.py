"""How a load goes is decided before it begins."""

from __future__ import annotations

import itertools
import random

import pytest

from wanwu.errors import InputError
from wanwu_loadtest.arrivals import arrivals
from wanwu_loadtest.shapes import SHAPES, Stage, stage_at, stages


def planned(shape: str, **changed: float) -> list[Stage]:
    return stages(shape, **{"rate": 40, "seconds": 120, "steps": 4, "factor": 4, **changed})


def sent(shape: list[Stage], kind: str, share: float = 1.0) -> list[tuple[float, int]]:
    return list(arrivals(shape, kind=kind, share=share, randomness=random.Random(1)))


@pytest.mark.parametrize("shape", SHAPES)
def test_stages_fill_the_time_without_a_gap(shape: str) -> None:
    row = planned(shape)
    assert row[0].start_s == 0
    for before, after in itertools.pairwise(row):
        assert after.start_s == pytest.approx(before.start_s + before.length_s)
    assert row[-1].start_s + row[-1].length_s == pytest.approx(120)


def test_steps_rise_to_the_rate() -> None:
    assert [each.rate for each in planned("steps")] == [10, 20, 30, 40]


def test_a_spike_is_some_times_the_rate_and_then_over() -> None:
    assert [each.rate for each in planned("spike")] == [40, 160, 40, 40]


def test_a_day_is_busiest_at_14_and_quietest_at_2() -> None:
    rates = [each.rate for each in planned("day")]
    assert rates[14] == max(rates) == 40
    assert rates[2] == min(rates) == 10


def test_a_stage_is_found_by_its_time() -> None:
    row = planned("steps")
    assert [stage_at(row, each) for each in (0, 29.9, 30, 119, 120)] == [0, 0, 1, 3, None]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rate": 0}, "--rate is 0"),
        ({"rate": float("inf")}, "--rate is inf"),
        ({"seconds": -1}, "--run-time is -1"),
        ({"steps": 0}, "--steps is 0"),
        ({"factor": 1}, "--factor is 1; expected more than 1"),
    ],
)
def test_a_figure_out_of_range_is_refused(changed: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        planned("steps", **changed)


@pytest.mark.parametrize("kind", ["poisson", "even"])
@pytest.mark.parametrize("shape", SHAPES)
def test_as_many_are_sent_as_planned(shape: str, kind: str) -> None:
    row = planned(shape)
    expected = sum(each.rate * each.length_s for each in row)
    assert len(sent(row, kind)) == pytest.approx(expected, rel=0.06)


def test_even_arrivals_are_equally_far_apart() -> None:
    times = [at for at, _ in sent([Stage("a", 0, 10, 20)], "even")]
    assert all(b - a == pytest.approx(0.05) for a, b in itertools.pairwise(times))


def test_poisson_arrivals_vary_as_much_as_their_mean() -> None:
    times = [at for at, _ in sent([Stage("a", 0, 1000, 20)], "poisson")]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.05, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_streams_share_the_rate() -> None:
    whole, part = [Stage("a", 0, 100, 40)], 0.25
    assert len(sent(whole, "even", part)) == pytest.approx(1000, abs=1)


def test_arrivals_name_their_stage_and_stay_in_it() -> None:
    row = planned("steps")
    for at, index in sent(row, "poisson"):
        assert stage_at(row, at) == index


def test_the_same_seed_sends_the_same_load() -> None:
    assert sent(planned("day"), "poisson") == sent(planned("day"), "poisson")
