"""The time that one answer may take."""

from __future__ import annotations

import random
import time

from wanwu.errors import ModelError

#: Pause before asking again, growing to the second figure: while versions are being swapped, or
#: a queue is full.
PAUSE_S = (0.02, 0.5)


class Deadline:
    """The time one answer may take, through every new attempt."""

    def __init__(self, timeout_s: float) -> None:
        self._ends = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._pause_s = PAUSE_S[0]

    def restart(self) -> None:
        """Give the whole time again, after a step forward."""
        self._ends = time.monotonic() + self._timeout_s

    def extend(self, seconds: float) -> None:
        """Give back the time that other work took."""
        self._ends += seconds

    def left_s(self) -> float:
        """Give the seconds that are left."""
        return max(0.001, self._ends - time.monotonic())

    @property
    def passed(self) -> bool:
        """Tell whether the time is over."""
        return time.monotonic() >= self._ends

    def disagreed(self, what: str) -> ModelError:
        """Give the error of an answer whose parts never came from one version."""
        return ModelError(
            "the served models did not come to agree within {0} s: {1}. They come from different "
            "exports; publish the towers and every bank together",
            f"{self._timeout_s:.1f}",
            what,
        )

    def backoff_s(self) -> float | None:
        """Give the seconds to wait before asking again; None when the deadline would pass."""
        # Jitter keeps clients that were refused together from coming back together.
        pause = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._pause_s = min(2 * self._pause_s, PAUSE_S[1])
        return pause if time.monotonic() + pause < self._ends else None
