"""The benchmark's findings as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping

from results import Cell, Loss, Whole, ahead

#: What each system is compared with, and the column's title.
BASES = {"wanwu-grpc-fp32": "Wanwu fp32 is", "wanwu-grpc-int8": "Wanwu int8 is"}
LARGEST_LISTED = 60


def markdown(
    cells: list[Cell],
    wholes: Mapping[str, Whole],
    titles: Mapping[str, str],
    lost: list[Loss],
    ours: list[str],
    conditions: str,
    left_out: Mapping[str, str],
) -> str:
    """Write the whole report."""
    parts = [
        [conditions],
        _loads(cells, titles),
        _wholes(wholes, titles),
        list(_verdict(cells, lost, titles, ours)),
        [f"Not compared: {name}, since {why}." for name, why in left_out.items()],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _loads(cells: list[Cell], titles: Mapping[str, str]) -> list[str]:
    known = {(cell.system, cell.labels, cell.clients): cell for cell in cells}
    columns = ("labels", "clients", "system", "pictures/s", "p50 ms", "p95 ms")
    columns += ("server CPU s a picture", "caller CPU s", "failed", *BASES.values())
    lines = [_row(columns), _row(["---"] * len(columns))]
    for cell in sorted(cells, key=lambda c: (c.labels, c.clients, list(titles).index(c.system))):
        head = (f"{cell.labels:,}", cell.clients, titles[cell.system])
        bases = [known.get((name, cell.labels, cell.clients)) for name in BASES]
        ratios = [_ratio(base, cell) for base in bases]
        if not cell.pictures:
            lines.append(_row([*head, cell.problem or "", *[""] * 4, cell.failed, *ratios]))
            continue
        figures = (f"{cell.rate:.2f}", f"{cell.p50_ms:.0f}", f"{cell.p95_ms:.0f}")
        cpu = (f"{cell.server_cpu_s:.3f}", f"{cell.caller_cpu_s:.4f}")
        lines.append(_row([*head, *figures, *cpu, cell.failed, *ratios]))
    return lines


def _ratio(base: Cell | None, cell: Cell) -> str:
    if base is None or not (base.comparable and cell.comparable):
        return ""
    return f"{base.rate / cell.rate:.2f} x"


def _wholes(wholes: Mapping[str, Whole], titles: Mapping[str, str]) -> list[str]:
    columns = ("system", "start to first answer, s", "peak memory of the server, MB")
    columns += ("largest difference of a probability from Wanwu's in fp32", "problems")
    lines = [_row(columns), _row(["---"] * len(columns))]
    for name, whole in wholes.items():
        cold = f"{statistics.median(whole.cold_start_s):.1f}" if whole.cold_start_s else ""
        peak = f"{max(whole.peak_bytes) / 1e6:.0f}" if whole.peak_bytes else ""
        off_by = "" if whole.off_by is None else f"{whole.off_by:.4f}"
        problems = "; ".join(dict.fromkeys(whole.problems))
        lines.append(_row([titles[name], cold, peak, off_by, problems]))
    return lines


def _verdict(
    cells: list[Cell], lost: list[Loss], titles: Mapping[str, str], ours: list[str]
) -> Iterator[str]:
    """Say of every Wanwu system whether it is ahead of every peer in every cell, else where not."""
    for system in ours:
        mine = [loss for loss in lost if loss.ours == system]
        count = ahead(cells, lost, system, ours)
        end = "Behind:" if mine else "Nowhere behind, in no metric."
        yield (
            f"* {titles[system]}: ahead of every peer in pictures/s in {count} cells where a peer "
            f"has figures. {end}"
        )
        for loss in mine[:LARGEST_LISTED]:
            yield (
                f"  * {titles[loss.peer]}, {loss.labels:,} labels, {loss.clients} clients, "
                f"{loss.metric}: {loss.our_value:.3g} against {loss.peer_value:.3g} "
                f"({loss.ratio:.2f} x)"
            )
        if len(mine) > LARGEST_LISTED:
            yield f"  * and {len(mine) - LARGEST_LISTED} more, in the JSON"


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
