"""The figures of a card as Markdown, judged against the goals: data in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from gpu_served import Cell
from gpu_tower import Found

PAGE = Path(__file__).with_name("gpu_page.md")
NOT_RUN = "No card has been measured yet."
DRY_RUN = (
    "**A dry run on the CPU provider: it shows that the benchmark runs, and says nothing about any "
    "GPU.**"
)
#: Served against the tower alone, and batches against one at a time.
LEAST_SERVED, LEAST_BATCHED = 0.8, 5.0
FP16 = "onnxruntime fp16"


class Report(msgspec.Struct):
    """What one run found. `gpu` is the card's name, None in a dry run."""

    gpu: str | None
    when: str
    machine: dict[str, Any]
    minutes: float = 0.0
    towers: dict[str, dict[str, Found]] = msgspec.field(default_factory=dict)
    cosines: dict[str, dict[str, float]] = msgspec.field(default_factory=dict)
    served: list[Cell] = msgspec.field(default_factory=list)
    left_out: list[str] = msgspec.field(default_factory=list)


class Goal(msgspec.Struct, frozen=True):
    """One goal: what was reached of what, None where a part was not measured."""

    what: str
    reached: float | None
    least: float

    @property
    def verdict(self) -> str:
        """Whether it was reached."""
        if self.reached is None:
            return "not measured"
        return f"{self.reached:.2f}, " + ("reached" if self.reached >= self.least else "**missed**")


def goals(report: Report) -> list[Goal]:
    """Judge a run, size by size."""
    found = []
    for size, engines in report.towers.items():
        speeds = {each.batch: each.rate for each in engines[FP16].speeds} if FP16 in engines else {}
        rates = {
            cell.in_flight: cell.rate
            for cell in report.served
            if (cell.size, cell.precision, cell.kind) == (size, "fp16", "pixels")
        }
        best = max(rates.values(), default=None)
        for what, base, least in (
            (
                "served, of the tower's own best rate",
                max(speeds.values(), default=None),
                LEAST_SERVED,
            ),
            ("served, times the tower at batch 1", speeds.get(1), LEAST_BATCHED),
            ("served, times one request at a time", rates.get(1), LEAST_BATCHED),
        ):
            found.append(
                Goal(f"{size} fp16, {what}", best / base if best and base else None, least)
            )
    return found


def page(report: Report | None) -> str:
    """Return docs/gpu-benchmark.md: how to run, and what a run found."""
    figures = NOT_RUN if report is None else "\n".join(_figures(report))
    return PAGE.read_text(encoding="utf-8").replace("FIGURES\n", f"{figures}\n")


def _figures(report: Report) -> Iterator[str]:
    machine = report.machine
    yield f"{report.gpu or DRY_RUN}\n"
    yield (
        f"{report.when}, {machine['cpu']}, {len(machine['cores'])} cores, Python "
        f"{machine['python']}; one run of {report.minutes:.1f} minutes, medians.\n"
    )
    yield from _table(
        ("goal", "at least", "seen"),
        (
            (goal.what, f"{goal.least:g}", goal.verdict if report.gpu else "dry run")
            for goal in goals(report)
        ),
    )
    yield "## The image tower alone\n"
    for size, engines in report.towers.items():
        yield from _tower(size, engines)
    yield "Cosines to the FP32 file on the CPU, the least of 16 pictures:\n"
    yield from _table(
        ("size", "engine", "least cosine"),
        (
            (size, name, f"{value:.6f}")
            for size, each in report.cosines.items()
            for name, value in each.items()
        ),
    )
    yield "## Served by Triton over gRPC\n"
    yield from _table(COLUMNS, map(_served, report.served))
    if report.left_out:
        yield "## Left out\n"
        yield from (f"* {text}" for text in report.left_out)


def _tower(size: str, engines: Mapping[str, Found]) -> Iterator[str]:
    batches = sorted({each.batch for found in engines.values() for each in found.speeds})
    yield from _table(
        (size, *(f"batch {batch}: ms; images/s" for batch in batches), "MB loaded", "MB at most"),
        (
            (
                name,
                *(_speed(found, batch) for batch in batches),
                f"{found.loaded_mb:.0f}",
                f"{found.peak_mb:.0f}",
            )
            for name, found in engines.items()
        ),
    )


def _speed(found: Found, batch: int) -> str:
    for each in found.speeds:
        if each.batch == batch:
            return f"{each.ms:.2f}; {each.rate:.0f}"
    return ""


COLUMNS = (
    *("size", "precision", "sent", "labels", "in flight", "images/s", "p50 ms", "p95 ms"),
    *(
        "mean batch",
        "most batches of",
        "cores: callers, Triton",
        "GPU use: Triton, nvidia-smi",
        "failures",
    ),
)


def _served(cell: Cell) -> Sequence[str]:
    common = sorted(cell.batches, key=lambda size: -cell.batches[size])[:3]
    use = (cell.gpu_use_triton, cell.gpu_use_smi)
    return (
        *(cell.size, cell.precision, cell.kind, f"{cell.labels:,}", str(cell.in_flight)),
        *(f"{cell.rate:.0f}", f"{cell.p50_ms:.1f}", f"{cell.p95_ms:.1f}", f"{cell.mean_batch:.1f}"),
        ", ".join(map(str, common)),
        f"{cell.caller_cores:.1f}, {cell.server_cores:.1f}",
        ", ".join("none" if each is None else f"{each:.2f}" for each in use),
        "; ".join(cell.failures),
    )


def _table(
    columns: Sequence[str], rows: Iterator[Sequence[str]] | map[Sequence[str]]
) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
    yield ""
