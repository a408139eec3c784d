"""Measure a load on the embedded Triton: the knee, 80 % and 150 % of it, and the planner's queue.

make bench-load                          # the starter of model_repository/, about 12 minutes
make bench-load OPTIONS="--soak-s 30"    # shorter
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np

from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu_loadtest.machine import machine
from wanwu_loadtest.planner import chart_values, pod_model, run_pod
from wanwu_loadtest.results import Results, Window

#: Of the knee: the loads at which the simulated queue is held against the measured one.
LOADS = (0.4, 0.6, 0.8)
#: Its window is 60 s, so that a load of one minute or more fills it.
SUMMARY = 'nv_inference_request_summary_us{model="image_encoder",version="1",quantile="0.95"} '


class Bench:
    """Loads one server, and keeps what each load showed."""

    def __init__(self, server: EmbeddedServer, folder: Path, photos: str | None) -> None:
        self.server, self._folder = server, folder
        self._photos = ["--photos", photos] if photos else []

    def load(self, name: str, seconds: float, rate: float, *options: str) -> tuple[int, Results]:
        """Run one load, and give its exit code and results."""
        folder = self._folder / name
        command = [
            *(str(Path(sys.executable).with_name("wanwu")), "loadtest", "--host", self.server.url),
            *("--run-time", f"{seconds:g}s", "--rate", f"{rate:g}", "--report", str(folder)),
            *("--decode", "once", *self._photos, *options),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if not (folder / "results.json").is_file():
            sys.exit(
                f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        print(f"## {name}, exit code {done.returncode}\n")
        print(done.stdout.partition("\nstage")[2].partition("\n[")[0].join(["stage", "\n"]))
        return done.returncode, Results.read(folder / "results.json")

    def triton_p95_ms(self) -> float:
        """Give the P95 that Triton itself has seen in the last minute."""
        url = f"http://127.0.0.1:{self.server.options.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(SUMMARY)).split()[-1]) / 1000


def p95_of(window: Window) -> float:
    """Give the P95 of the calls to the image tower."""
    assert window.call is not None
    return window.call.p95_ms


def main() -> None:
    """Measure, and print tables for docs/loadtest.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--photos", help="folder of photographs")
    parser.add_argument("--highest", type=float, default=120.0, help="of the steps, requests/s")
    parser.add_argument(
        "--p95-ms", type=float, default=300.0, help="objective, which sets the knee"
    )
    parser.add_argument("--keep", type=Path, help="folder for the reports")
    parser.add_argument("--soak-s", type=float, default=300.0, help="seconds at 80 %%")
    arguments = parser.parse_args()
    options = ServerOptions(
        arguments.model_repository,
        grpc_port=free_port(),
        metrics_port=free_port(),
        arguments=("--metrics-config=summary_latencies=true",),
    )
    print("machine:", ", ".join(f"{name} {value}" for name, value in machine().items()), "\n")
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(options) as server:
        measure(Bench(server, arguments.keep or Path(folder), arguments.photos), arguments)


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    """Find the knee, load at 80 % and 150 % of it, and compare the planner's queue."""
    objective = ("--p95-ms", f"{arguments.p95_ms:g}", "--shape")
    _, steps = bench.load("steps", 96, arguments.highest, *objective, "steps", "--steps", "12")
    if steps.knee is None:
        sys.exit("the lowest step is past the knee: name a higher --highest")
    knee = steps.knee.rate
    parts = (*objective, "constant", "--steps", "5")
    code, soak = bench.load("soak", arguments.soak_s, knee * 0.8, *parts)
    triton_ms = bench.triton_p95_ms()
    past, _ = bench.load("past", 30, knee * 1.5, *parts)
    last = soak.windows[-1]
    print("| | |\n| --- | --- |")
    print(f"| knee | {knee:.1f} requests/s, P95 {steps.knee.p95_ms:.0f} ms |")
    print(f"| 80 % for {arguments.soak_s:.0f} s | exit code {code}, {soak.total.sent} requests, "
          f"{soak.total.errors} errors |")  # fmt: skip
    assert last.latency is not None
    print(f"| P95 of its last part: callers, calls, Triton's own | {last.latency.p95_ms:.0f}, "
          f"{p95_of(last):.0f}, {triton_ms:.1f} ms: {p95_of(last) / triton_ms:.2f} |")  # fmt: skip
    print(f"| 150 % | exit code {past} |\n")
    # As `wanwu plan` takes it: from the lightest step.
    spread = pod_model(steps, chart_values({})).cv
    print("| of the knee | requests/s | P95 of calls, measured | simulated | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for share in LOADS:
        _, one = bench.load(f"at-{share:g}", 60, knee * share, "--shape", "constant", "--steps=1")
        simulated = simulated_p95_ms(one, knee * share, spread)
        measured = p95_of(one.total)
        print(f"| {share:.0%} | {knee * share:.1f} | {measured:.0f} ms | {simulated:.0f} ms | "
              f"{simulated / measured:.2f} |", flush=True)  # fmt: skip


def simulated_p95_ms(results: Results, rate: float, spread: float) -> float:
    """Give the P95 of the planner's queue at a rate, with the wire of the measured calls."""
    pod = pod_model(results, chart_values({}), cv=spread)
    run = run_pod(pod, rate, requests=20_000)
    total = results.total
    assert total.call is not None
    assert total.server is not None
    wire_ms = total.call.mean_ms - total.server.request_ms
    return float(np.percentile(run.latency_s, 95)) * 1000 + wire_ms


if __name__ == "__main__":
    main()
