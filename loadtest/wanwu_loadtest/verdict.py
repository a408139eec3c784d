"""Whether a load met its objectives, and where the server stopped keeping up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wanwu.catalog import Message
from wanwu_loadtest.results import Knee, Latency, Verdict, Window

#: The share of the planned rate below which a server does not keep up.
KEPT_UP = 0.97
#: Without an objective, a P95 of this many times the quietest stage's median is past the knee.
PAST_THE_KNEE = 4.0
#: A sender this late, at P95, is itself what is slow.
LATE_MS = 50.0
SECOND_MS = 1000.0
#: Standard deviations above the mean that the requests in flight at the end of a stage may be.
DEVIATIONS = 3.0


def judge(
    total: Window, windows: Sequence[Window], *, p95_ms: float | None, error_rate: float | None
) -> Verdict:
    """Hold a load against its objectives, in every stage.

    An hour of health does not make a bad minute good.

    Args:
        total: the whole load.
        windows: its stages.
        p95_ms: the largest P95, in milliseconds from the intended moment; None for no objective.
        error_rate: the largest share of failed requests, 0 to 1; None for no objective.
    """
    reasons: list[str] = []
    if total.latency is None:
        reasons.append(Message("none of {0} requests was answered", total.sent))
    for window in windows:
        if p95_ms is not None and window.latency and window.latency.p95_ms > p95_ms:
            reasons.append(
                Message(
                    "{0}: P95 was {1} ms, above {2} ms",
                    window.name,
                    f"{window.latency.p95_ms:g}",
                    f"{p95_ms:g}",
                )
            )
        if error_rate is not None and window.error_rate > error_rate:
            reasons.append(
                Message(
                    "{0}: {1} of {2} requests failed ({3}), above {4}",
                    window.name,
                    window.errors,
                    window.sent,
                    f"{window.error_rate:.2%}",
                    f"{error_rate:.2%}",
                )
            )
    return Verdict(p95_ms=p95_ms, error_rate=error_rate, reasons=reasons)


def find_knee(windows: Sequence[Window], *, p95_ms: float | None) -> Knee | None:
    """Give the largest rate up to which every stage was kept up with.

    A stage is kept up with when all its requests were answered, at 97 % or more of the planned
    rate, within the objective for P95; without one, within four times the median of the quietest
    stage.
    """
    by_rate = sorted(windows, key=lambda window: window.planned_rate)
    if len({window.planned_rate for window in by_rate}) < 2 or by_rate[0].latency is None:
        return None
    limit = p95_ms or by_rate[0].latency.p50_ms * PAST_THE_KNEE
    knee = None
    for window in by_rate:
        latency = window.latency
        if latency is None or latency.p95_ms > limit or window.errors or _behind(window, latency):
            break
        knee = Knee(rate=window.planned_rate, p95_ms=latency.p95_ms)
    return knee


def _behind(window: Window, latency: Latency) -> bool:
    # What was sent at the very end of the stage is answered in the next one: in a short stage a
    # single request is more than 3 % of them. Arrivals at random vary by the root of their number.
    mean = window.planned_rate * latency.p95_ms / SECOND_MS
    in_flight = max(1.0, mean + DEVIATIONS * math.sqrt(mean))
    return window.rate * window.length_s + in_flight < window.sent * KEPT_UP


def remarks(total: Window) -> list[str]:
    """Give what a reader of the figures must know."""
    told: list[str] = []
    if total.late is not None and total.late.p95_ms > LATE_MS:
        told.append(
            Message(
                "requests were sent {0} ms late at P95: this sender was too busy; use "
                "--processes, or workers on other machines",
                f"{total.late.p95_ms:g}",
            )
        )
    if total.server is None:
        told.append("Triton's statistics could not be read: name its gRPC address by --triton")
    return told
