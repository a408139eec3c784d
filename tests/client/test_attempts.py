from __future__ import annotations

import pytest

from wanwu import ModelError, OverloadedError, ServerError
from wanwu.attempts import Attempts, History
from wanwu.channel import DeadlineError, ModelMissingError, ShapeError, UnavailableError


class Clock:
    """The time that the code under test sees."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hands = Clock()
    monkeypatch.setattr("wanwu.attempts.time.monotonic", lambda: hands.now)
    return hands


def history(*seconds: float, kind: str = "infer") -> History:
    """Return the history of a client whose calls took so long."""
    past = History()
    for each in seconds:
        past.answered(kind, each)
    return past


def starts(attempts: Attempts, clock: Clock) -> list[float]:
    """Return when the attempts of a call start that is never answered."""
    began = clock.now
    times = []
    while (wait_s := attempts.wait_s()) is not None:
        clock.now += wait_s
        times.append(round(attempts.started() - began, 3))
    return times


@pytest.mark.parametrize(
    ("timeout_s", "expected"),
    [
        (10.0, [0, 1, 2, 4, 8]),
        (3.0, [0, 1, 2]),
        (1.5, [0, 0.5, 1]),
        (60.0, [0, 1, 2, 4, 8, 16, 32]),
    ],
)
def test_a_call_without_an_answer_gets_company_after_its_share(
    clock: Clock, timeout_s: float, expected: list[float]
) -> None:
    assert starts(Attempts(timeout_s, history(0.01), "infer", hedge=True), clock) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((4.0,) * 20, [0]),
        ((0.5,) * 20, [0, 1.5, 3, 6]),
        ((0.01,) * 9 + (4.0,) * 6, [0, 1, 2, 4, 8]),
        ((0.01,) * 99 + (4.0,) * 8, [0]),
    ],
)
def test_a_server_that_is_slow_of_late_gets_no_duplicates(
    clock: Clock, seconds: tuple[float, ...], expected: list[float]
) -> None:
    assert starts(Attempts(10.0, history(*seconds), "infer", hedge=True), clock) == expected


@pytest.mark.parametrize("timeout_s", [0.001, 0.0, -1.0])
def test_a_call_without_time_is_tried_once(clock: Clock, timeout_s: float) -> None:
    assert starts(Attempts(timeout_s, History(), "infer", hedge=True), clock)[0] == 0


def test_slow_calls_of_another_kind_change_nothing(clock: Clock) -> None:
    attempts = Attempts(3.0, history(4.0, kind="other"), "infer", hedge=True)
    assert starts(attempts, clock) == [0, 1, 2]


def test_behind_one_address_an_attempt_is_alone(clock: Clock) -> None:
    assert starts(Attempts(10.0, history(0.01), "infer"), clock) == [0]


def pending(count: int) -> Attempts:
    """Return the attempts of a call of which so many are under way."""
    attempts = Attempts(10.0, history(0.01), "infer", hedge=True)
    for _ in range(count):
        attempts.started()
    return attempts


@pytest.mark.parametrize("failure", [UnavailableError, OverloadedError, ModelMissingError])
def test_one_attempts_failure_does_not_end_a_call_that_another_may_answer(
    failure: type[ServerError],
) -> None:
    pending(2).failed(failure("no"))


@pytest.mark.parametrize("failure", [ShapeError, ModelError])
def test_a_request_that_is_refused_fails_at_once(failure: type[ModelError]) -> None:
    refused = failure("no")
    with pytest.raises(failure) as caught:
        pending(2).failed(refused)
    assert caught.value is refused


@pytest.mark.parametrize("failure", [OverloadedError, ModelMissingError, DeadlineError])
def test_a_single_attempts_failure_is_the_calls(failure: type[ServerError]) -> None:
    with pytest.raises(failure):
        pending(1).failed(failure("no"))


def test_a_full_queue_says_more_than_another_servers_silence() -> None:
    attempts = pending(3)
    attempts.failed(OverloadedError("its queue is full"))
    attempts.failed(DeadlineError("no answer"))
    with pytest.raises(OverloadedError):
        attempts.failed(DeadlineError("no answer"))


def test_a_failed_attempt_is_repeated_although_another_is_pending(clock: Clock) -> None:
    attempts = pending(2)
    attempts.failed(UnavailableError("no"))
    wait_s = attempts.wait_s()
    assert wait_s is not None
    assert 0 < wait_s <= 0.05


def test_pauses_grow_and_end_with_the_deadline(clock: Clock) -> None:
    attempts = Attempts(100.0, history(0.01), "infer")
    for least in (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        attempts.started()
        attempts.failed(UnavailableError("no"))
        pause_s = attempts.wait_s()
        assert pause_s is not None
        assert least <= pause_s <= 2 * least
        assert not attempts.due()
        clock.now += pause_s
        assert attempts.due()
    clock.now = 1099.9
    attempts.started()
    with pytest.raises(UnavailableError):
        attempts.failed(UnavailableError("no"))


def test_a_server_that_never_answered_is_given_up_after_a_second(clock: Clock) -> None:
    attempts = Attempts(100.0, History(), "infer", hedge=True)
    clock.now += 0.99
    attempts.started()
    with pytest.raises(UnavailableError):
        attempts.failed(UnavailableError("no"))
