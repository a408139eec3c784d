"""A load's results as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len

from wanwu.cli.language import padded, translate
from wanwu_loadtest.results import Results, Window
from wanwu_loadtest.verdict import remarks

HEAD = ("stage", "planned/s", "answered/s", "errors", "P50 ms", "P95 ms", "P99 ms", "max ms",
        "call P95", "queue", "compute", "batch")  # fmt: skip


def cells(window: Window) -> list[str]:
    """Give a stage as the columns of HEAD."""
    latency, server = window.latency, window.server
    times = ["-"] * 4
    if latency is not None:
        shown = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
        times = [f"{each:.0f}" if each >= 100 else f"{each:.1f}" for each in shown]
    inside = ["-"] * 3
    if server is not None and server.executions:
        batch = server.pictures / server.executions
        inside = [f"{server.queue_ms:.1f}", f"{server.compute_ms:.1f}", f"{batch:.2f}"]
    return [
        window.name,
        f"{window.planned_rate:.1f}",
        f"{window.rate:.1f}",
        f"{window.errors}",
        *times,
        f"{window.call.p95_ms:.1f}" if window.call else "-",
        *inside,
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Give rows with their columns below each other, the first to the left."""
    widths = [max(cell_len(row[each]) for row in rows) for each in range(len(rows[0]))]
    return [
        "  ".join(
            [padded(row[0], widths[0])]
            + [
                " " * (width - cell_len(cell)) + cell
                for cell, width in zip(row[1:], widths[1:], strict=True)
            ]
        ).rstrip()
        for row in rows
    ]


def verdict_lines(results: Results) -> list[str]:
    """Give the knee, the remarks, the errors and the verdict as sentences."""
    lines = []
    if (knee := results.knee) is not None:
        rate, p95_ms = f"{knee.rate:.1f}", f"{knee.p95_ms:g}"
        lines.append(translate("knee: {0} requests/s, P95 {1} ms", rate, p95_ms))
    lines += [translate("note: {0}", remark) for remark in remarks(results.total)]
    lines += [translate("error: {0} x {1}", n, error) for error, n in results.errors.items()]
    lines += [translate("FAILED: {0}", reason) for reason in results.verdict.reasons]
    return lines if results.verdict.reasons else [*lines, translate("passed")]


def told(results: Results, folder: Path) -> str:
    """Give the whole load as text."""
    rows = [
        list(map(translate, HEAD)),
        *(cells(window) for window in results.windows),
        cells(results.total),
    ]
    where = translate("report: {0}", folder / "report.html")
    return "\n".join(["", *table(rows), "", *verdict_lines(results), where])
