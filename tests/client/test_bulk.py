from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wanwu import InputError
from wanwu.bulk import (
    Chunk,
    async_chunks,
    check_many,
    chunk_size,
    chunks,
    in_tasks,
    in_threads,
)


def numbered(count: int) -> Iterator[Any]:
    yield from (bytes([number % 256]) for number in range(count))


@pytest.mark.parametrize("in_flight", [1, 3, 4, 8, 32, 1000])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 100])
def test_chunks_hold_every_picture_once_in_order(in_flight: int, count: int) -> None:
    found = list(chunks(numbered(count), in_flight))
    assert [image for chunk in found for image in chunk.images] == list(numbered(count))
    firsts = itertools.accumulate((len(chunk.images) for chunk in found), initial=0)
    assert [chunk.first for chunk in found] == list(firsts)[: len(found)]
    assert all(0 < len(chunk.images) <= chunk_size(in_flight) for chunk in found)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None])
def test_an_in_flight_that_is_no_positive_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="in_flight is"):
        check_many([], value)


@pytest.mark.parametrize(
    "images", ["photos", b"jpeg", Path("a.jpg"), Image.new("L", (1, 1)), 5, None]
)
def test_one_picture_in_place_of_many_is_refused(images: Any) -> None:
    with pytest.raises(InputError, match=r"images came as one \w+; expected a list"):
        check_many(images, 8)


class Work:
    """Answers each picture by its index, and knows how many chunks were under way at once."""

    def __init__(self, seconds: float = 0.002) -> None:
        self.lock = threading.Lock()
        self.seconds, self.now, self.most, self.started = seconds, 0, 0, 0

    def begin(self) -> None:
        with self.lock:
            self.now += 1
            self.started += 1
            self.most = max(self.most, self.now)

    def end(self, chunk: Chunk) -> list[int]:
        with self.lock:
            self.now -= 1
        return [chunk.first + place for place in range(len(chunk.images))]

    def __call__(self, chunk: Chunk) -> list[int]:
        self.begin()
        # Later chunks are done sooner, so that order has to be kept.
        time.sleep(self.seconds * (3 - chunk.first % 3))
        return self.end(chunk)

    async def run(self, chunk: Chunk) -> list[int]:
        self.begin()
        await asyncio.sleep(self.seconds * (3 - chunk.first % 3))
        return self.end(chunk)


def run(
    kind: str, images: Any, work: Work, in_flight: int, *, ordered: bool = True
) -> Iterator[int]:
    """Do the work in threads, or in tasks."""
    if kind == "threads":
        yield from in_threads(chunks(images, in_flight), work, in_flight, ordered=ordered)
        return
    loop = asyncio.new_event_loop()
    source = async_chunks(images, in_flight)
    results = in_tasks(source, work.run, in_flight, ordered=ordered)
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(results))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(results.aclose())  # type: ignore[attr-defined]
        loop.close()


both = pytest.mark.parametrize("kind", ["threads", "tasks"])


@both
@pytest.mark.parametrize("in_flight", [1, 4, 16, 64])
def test_results_come_in_order_and_no_more_are_under_way_than_asked(kind, in_flight) -> None:
    work = Work()
    assert list(run(kind, numbered(100), work, in_flight)) == list(range(100))
    assert work.most * chunk_size(in_flight) <= in_flight
    assert in_flight == 1 or work.most > 1


@both
def test_results_as_they_come_are_all_there_once(kind: str) -> None:
    found = list(run(kind, numbered(100), Work(), 8, ordered=False))
    assert found != sorted(found)
    assert sorted(found) == list(range(100))


@both
@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_source_is_read_only_as_results_are_taken(kind: str, ordered: bool) -> None:
    taken = itertools.count()
    source = (bytes([next(taken) % 256]) for _ in itertools.count())
    results = run(kind, source, Work(0.0), 16, ordered=ordered)
    for _ in range(200):
        next(results)
    time.sleep(0.05)
    assert next(taken) <= 200 + 3 * 16
    results.close()  # type: ignore[attr-defined]


@both
@pytest.mark.parametrize("in_flight", [1, 4, 32])
@pytest.mark.parametrize("count", [0, 1, 10, 17])
def test_a_source_that_fails_is_told_after_what_came_before_it(kind, in_flight, count) -> None:
    def source() -> Iterator[Any]:
        yield from numbered(count)
        raise RuntimeError("the disk is gone")

    found: list[int] = []
    with pytest.raises(RuntimeError, match="the disk is gone"):
        found.extend(run(kind, source(), Work(), in_flight))
    assert found == list(range(count))


@both
def test_leaving_early_starts_nothing_more(kind: str) -> None:
    work = Work(0.01)
    results = run(kind, numbered(1000), work, 4)
    next(results)
    results.close()  # type: ignore[attr-defined]
    time.sleep(0.1)
    started = work.started
    time.sleep(0.1)
    assert work.started == started < 20


@both
def test_a_mistake_in_the_work_is_not_hidden(kind: str) -> None:
    work = Work()
    work.end = lambda chunk: 1 / 0  # type: ignore[assignment, return-value, method-assign]
    with pytest.raises(ZeroDivisionError):
        list(run(kind, numbered(3), work, 4))


def test_a_slow_asynchronous_source_holds_no_answer_back() -> None:
    async def camera() -> AsyncIterator[Any]:
        for picture in numbered(3):
            yield picture
            await asyncio.sleep(0.3)

    async def first_after() -> float:
        started = time.monotonic()
        results = in_tasks(async_chunks(camera(), 4), Work(0.001).run, 4, ordered=True)
        async for _ in results:
            return time.monotonic() - started
        return 99.0

    assert asyncio.run(first_after()) < 0.25


def test_a_cancelled_task_cancels_what_is_under_way() -> None:
    work = Work(5.0)

    async def go() -> None:
        results = in_tasks(async_chunks(numbered(100), 4), work.run, 4, ordered=True)

        async def consume() -> None:
            async for _ in results:
                pass

        task = asyncio.ensure_future(consume())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    started = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - started < 3


def test_a_slow_source_holds_back_no_more_than_the_chunk_being_read() -> None:
    def camera() -> Iterator[Any]:
        for picture in numbered(10):
            time.sleep(0.1)
            yield picture

    started = time.monotonic()
    results = in_threads(chunks(camera(), 4), Work(0.001), 4, ordered=True)
    next(results)
    assert time.monotonic() - started < 0.5
