"""Ctrl-C, SIGTERM and a closed terminal end a command in order: it leaves its `with` blocks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Stopped(BaseException):
    """A signal asked the command to end."""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Leave the block quietly on SIGINT, SIGTERM or SIGHUP; later signals change nothing."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except _Stopped:
        return  # and ignore further signals: the command is ending
    for number, handler in before.items():
        signal.signal(number, handler)
