"""Results and traffic that tests of the planner write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from wanwu_loadtest.results import (
    BatchTime,
    Knee,
    Latency,
    Results,
    Server,
    Service,
    Verdict,
    Window,
)


def window(rate: float, p50_ms: float, *, pictures: int = 1) -> Window:
    """Requests of which 6 ms are the model's and 1 ms the queue's."""
    return Window(
        name=f"{rate:g}",
        start_s=0,
        length_s=10,
        planned_rate=rate,
        sent=int(rate * 10),
        pictures=int(rate * 10) * pictures,
        errors=0,
        rate=rate,
        latency=Latency(
            p50_ms=p50_ms, p95_ms=p50_ms + 2, p99_ms=p50_ms + 3, max_ms=p50_ms + 4, mean_ms=p50_ms
        ),
        server=Server(
            pictures=int(rate * 10) * pictures,
            requests=int(rate * 10),
            executions=10,
            failed=0,
            request_ms=7.0,
            queue_ms=1.0,
            compute_ms=6.0,
        ),
    )


def results(**changes: Any) -> Results:
    """One GPU pod: 4 ms and 0.8 ms a picture, 3 ms beside; it kept up with 800 a second."""
    service = Service(
        instances=1,
        max_batch_size=16,
        preferred_batch_sizes=[],
        queue_delay_us=1000,
        max_queue_size=64,
        batches=[BatchTime(size=n, count=50, mean_ms=4 + 0.8 * n) for n in (1, 4, 16)],
    )
    whole = Results(
        schema=1,
        started="2026-11-23T08:00:00",
        wire="grpc",
        url="127.0.0.1:8001",
        model="tiny",
        shape="steps",
        options={},
        machine={},
        total=window(50, 12),
        windows=[window(90, 30), window(5, 10)],
        service=service,
        knee=Knee(rate=800, p95_ms=60),
        verdict=Verdict(p95_ms=None, error_rate=None, reasons=[]),
    )
    return msgspec.structs.replace(whole, **changes)


def write(folder: Path, *rates: float) -> list[str]:
    """Write results and two hours of traffic, and give the options that name them."""
    results().write(folder / "R.json")
    rows = [f"{8 + hour:02}:00,{rate}" for hour, rate in enumerate(rates)]
    (folder / "T.csv").write_text("\n".join(["time,pictures_per_second", *rows]))
    return ["--results", str(folder / "R.json"), "--traffic", str(folder / "T.csv")]
