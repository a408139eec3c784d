"""How the rate of a load goes: a row of stages, each of one rate.

Locust's own shapes say how many users there are, and users who wait for their answers send less
to a slow server. These say how many requests are sent, whatever comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from wanwu.errors import InputError

HOURS = 24
#: The spike lasts a sixth of the load, in its middle.
SPIKE_S = 1 / 6


class Stage(msgspec.Struct, frozen=True):
    """Some seconds of one rate, in requests per second."""

    name: str
    start_s: float
    length_s: float
    rate: float


def constant(rate: float, seconds: float, steps: int, factor: float) -> list[Stage]:
    """One rate, looked at in `steps` parts of which the first warms up."""
    return _row([(f"part {each + 1}", rate) for each in range(steps)], seconds)


def steps(rate: float, seconds: float, steps: int, factor: float) -> list[Stage]:
    """Rising to `rate` in equal steps: it shows the knee."""
    rates = [rate * (each + 1) / steps for each in range(steps)]
    return _row([(f"{each:.3g}/s", each) for each in rates], seconds)


def spike(rate: float, seconds: float, steps: int, factor: float) -> list[Stage]:
    """One rate, `factor` times it for a sixth of the time, and one rate again."""
    length = seconds * SPIKE_S
    before = (seconds - length) / 2
    return [
        Stage("before", 0.0, before, rate),
        Stage("spike", before, length, rate * factor),
        Stage("after, first half", before + length, before / 2, rate),
        Stage("after, second half", before + length + before / 2, before / 2, rate),
    ]


def day(rate: float, seconds: float, steps: int, factor: float) -> list[Stage]:
    """A working day: `rate` at 14:00, a `factor`-th of it at 2:00, an hour a stage."""
    low = rate / factor
    rates = [
        low + (rate - low) * (1 - math.cos(math.tau * (hour - 2) / HOURS)) / 2
        for hour in range(HOURS)
    ]
    return _row([(f"{hour:02}:00", each) for hour, each in enumerate(rates)], seconds)


#: A soak is a constant rate for hours; what matters is whether its parts differ.
SHAPES: dict[str, Callable[[float, float, int, float], list[Stage]]] = {
    "constant": constant,
    "steps": steps,
    "spike": spike,
    "day": day,
    "soak": constant,
}
#: Seconds, where `--run-time` says nothing.
SECONDS = {"constant": 60, "steps": 120, "spike": 120, "day": 480, "soak": 8 * 3600}


def stages(shape: str, *, rate: float, seconds: float, steps: int, factor: float) -> list[Stage]:
    """Give the stages of a shape.

    Args:
        shape: a name of SHAPES.
        rate: requests per second; the highest, but for a spike.
        seconds: of the whole load.
        steps: stages of `constant`, `steps` and `soak`.
        factor: how high a spike is, and how deep a night.

    Raises:
        InputError: a figure is out of range.
    """
    for name, value, least in (
        ("--rate", rate, 0.0),
        ("--run-time", seconds, 0.0),
        ("--steps", steps, 0.0),
        ("--factor", factor, 1.0),
    ):
        if not least < value < math.inf:
            raise InputError("{0} is {1}; expected more than {2}", name, f"{value:g}", f"{least:g}")
    return SHAPES[shape](rate, seconds, steps, factor)


def stage_at(stages: Sequence[Stage], seconds: float) -> int | None:
    """Give the stage under way after some seconds, or None when all have passed."""
    for index, stage in enumerate(stages):
        if seconds < stage.start_s + stage.length_s:
            return index
    return None


def _row(rates: list[tuple[str, float]], seconds: float) -> list[Stage]:
    length = seconds / len(rates)
    return [Stage(name, i * length, length, rate) for i, (name, rate) in enumerate(rates)]
