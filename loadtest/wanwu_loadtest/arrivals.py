"""When requests are to be sent, decided before any is: an open loop."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from wanwu_loadtest.shapes import Stage

KINDS = ("poisson", "even")


def arrivals(
    stages: Sequence[Stage], *, kind: str, share: float, randomness: random.Random
) -> Iterator[tuple[float, int]]:
    """Give the moments of one stream's requests, in seconds since the start, each with its stage.

    Args:
        stages: the whole load.
        kind: `poisson`, as independent callers arrive, or `even`.
        share: this stream's part of the rate, 0 to 1. Poisson streams add up to Poisson.
        randomness: of its own.
    """
    for index, stage in enumerate(stages):
        rate, end = stage.rate * share, stage.start_s + stage.length_s
        # Even streams start at different phases, so that they do not send together.
        at = stage.start_s + randomness.random() / rate
        while at < end:
            yield at, index
            at += randomness.expovariate(rate) if kind == "poisson" else 1 / rate
