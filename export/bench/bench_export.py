"""Benchmark what an export gives: size, memory, load time, speed and cosine of every precision.

    make bench-export          # Chinese-CLIP ViT-B/16 at full size, random weights
    make bench-export CHECKPOINT=FOLDER

Each precision is exported by the `wanwu` command and measured in processes of its own; the rounds
take turns, and the medians of all rounds are printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine, run_wanwu

BATCHES = (1, 8, 16)
ROUNDS, REPEATS, SERVED = 3, 5, 20
PRECISIONS = ("fp32", "fp16", "int8")
LENGTH = 14
LABELS = ("猫", "狗", "火锅", "高铁站")


def main() -> None:
    """Export in every precision, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="a folder; without it one is made")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make)
        return
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="wanwu-bench-") as name:
        folder = Path(name)
        checkpoint = arguments.checkpoint or folder / "checkpoint"
        if arguments.checkpoint is None:
            # Apart, since a process's largest memory counts for those it starts as well.
            _apart("--make", str(checkpoint))
        _run(folder, checkpoint)


def make(folder: Path) -> None:
    """Save a Chinese-CLIP ViT-B/16 with random weights."""
    from support.checkpoints import FULL_SIZE, make_checkpoint

    make_checkpoint(FULL_SIZE, folder)


def _run(folder: Path, checkpoint: Path) -> None:
    labels = folder / "labels.txt"
    labels.write_text("\n".join(LABELS), encoding="utf-8")
    weights = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    print(f"{checkpoint.name}: {weights / 1e6:.0f} MB of FP32 weights, {machine()}\n")
    print("| export | seconds | peak memory | of the FP32 size | image cosine | text cosine |")
    print("| --- | --- | --- | --- | --- | --- |")
    for precision in PRECISIONS:
        seconds, peak = _export(checkpoint, precision, folder / precision, labels)
        cosines = _cosines(folder / precision)
        print(
            f"| {precision} | {seconds:.0f} | {peak / 1e6:.0f} MB | {peak / weights:.2f} x "
            f"| {cosines['image']:.6f} | {cosines['text']:.6f} |",
            flush=True,
        )
    print("\n| served by Triton | ready | ms a photograph, file to answer |")
    print("| --- | --- | --- |")
    for precision in ("fp32", "int8"):
        ready, spent = _serve(folder / precision)
        print(f"| {precision} | {ready:.1f} s | {spent:.1f} |", flush=True)
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(ROUNDS):
        for side in ("image", "text"):
            for runner in ("PyTorch fp32", *PRECISIONS):
                path = checkpoint if runner.startswith("PyTorch") else folder / runner
                results.setdefault((side, runner), []).append(_measure_apart(side, runner, path))
    for side, what in (("image", "picture"), ("text", f"label of {LENGTH} tokens")):
        print(f"\n| {side} tower | size | load | memory | ms a {what}, batch 1 | 8 | 16 | at 8 |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        base = _median(results[side, "fp32"], "ms_8")
        for runner in ("PyTorch fp32", *PRECISIONS):
            rows = results[side, runner]
            speed = " | ".join(f"{_median(rows, f'ms_{batch}'):.1f}" for batch in BATCHES)
            name = runner if runner.startswith("PyTorch") else f"onnxruntime {runner}"
            print(
                f"| {name} | {_median(rows, 'size') / 1e6:.0f} MB | {_median(rows, 'load_s'):.2f} s"
                f" | {_median(rows, 'memory') / 1e6:.0f} MB | {speed} "
                f"| {base / _median(rows, 'ms_8'):.2f} x |"
            )


def _export(checkpoint: Path, precision: str, output: Path, labels: Path) -> tuple[float, int]:
    return run_wanwu(
        *("export", str(checkpoint), "--precision", precision, "--output", str(output)),
        *("--labels", str(labels), "--templates", "bare"),
    )


def _serve(repository: Path) -> tuple[float, float]:
    """Serve an export with a real Triton: seconds until it is ready, median ms of a photograph."""
    from wanwu import Recognizer
    from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
    from wanwu.samples import cat_photo

    options = ServerOptions(repository, grpc_port=free_port(), metrics_port=None)
    started = time.perf_counter()
    with EmbeddedServer(options) as server, Recognizer(server.url, timeout_s=60) as recognizer:
        ready = time.perf_counter() - started
        times = []
        for _ in range(SERVED + 1):
            started = time.perf_counter()
            recognizer.recognize(cat_photo())
            times.append(time.perf_counter() - started)
    return ready, statistics.median(times[1:]) * 1000


def _cosines(repository: Path) -> dict[str, float]:
    from wanwu.repository import newest_release

    towers = newest_release(repository).parity.towers
    return {side: checks[-1].least_cosine for side, checks in towers.items()}


def _measure_apart(side: str, runner: str, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        _apart("--measure", side, runner, str(path)).splitlines()[-1]
    )
    return found


def _apart(*arguments: str) -> str:
    """Run this script in a process of its own and give what it printed."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def measure(side: str, runner: str, path: str) -> dict[str, Any]:
    """Measure one tower in this process: bytes, seconds to load, memory, ms an item."""
    prepare = _torch_tower if runner.startswith("PyTorch") else _onnx_tower
    _import(runner)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    run, size = prepare(side, Path(path))
    found: dict[str, Any] = {"size": size, "load_s": time.perf_counter() - started}
    for batch in BATCHES:
        inputs = _inputs(side, batch)
        run(inputs)
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            run(inputs)
            times.append(time.perf_counter() - started)
        found[f"ms_{batch}"] = statistics.median(times) / batch * 1000
    found["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return found


def _import(runner: str) -> None:
    """Load the libraries first, so that their own memory is not counted as the model's."""
    if runner.startswith("PyTorch"):
        import transformers  # noqa: F401

        import wanwu_export.checkpoint.model  # noqa: F401
    else:
        import onnxruntime  # noqa: F401


def _torch_tower(side: str, folder: Path) -> tuple[Any, int]:
    import torch

    from wanwu.contract import Precision
    from wanwu_export.checkpoint.model import load_checkpoint
    from wanwu_export.checkpoint.source import locate
    from wanwu_export.dual_tower import ImageEncoder, TextEncoder

    tower = load_checkpoint(locate(str(folder)), Precision(image="fp32", text="fp32"))
    module = (ImageEncoder if side == "image" else TextEncoder)(tower).eval()
    size = sum(weights.nbytes for weights in module.parameters())

    @torch.no_grad()
    def run(inputs: np.ndarray) -> Any:
        return module(torch.from_numpy(inputs))

    return run, size


def _onnx_tower(side: str, repository: Path) -> tuple[Any, int]:
    import onnxruntime

    folder = repository / f"{side}_encoder" / "1"
    path = folder / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    size = sum(part.stat().st_size for part in folder.glob("model.onnx*"))
    return lambda inputs: session.run(None, {name: inputs}), size


def _inputs(side: str, batch: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    if side == "image":
        return generator.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
    return generator.integers(5, 1000, (batch, LENGTH), dtype=np.int64)


def _median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


if __name__ == "__main__":
    main()
