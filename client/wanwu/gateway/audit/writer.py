"""A thread writes the audit log, so that a slow disk or a full pipe holds up no event loop.

Requests that wait together have their lines written at once.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wanwu.catalog import Message, message_of
from wanwu.gateway.audit.chain import AuditError
from wanwu.gateway.audit.log import AuditLog
from wanwu.gateway.audit.sums import WINDOW_S, Refused, Sums

Record = dict[str, Any]

#: Requests whose lines may wait.
MOST_WAITING = 1_000
#: Requests whose lines are written at once.
MOST_TOGETHER = 100
#: The free space of the volume is looked at again after this long.
MEASURE_S = 30.0
#: About the length of the line of a request with many pictures.
_LONG_LINE = 4_096


@dataclass(frozen=True)
class _Item:
    """Records that are written together; `done` has no value before."""

    records: Sequence[Record]
    done: asyncio.Future[None] | None


class AuditWriter:
    """Writes lines for one event loop.

    Args:
        log: what is written.
        timeout_s: the longest that a line may take; then its request fails.
        own_lines: refused requests of an unknown caller that have lines of their own in a window.
    """

    def __init__(self, log: AuditLog, *, timeout_s: float, own_lines: int) -> None:
        self._log, self._timeout_s = log, timeout_s
        self._waiting: queue.Queue[_Item | None] = queue.Queue(MOST_WAITING)
        self._unanswered: deque[Record] = deque()
        self._began: float | None = None  # when the lines that are being written were taken
        self._failing = False  # the last lines could not be written
        self._sums = Sums(own_lines)
        self._flushing: asyncio.Task[None] | None = None
        self._volume, self._measured = log.volume(), time.monotonic()
        self._thread = threading.Thread(target=self._run, name="wanwu-audit", daemon=True)
        self._thread.start()

    @property
    def sequence(self) -> int:
        """The number of the last line."""
        return self._log.sequence

    async def write(self, *records: Record) -> None:
        """Write a line for each record; they are in the file when this returns.

        Raises:
            AuditError: they are not, or not in time.
        """
        if self._stalled():
            raise self._late()
        done = self._put(records)
        try:
            await asyncio.wait_for(done, self._timeout_s)
        except (TimeoutError, asyncio.TimeoutError) as error:
            if done.cancelled():
                raise self._late() from error
            done.result()  # written in the last moment

    async def write_or_count(self, refused: Refused, record: Record) -> None:
        """Write a line for a refused request, or only count it where its caller sent many.

        Raises:
            AuditError: the line could not be written.
        """
        counted = self._sums.add(refused)
        self._flushing = self._flushing or asyncio.create_task(self._flush())
        if not counted:
            await self.write(record)

    async def check(self) -> None:
        """Check that lines can be written, if the last could not.

        Raises:
            AuditError: they cannot.
        """
        if self._failing or self._stalled():
            # As long as other lines, which must fit too.
            await self.write({"event": "resumed", "padding": " " * _LONG_LINE})

    def close(self, last: Record) -> None:
        """Write what was counted and a last line, after the event loop has ended.

        Raises:
            AuditError: they were not written in time.
        """
        records, _ = self._sums.records()
        with suppress(queue.Full):
            self._waiting.put(_Item([*records, last], None), timeout=self._timeout_s)
            self._waiting.put(None, timeout=self._timeout_s)
        self._thread.join(self._timeout_s)
        if self._thread.is_alive() or self._failing:
            raise self._late()
        self._log.close()

    def _put(self, records: Sequence[Record]) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait(_Item(records, done))
        except queue.Full:
            raise AuditError(Message("{0} lines wait to be written", MOST_WAITING)) from None
        return done

    @property
    def in_bytes(self) -> int:
        """The size of the log's files."""
        return self._log.in_bytes

    @property
    def volume(self) -> tuple[int, int] | None:
        """The free bytes of the log's volume, and all, of the last minute; None for no file."""
        return self._volume

    def _run(self) -> None:
        while True:
            items: list[_Item | None] = []
            with suppress(queue.Empty):
                items.append(self._waiting.get(timeout=MEASURE_S))
                while len(items) < MOST_TOGETHER:
                    items.append(self._waiting.get_nowait())
            self._began = time.monotonic()
            self._measure()
            self._write_together([item for item in items if item is not None])
            self._began = None
            if None in items:
                return

    def _measure(self) -> None:
        if time.monotonic() - self._measured >= MEASURE_S:
            with suppress(OSError):  # whoever writes there next finds it out
                self._volume = self._log.volume()
            self._measured = time.monotonic()

    def _write_together(self, items: list[_Item]) -> None:
        # Whoever waited for the others was refused meanwhile.
        items = [item for item in items if item.done is None or not item.done.cancelled()]
        late = [self._unanswered.popleft() for _ in range(len(self._unanswered))]
        error: AuditError | None = None
        records = [*late, *(record for item in items for record in item.records)]
        if not records:
            return
        try:
            self._log.write(*records)
        except Exception as failure:  # whatever it is, the thread must go on
            error = AuditError(message_of(failure))
            self._unanswered.extendleft(reversed(late))
        self._failing = error is not None
        for loop in {item.done.get_loop() for item in items if item.done is not None}:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(self._settle, items, error)

    def _settle(self, items: list[_Item], error: AuditError | None) -> None:
        """Release who waits. In the event loop, so that nobody is refused at the same time."""
        for item in items:
            if item.done is None:
                continue
            if not item.done.cancelled():
                if error is None:
                    item.done.set_result(None)
                else:
                    item.done.set_exception(AuditError(*error.args))
            elif error is None:
                self._unanswered.extend(
                    {"event": "unanswered", "request_id": record["request_id"]}
                    for record in item.records
                    if "request_id" in record
                )
        if self._unanswered:
            with suppress(queue.Full):  # then the next lines bring them along
                self._waiting.put_nowait(_Item([], None))

    def _stalled(self) -> bool:
        began = self._began
        return began is not None and time.monotonic() - began > self._timeout_s

    def _late(self) -> AuditError:
        return AuditError(Message("lines are not written within {0} s", f"{self._timeout_s:g}"))

    async def _flush(self) -> None:
        """Write what is counted, at the end of each window."""
        while self._sums.began:
            await asyncio.sleep(WINDOW_S)
            records, counts = self._sums.records()
            with suppress(AuditError):  # what was not written stays counted
                if records:
                    await self._put(records)  # without a limit: a second try would count twice
                self._sums.written(counts)
        self._flushing = None
