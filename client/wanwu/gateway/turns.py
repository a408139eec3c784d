"""Threads that serve principals in turn, so that one's large images do not hold up the others'."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from wanwu.gateway.trace import Picture

#: Work on an image of more pixels than this may take long, and leaves a thread to the rest.
LARGE_PIXELS = 4_000_000
#: A JPEG is decoded at a part of its size: so many of its pixels take the time of one.
JPEG_PIXELS = 4
#: Until work has been measured: seconds to decode a million pixels.
FIRST_GUESS_S = 0.02
#: How far each measurement moves the estimate of a million pixels' time.
WEIGHT = 0.2
#: Smaller images say little of the time that pixels take.
MEASURED_PIXELS = 500_000


@dataclass(frozen=True)
class Turn:
    """For whom work is done, and on how many pixels."""

    who: Hashable = None
    pixels: int = 0

    @classmethod
    def of(cls, who: Hashable, *pictures: Picture) -> Turn:
        """Return the turn of decoding pictures, whose headers were read."""
        pixels = sum(
            (each.width or 0) * (each.height or 0) // (JPEG_PIXELS if each.format == "JPEG" else 1)
            for each in pictures
        )
        return cls(who, pixels)


#: The turn of what is submitted from here.
TURN: ContextVar[Turn | None] = ContextVar("turn", default=None)


@dataclass
class _Job:
    turn: Turn
    future: Future[Any]
    work: Callable[[], Any]


class FairPool(Executor):
    """Threads that take the work of whoever has fewest running, and then of least time used.

    Large images are never in all threads at once, where there are several. Work that was cancelled
    before its turn is dropped.

    Args:
        threads: how many.
    """

    def __init__(self, threads: int) -> None:
        self._count = threads
        self._large_count = max(1, threads - 1)
        self._changed = threading.Condition()
        self._queues: defaultdict[Hashable, deque[_Job]] = defaultdict(deque)
        self._running: Counter[Hashable] = Counter()
        self._large = 0
        self._used_s: dict[Hashable, float] = {}
        self._s_per_pixel = FIRST_GUESS_S / 1e6
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"wanwu-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call, for the turn that the context names."""
        job = _Job(TURN.get() or Turn(), Future(), lambda: fn(*args, **kwargs))
        with self._changed:
            if self._closed:
                raise RuntimeError  # as executors do
            who = job.turn.who
            if who not in self._used_s:
                # Who comes now has no claim to the time in which nothing was asked for.
                self._used_s[who] = min(self._used_s.values(), default=0.0)
            self._queues[who].append(job)
            self._changed.notify()
        return job.future

    def expected_s(self, turn: Turn) -> float:
        """Return in how many seconds work would be done if it came now, by what was measured."""
        with self._changed:
            waiting = sum(job.turn.pixels for job in self._queues.get(turn.who, ()))
            others = len(self._used_s.keys() | {turn.who})
        threads = self._large_count if turn.pixels > LARGE_PIXELS else self._count
        return (waiting + turn.pixels) * self._s_per_pixel * max(1.0, others / threads)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when what runs is done, and what waits unless it is cancelled."""
        with self._changed:
            self._closed = True
            if cancel_futures:
                for queue in self._queues.values():
                    for job in queue:
                        job.future.cancel()
            self._changed.notify_all()
        for thread in self._threads if wait else ():
            thread.join()

    def _serve(self) -> None:
        while (job := self._take()) is not None:
            started = time.perf_counter()
            try:
                job.future.set_result(job.work())
            except BaseException as error:  # it is raised where the future is awaited
                job.future.set_exception(error)
            self._done(job.turn, time.perf_counter() - started)

    def _take(self) -> _Job | None:
        """Wait for the next job; None when the pool has ended."""
        with self._changed:
            while True:
                job = self._next()
                if job is not None or (self._closed and not self._queues):
                    return job
                self._changed.wait()

    def _next(self) -> _Job | None:
        ready = []
        for who, queue in list(self._queues.items()):
            while queue and queue[0].future.cancelled():
                queue.popleft().future.set_running_or_notify_cancel()
            if not queue:
                self._forget(who)
            elif self._large < self._large_count or queue[0].turn.pixels <= LARGE_PIXELS:
                ready.append(who)
        if not ready:
            return None
        who = min(ready, key=lambda each: (self._running[each], self._used_s[each]))
        job = self._queues[who].popleft()
        if not job.future.set_running_or_notify_cancel():
            return self._next()
        self._running[who] += 1
        self._large += job.turn.pixels > LARGE_PIXELS
        return job

    def _done(self, turn: Turn, spent_s: float) -> None:
        with self._changed:
            self._running[turn.who] -= 1
            self._large -= turn.pixels > LARGE_PIXELS
            self._used_s[turn.who] += spent_s
            if turn.pixels >= MEASURED_PIXELS:
                self._s_per_pixel += WEIGHT * (spent_s / turn.pixels - self._s_per_pixel)
            self._forget(turn.who)
            self._changed.notify_all()

    def _forget(self, who: Hashable) -> None:
        """Keep nothing of whom no work waits or runs for."""
        if not self._queues.get(who):
            self._queues.pop(who, None)
            if not self._running[who]:
                del self._running[who]
                self._used_s.pop(who, None)
