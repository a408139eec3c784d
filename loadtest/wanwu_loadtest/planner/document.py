"""An answer of the planner as plain values, for JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from wanwu_loadtest.planner.answer import Answer
from wanwu_loadtest.planner.capacity import HourPlan
from wanwu_loadtest.planner.sweep import SWEPT, Sweep

#: Columns of the series are rounded to this many digits after the point.
DIGITS = 3


def as_dict(answered: Answer, swept: Sweep | None = None, *, series: bool = False) -> Any:
    """Give an answer as plain values; with `series` each tick of the simulation too."""
    found: dict[str, Any] = {
        "p95_ms": answered.question.p95_ms,
        "pod": _pod(answered),
        "hours": [_hour(each) for each in answered.plan.hours],
        "simulation": _simulation(answered),
        "static": {
            "replicas": answered.plan.peak_replicas,
            "pod_hours": answered.plan.static_pod_hours,
            "cost": answered.plan.static_cost,
        },
    }
    if swept:
        found["sweep"] = _sweep(swept)
    if series:
        found["series"] = {
            name: [None if np.isnan(each) else round(each, DIGITS) for each in column.tolist()]
            for name, column in answered.outcome.columns.items()
        }
    return found


def write_json(path: Path, found: Any) -> None:
    """Write plain values."""
    path.write_bytes(msgspec.json.encode(found, enc_hook=str) + b"\n")


def _pod(answered: Answer) -> dict[str, Any]:
    surface, rate = answered.surface, answered.plan.rate
    response = surface.at(rate)
    return {
        "capacity": surface.capacity,
        "rate_within_p95": rate,
        "p50_ms": surface.percentile_ms(rate, 50),
        "p95_ms": surface.percentile_ms(rate, 95),
        "p99_ms": surface.percentile_ms(rate, 99),
        "queue_ms": response.queue_s * 1000,
        "gpu_utilization": response.busy,
        "overhead_ms": surface.pod.overhead_s * 1000,
        "measured_knee": answered.knee_rate,
        "surface": [
            {
                "rate": each,
                "p50_ms": surface.percentile_ms(each, 50),
                "p95_ms": surface.percentile_ms(each, 95),
                "p99_ms": surface.percentile_ms(each, 99),
                "queue_ms": surface.queue_s[row] * 1000,
                "utilization": surface.utilization[row],
                "gpu_utilization": surface.busy[row],
                "rejected_share": surface.rejected[row],
            }
            for row, each in enumerate(surface.rates)
        ],
    }


def _hour(each: HourPlan) -> dict[str, Any]:
    return {
        "hour": each.hour.label,
        "peak_pictures_per_second": each.hour.peak,
        "pictures": each.hour.pictures,
        "replicas": each.replicas,
        "replicas_with_spare": each.with_spare,
        "gpus": each.gpus,
        "cost": each.cost,
    }


def _simulation(answered: Answer) -> dict[str, Any]:
    outcome, values = answered.outcome, answered.scenario.values
    return {
        "driver": values.driver,
        "min_replicas": values.min_replicas,
        "max_replicas": values.max_replicas,
        "pod_start_s": answered.scenario.pod_start_s,
        "kept_share": answered.kept_share,
        "arrived": float(outcome["arrived"].sum()),
        "answered": float(outcome["answered"].sum()),
        "rejected": float(outcome["rejected"].sum()),
        "most_replicas": int(outcome["desired"].max()),
        "pod_hours": outcome.pod_hours,
        "cost": answered.cost,
    }


def _sweep(swept: Sweep) -> dict[str, Any]:
    return {
        "trials": [
            {
                **{path: getattr(each.values, name) for name, path in SWEPT.items()},
                "meets": each.meets,
                "kept_share": each.kept_share,
                "rejected_share": each.rejected_share,
                "pod_hours": each.pod_hours,
            }
            for each in swept.trials
        ],
        "findings": [
            {"value": each.path, "chart": each.chart, "best": each.best}
            for each in swept.findings()
        ],
    }
