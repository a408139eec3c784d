"""Ctrl-C and SIGTERM end a command in order, by leaving its `with` blocks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Stopped(BaseException):
    """A signal asked the command to end."""


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Leave the block quietly on SIGINT or SIGTERM; a second signal changes nothing."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
