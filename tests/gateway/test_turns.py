"""Threads that serve principals in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from wanwu.gateway.trace import Picture
from wanwu.gateway.turns import LARGE_PIXELS, TURN, FairPool, Turn

LARGE = 10 * LARGE_PIXELS


class Work:
    """Jobs that wait to be let go, in a pool; `begun` has the order in which they were."""

    def __init__(self, threads: int) -> None:
        self.pool, self.begun = FairPool(threads), list[str]()
        self._gates: dict[str, threading.Event] = {}

    def asks(self, name: str, pixels: int = 0) -> Future[Any]:
        """Submit a job of whom the name begins with."""
        self._gates[name] = threading.Event()

        def job() -> str:
            self.begun.append(name)
            self._gates[name].wait(20)
            return name

        TURN.set(Turn(name[0], pixels))
        return self.pool.submit(job)

    def ends(self, *names: str) -> None:
        for name in names:
            self._gates[name].set()

    def has_begun(self, *names: str) -> None:
        ends = time.monotonic() + 10
        while self.begun != list(names) and time.monotonic() < ends:
            time.sleep(0.005)
        assert self.begun == list(names)

    def close(self) -> None:
        self.ends(*self._gates)
        self.pool.shutdown()


@pytest.fixture(params=[1])
def work(request: pytest.FixtureRequest) -> Iterator[Work]:
    work = Work(request.param)
    yield work
    work.close()


def test_who_comes_later_is_served_before_the_firsts_second_job(work: Work) -> None:
    for name in ("a1", "a2", "a3", "b1"):
        work.asks(name)
    work.has_begun("a1")
    work.ends("a1")
    work.has_begun("a1", "b1")
    work.ends("b1")
    work.has_begun("a1", "b1", "a2")


@pytest.mark.parametrize("work", [2], indirect=True)
def test_large_images_leave_a_thread_to_small_ones(work: Work) -> None:
    for name in ("a1", "b1", "c1"):
        work.asks(name, LARGE)
    work.has_begun("a1")
    work.asks("d1")
    work.has_begun("a1", "d1")
    work.ends("a1")
    work.has_begun("a1", "d1", "b1")


def test_a_single_thread_takes_large_images_too(work: Work) -> None:
    work.asks("a1", LARGE)
    work.has_begun("a1")


def test_work_that_was_cancelled_is_never_begun(work: Work) -> None:
    first, second, _ = work.asks("a1"), work.asks("a2"), work.asks("a3")
    assert second.cancel()
    work.ends("a1")
    assert first.result(10) == "a1"
    work.has_begun("a1", "a3")


def test_an_error_of_the_work_is_the_callers(work: Work) -> None:
    with pytest.raises(ZeroDivisionError):
        work.pool.submit(lambda: 1 // 0).result(10)
    work.asks("a1")
    work.has_begun("a1")


def test_nothing_is_kept_of_whom_nothing_waits_for(work: Work) -> None:
    for number in range(50):
        TURN.set(Turn(number))
        work.pool.submit(int).result(10)
    TURN.set(Turn("last"))
    work.pool.submit(int).result(10)
    deadline = time.monotonic() + 10
    while work.pool._used_s and time.monotonic() < deadline:
        time.sleep(0.005)
    assert (work.pool._used_s, dict(work.pool._queues), dict(work.pool._running)) == ({}, {}, {})


def test_what_waits_is_expected_to_take_its_time(work: Work) -> None:
    alone_s = work.pool.expected_s(Turn("a", LARGE))
    work.asks("a1", LARGE)
    work.has_begun("a1")
    work.asks("a2", LARGE)
    assert work.pool.expected_s(Turn("a", LARGE)) == pytest.approx(2 * alone_s)
    # Another has its turn at once, and half of the time.
    assert work.pool.expected_s(Turn("b", LARGE)) == pytest.approx(2 * alone_s)
    work.asks("c1", LARGE)
    assert work.pool.expected_s(Turn("a", LARGE)) == pytest.approx(4 * alone_s)


def test_the_time_of_a_pixel_is_learned(work: Work) -> None:
    before_s = work.pool.expected_s(Turn("a", LARGE))
    for _ in range(20):
        TURN.set(Turn("a", LARGE))
        work.pool.submit(int).result(10)
    assert work.pool.expected_s(Turn("a", LARGE)) < before_s / 10


def test_a_jpeg_counts_for_less_than_a_png() -> None:
    sides = {"sha256": "", "bytes": 1, "width": 4_000, "height": 3_000}
    assert Turn.of("a", Picture(format="PNG", **sides)).pixels == 12_000_000
    assert Turn.of("a", Picture(format="JPEG", **sides)).pixels == 3_000_000
    assert Turn.of("a", Picture("", 1)).pixels == 0
