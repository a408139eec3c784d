"""The attempts at one call: when the next one starts, and which failure is the call's.

A server may fail, or say nothing at all: it hangs, or the network drops what it sends. So behind
a name an attempt that stays without an answer gets company while it goes on, and the first answer
counts. A server that is only slow still answers the first attempt. Nothing here waits or sends:
the transports do.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Hashable
from statistics import median

from wanwu.channel import DeadlineError, UnavailableError
from wanwu.errors import ServerError, WanwuError

#: Pauses before a failed attempt is repeated grow from the first figure to the second.
RETRY_PAUSE_S = (0.05, 2.0)
#: A server that has never answered is given up after this long: its address may be wrong.
FIRST_CONTACT_S = 1.0
#: An attempt is alone for a third of the deadline, at most this long ...
SHARE_S = 1.0
#: ... or this many times what answers take of late, so that a slow server gets no duplicates.
SLOW_FACTOR = 3
#: How many of the latest answers that is measured by.
LATEST = 15


class History:
    """How the calls of one client went: whether any was answered, and how fast the latest were."""

    def __init__(self) -> None:
        self.contacted = False
        self._seconds: dict[Hashable, tuple[float, ...]] = {}

    def answered(self, kind: Hashable, seconds: float) -> None:
        """Record an answer to a kind of call."""
        self.contacted = True
        # Replaced whole, since other threads may read it.
        self._seconds[kind] = (*self._seconds.get(kind, ()), seconds)[-LATEST:]

    def patience_s(self, kind: Hashable, timeout_s: float) -> float:
        """Return how long an attempt may stay without an answer before another one starts."""
        share = min(SHARE_S, timeout_s / 3)
        seconds = self._seconds.get(kind)
        return max(share, SLOW_FACTOR * median(seconds)) if seconds else share


class Attempts:
    """The attempts at one call, within its deadline.

    Args:
        timeout_s: the deadline, through every attempt.
        history: of the client that makes the call.
        kind: calls of one kind take about as long.
        hedge: start another attempt when one stays without an answer.
    """

    def __init__(
        self, timeout_s: float, history: History, kind: Hashable = None, *, hedge: bool = False
    ) -> None:
        timeout_s = max(0.001, timeout_s)
        self._history, self._kind = history, kind
        self._began = self._next_at = time.monotonic()
        self._ends = self._began + timeout_s
        self._retry_until = (
            self._ends if history.contacted else min(self._ends, self._began + FIRST_CONTACT_S)
        )
        self._pause_s = RETRY_PAUSE_S[0]
        self._patience_s = history.patience_s(kind, timeout_s) if hedge else math.inf
        self._refusal: WanwuError | None = None
        self.pending = 0

    def left_s(self) -> float:
        """Return the seconds that the next attempt may take."""
        return max(0.001, self._ends - time.monotonic())

    def wait_s(self) -> float | None:
        """Return the seconds until the next attempt is due; None when none is to follow."""
        if self._next_at >= self._ends:
            return None
        return max(0.0, self._next_at - time.monotonic())

    def due(self) -> bool:
        """Return whether the next attempt starts now."""
        return self.wait_s() == 0

    def started(self) -> float:
        """Record that an attempt starts now, and return the time.

        Others follow at one, two, four, eight times the patience.
        """
        now = time.monotonic()
        self.pending += 1
        self._next_at = now + max(self._patience_s, now - self._began)
        return now

    def answered(self, started: float) -> None:
        """Record the answer to the attempt that started then."""
        self._history.answered(self._kind, time.monotonic() - started)

    def failed(self, error: WanwuError) -> None:
        """Record an attempt's failure.

        Raises:
            WanwuError: the call failed: every server would refuse it so, or no attempt is left.
        """
        self.pending -= 1
        if not isinstance(error, ServerError):
            raise error
        retry_at = self._retry_at() if isinstance(error, UnavailableError) else math.inf
        if retry_at < self._retry_until:
            self._next_at = min(self._next_at, retry_at)
        elif not self.pending:
            raise self._refusal or error
        elif not isinstance(error, DeadlineError | UnavailableError):
            self._refusal = error  # says more than another server's silence

    def _retry_at(self) -> float:
        # Jitter keeps the clients of a server that comes back from all calling at once.
        pause = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._pause_s = min(2 * self._pause_s, RETRY_PAUSE_S[1])
        return time.monotonic() + pause
