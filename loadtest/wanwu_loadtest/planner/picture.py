"""The simulated day as a picture: traffic, replicas, P95 and refused pictures over time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter, date2num
from matplotlib.figure import Figure

from wanwu_loadtest.planner.answer import Answer
from wanwu_loadtest.planner.simulation import Outcome

#: A legend on the line of the title covers no curve.
BESIDE_TITLE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1),
    "frameon": False,
}
BLUE, ORANGE, RED, GREY = "#1f6fb4", "#e07b00", "#c22f2f", "#8a8a8a"


def draw(path: Path, answer: Answer) -> None:
    """Write a PNG of four panels with one time axis."""
    traffic, outcome = answer.question.traffic, answer.outcome
    matplotlib.use("Agg")
    figure = Figure(figsize=(12, 10), dpi=110, layout="constrained")
    panels = figure.subplots(4, 1, sharex=True, height_ratios=[2, 3, 3, 1.5])
    start = traffic.start.replace(tzinfo=None)  # the axis shows the clock of the file
    numbers: Any = date2num
    when = numbers([start + timedelta(seconds=each) for each in outcome["at_s"].tolist()])
    _traffic(panels[0], when, outcome)
    _replicas(panels[1], when, outcome)
    _latency(panels[2], when, outcome, answer.question.p95_ms)
    _rejected(panels[3], when, outcome)
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.margins(x=0)
        panel.set_ylim(bottom=0)
    clock: Any = DateFormatter
    locator: Any = AutoDateLocator
    panels[3].xaxis.set_major_locator(locator())
    panels[3].xaxis.set_major_formatter(clock("%m-%d %H:%M" if traffic.dated else "%H:%M"))
    model, driver = answer.question.results.model, answer.scenario.values.driver
    figure.suptitle(f"{model}, autoscaling.driver {driver}")
    figure.savefig(path)


def _traffic(panel: Axes, when: Any, outcome: Outcome) -> None:
    panel.plot(when, outcome["arrived"] / outcome.tick_s, color=BLUE)
    panel.set_ylabel("pictures / s")
    panel.set_title("Traffic", loc="left", fontsize=10)


def _replicas(panel: Axes, when: Any, outcome: Outcome) -> None:
    panel.step(when, outcome["desired"], color=ORANGE, where="post", label="desired")
    panel.step(when, outcome["ready"], color=BLUE, where="post", label="ready")
    panel.set_ylabel("pods")
    panel.legend(ncols=2, **BESIDE_TITLE)
    panel.set_title("Replicas", loc="left", fontsize=10)


def _latency(panel: Axes, when: Any, outcome: Outcome, p95_ms: float) -> None:
    panel.plot(when, outcome["p95_ms"], color=BLUE, label="callers see")
    panel.plot(
        when, outcome["seen_p95_ms"], color=GREY, linestyle=":", label="the scaler sees (server)"
    )
    panel.axhline(p95_ms, color=RED, linestyle="--", label=f"objective {p95_ms:g} ms")
    panel.set_ylabel("ms")
    panel.legend(ncols=3, **BESIDE_TITLE)
    panel.set_title("P95", loc="left", fontsize=10)


def _rejected(panel: Axes, when: Any, outcome: Outcome) -> None:
    rate = outcome["rejected"] / outcome.tick_s
    panel.fill_between(when, rate, color=RED, alpha=0.6, step="post")
    if not rate.any():
        panel.set_yticks([0, 1])
        panel.text(0.5, 0.5, "none", transform=panel.transAxes, ha="center", color=GREY)
    panel.set_ylabel("pictures / s")
    panel.set_title("Rejected", loc="left", fontsize=10)
