"""Objectives, the knee, and what a reader must know."""

from __future__ import annotations

from typing import Any

from wanwu_loadtest.results import Latency, Window
from wanwu_loadtest.verdict import find_knee, judge, remarks


def latency(p95: float, p50: float = 10.0) -> Latency:
    return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p95, max_ms=p95, mean_ms=p50)


def window(planned: float, p95: float | None, **changed: Any) -> Window:
    fields: dict[str, Any] = {
        "name": f"{planned:g}/s",
        "start_s": 0.0,
        "length_s": 10.0,
        "planned_rate": planned,
        "sent": int(planned * 10),
        "pictures": int(planned * 10),
        "errors": 0,
        "rate": planned,
        "latency": None if p95 is None else latency(p95),
    }
    return Window(**{**fields, **changed})


def test_a_load_within_its_objectives_passes() -> None:
    parts = [window(10, 20), window(20, 30)]
    assert judge(parts[1], parts, p95_ms=30, error_rate=0).reasons == []


def test_one_slow_stage_fails_the_load() -> None:
    verdict = judge(window(10, 20), [window(10, 20), window(20, 31)], p95_ms=30, error_rate=0)
    assert verdict.reasons == ["20/s: P95 was 31 ms, above 30 ms"]


def test_errors_are_counted_by_stage() -> None:
    bad = window(10, 20, errors=5)
    assert judge(bad, [bad], p95_ms=None, error_rate=0.05).reasons == []
    (reason,) = judge(bad, [bad], p95_ms=None, error_rate=0.04).reasons
    assert reason == "10/s: 5 of 100 requests failed (5.00%), above 4.00%"


def test_without_an_answer_nothing_passes() -> None:
    silent = window(10, None, errors=100)
    verdict = judge(silent, [silent], p95_ms=None, error_rate=None)
    assert verdict.reasons == ["none of 100 requests was answered"]


def test_the_knee_is_the_last_stage_within_the_objective() -> None:
    knee = find_knee([window(10, 20), window(30, 80), window(20, 40)], p95_ms=50)
    assert knee is not None
    assert (knee.rate, knee.p95_ms) == (20, 40)


def test_without_an_objective_the_knee_is_at_four_times_the_quiet_median() -> None:
    knee = find_knee([window(10, 20), window(20, 40), window(30, 41)], p95_ms=None)
    assert knee is not None
    assert knee.rate == 20


def test_a_stage_that_falls_behind_or_fails_is_past_the_knee() -> None:
    for broken in (window(20, 21, rate=19), window(20, 21, errors=1), window(20, None)):
        knee = find_knee([window(10, 20), broken, window(30, 20)], p95_ms=None)
        assert knee is not None
        assert knee.rate == 10


def test_two_requests_in_flight_at_the_end_of_a_short_stage_are_not_behind() -> None:
    """As arrivals at random leave them: 12 a second for 1.5 s, answered in 46 ms."""
    short = window(12, 46, length_s=1.5, sent=18, rate=16 / 1.5)
    knee = find_knee([window(6, 46), short], p95_ms=2000)
    assert knee is not None
    assert knee.rate == 12


def test_one_rate_alone_shows_no_knee() -> None:
    assert find_knee([window(10, 20), window(10, 20)], p95_ms=None) is None


def test_a_sender_that_is_too_busy_is_told() -> None:
    (late, unread) = remarks(window(10, 20, late=latency(80)))
    assert late.startswith("requests were sent 80 ms late")
    assert "--triton" in unread
