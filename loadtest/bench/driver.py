"""The load driver: a process apart from every server, the same for all systems.

Reads a job from standard input and writes what it found to standard output. The loop is closed:
each client asks anew when its answer has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from askers import Asker, open_asker
from jobs import Answers, Best, Job, Load, Measured
from processes import cpu_s

START_S = 180.0
LEAST_ANSWERS = 3
#: Warming up ends then, even with fewer answers than clients.
WARM_LIMIT_S = 30.0
DRAIN_S = 45.0
#: The list that a system's first answer is about.
FIRST_LABELS = 18


def main() -> None:
    """Do one job."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    photos = read_photos(Path(job.workshop))
    found = asyncio.run(measure(job, job.load, photos) if job.load else answers(job, photos))
    sys.stdout.buffer.write(msgspec.json.encode(found))


def read_photos(workshop: Path) -> list[bytes]:
    """Give the photographs, as JPEGs."""
    return [path.read_bytes() for path in sorted((workshop / "photos").glob("*.jpg"))]


async def answers(job: Job, photos: list[bytes]) -> Answers:
    """Wait for a system's first answer; then ask about some photographs."""
    first = await _first(msgspec.structs.replace(job, labels=FIRST_LABELS), photos[0])
    asker = open_asker(job)
    try:
        best: list[Best] = [await asker.ask(photo) for photo in photos[: job.photos]]
    finally:
        await asker.close()
    return Answers(first - job.spawned, best)


async def _first(job: Job, photo: bytes) -> float:
    """Give the moment of the first answer."""
    while not _listens(job.wire.port):
        _check_time(job, "does not listen")
        await asyncio.sleep(0.05)
    asker = open_asker(job)
    try:
        while True:
            try:
                await asker.ask(photo)
                return time.perf_counter()
            except Exception as error:  # not ready yet, whatever it says
                _check_time(job, repr(error))
                await asyncio.sleep(0.1)
    finally:
        await asker.close()


def _check_time(job: Job, problem: str) -> None:
    if time.perf_counter() - job.spawned > START_S:
        sys.exit(f"no answer within {START_S:.0f} s: {problem}")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


class _Clients:
    """Clients that ask without pause until they are told to stop."""

    def __init__(self, asker: Asker, load: Load, photos: Iterator[bytes]) -> None:
        self._asker, self._load, self._photos = asker, load, photos
        self._stopped = False
        self.done: list[tuple[float, float]] = []  # when an answer came, and the seconds it took
        self.errors: list[tuple[float, str]] = []
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(load.clients)]

    async def _ask(self) -> None:
        while not self._stopped:
            began = time.perf_counter()
            try:
                best = await self._asker.ask(next(self._photos))
                if len(best) != 5:
                    raise RuntimeError(f"{len(best)} labels instead of 5")
            except Exception as error:  # counted and shown
                self.errors.append((time.perf_counter(), repr(error)[:200]))
                await asyncio.sleep(0.1)  # so that a dead server is not asked without pause
            else:
                now = time.perf_counter()
                self.done.append((now, now - began))

    async def until(self, count: int, least_s: float, limit_s: float) -> None:
        """Wait for so many answers and seconds from now, but no longer than the limit."""
        began, before = time.perf_counter(), len(self.done)
        while (spent := time.perf_counter() - began) < limit_s:
            if spent >= least_s and len(self.done) - before >= count:
                return
            await asyncio.sleep(0.02)

    async def stop(self) -> bool:
        """Let what is under way be answered, if there is hope, and tell whether all was."""
        self._stopped = True
        hope = self.done and not self._load.last
        _, left = await asyncio.wait(self._tasks, timeout=DRAIN_S if hope else 0)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return not left


async def measure(job: Job, load: Load, photos: list[bytes]) -> Measured:
    """Push for some seconds.

    Seconds are counted once there are as many answers as clients. Where that takes too long they
    are counted from the start to the last answer: all clients began at once, so it is fair.
    """
    asker = open_asker(job)
    began, mark = time.perf_counter(), _cpu(job)
    clients = _Clients(asker, load, itertools.cycle(photos))
    limit = min(WARM_LIMIT_S, load.limit_s / 2)
    await clients.until(load.clients, load.warm_s, limit)
    slow = len(clients.done) < load.clients
    if slow:
        wanted = max(LEAST_ANSWERS, load.clients) - len(clients.done)
        await clients.until(wanted, 0, load.limit_s - (time.perf_counter() - began))
    else:
        began, mark = time.perf_counter(), _cpu(job)
        await clients.until(LEAST_ANSWERS, load.seconds, load.limit_s)
    ended, after = time.perf_counter(), _cpu(job)
    if slow and clients.done:
        ended = clients.done[-1][0]
    drained = await clients.stop()
    await asker.close()
    errors = [text for at, text in clients.errors if at >= began]
    return Measured(
        latencies_s=[spent for at, spent in clients.done if began <= at <= ended],
        seconds=ended - began,
        failed=len(errors),
        errors=sorted(set(errors))[:3],
        server_cpu_s=after[0] - mark[0],
        caller_cpu_s=after[1] - mark[1],
        drained=drained,
    )


def _cpu(job: Job) -> tuple[float, float]:
    return cpu_s(job.server), time.process_time()


if __name__ == "__main__":
    main()
