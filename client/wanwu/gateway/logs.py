"""The gateway's own log, for its operator: lines on standard error."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
from contextlib import suppress
from typing import Any

#: Lines that may wait for a reader of standard error.
MOST_WAITING = 1_000
#: Time for those at the end.
CLOSE_S = 1.0


class BackgroundHandler(logging.handlers.QueueHandler):
    """Writes lines in a thread: a pipe that nobody reads holds up no event loop."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(MOST_WAITING)
        super().__init__(self._waiting)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="wanwu-log", daemon=True)
        self._thread.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Pass a line on, or count it where too many wait."""
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits, unless nobody reads it."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(CLOSE_S)
        super().close()

    def _write(self) -> None:
        stream = logging.StreamHandler()
        stream.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        while (record := self._waiting.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                record.msg = f"({lost} lines before this one were lost) {record.msg}"
            stream.handle(record)


def log_config() -> dict[str, Any]:
    """Return the logging of a gateway: to standard error, one line each."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"()": BackgroundHandler}},
        # A caller's broken form would be a line in the log.
        "loggers": {"python_multipart": {"level": "ERROR"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
    }
