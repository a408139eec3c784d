"""The picture of a load: latency against rate with the knee, and both over time."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from wanwu_loadtest.results import Results, Window

LINES = (("p50_ms", "P50", "#4c78a8"), ("p95_ms", "P95", "#f58518"), ("p99_ms", "P99", "#e45756"))


def draw(results: Results, path: Path) -> None:
    """Write the picture as PNG."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    against_rate, over_time = figure.subplots(1, 2)
    _against_rate(against_rate, results)
    _over_time(over_time, results)
    figure.savefig(path, dpi=120)


def _against_rate(axes: Axes, results: Results) -> None:
    windows = sorted(_answered(results), key=lambda window: window.planned_rate)
    rates = [window.planned_rate for window in windows]
    for name, label, colour in LINES:
        latencies = [getattr(window.latency, name) for window in windows]
        axes.plot(rates, latencies, marker="o", color=colour, label=label)
    if results.knee is not None:
        axes.axvline(results.knee.rate, color="#54a24b", linestyle="--")
        axes.annotate(
            f"knee {results.knee.rate:.3g}/s",
            (results.knee.rate, results.knee.p95_ms),
            textcoords="offset points",
            xytext=(-6, 24),
            ha="right",
            color="#54a24b",
        )
    _objective(axes, results)
    axes.set(xlabel="planned rate, requests/s", ylabel="latency from the intended moment, ms")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="both")
    axes.legend()


def _over_time(axes: Axes, results: Results) -> None:
    starts = [window.start_s for window in results.windows]
    if not starts:
        return
    ends = [*starts[1:], results.windows[-1].start_s + results.windows[-1].length_s]
    planned = [window.planned_rate for window in results.windows]
    answered = [window.rate for window in results.windows]
    axes.stairs(planned, [*starts, ends[-1]], color="#888888", label="planned rate")
    axes.stairs(answered, [*starts, ends[-1]], color="#4c78a8", label="answered rate")
    axes.set(xlabel="seconds", ylabel="requests/s", ylim=(0, None))
    latency = axes.twinx()
    windows = _answered(results)
    middles = [window.start_s + window.length_s / 2 for window in windows]
    p95s = [window.latency.p95_ms for window in windows if window.latency]
    latency.plot(middles, p95s, color="#f58518", marker="o", label="P95")
    latency.set(ylabel="P95, ms", ylim=(0, None))
    lines = [*axes.get_legend_handles_labels()[0], *latency.get_legend_handles_labels()[0]]
    axes.legend(lines, ["planned rate", "answered rate", "P95"], loc="upper left")


def _objective(axes: Axes, results: Results) -> None:
    if results.verdict.p95_ms is not None:
        axes.axhline(
            results.verdict.p95_ms, color="#e45756", linestyle=":", label="objective for P95"
        )


def _answered(results: Results) -> list[Window]:
    return [window for window in results.windows if window.latency is not None]
