"""Measure a GPU: the towers in onnxruntime and PyTorch, and the same towers behind Triton.

    make bench-gpu                                             # 8 minutes on a card
    make bench-gpu OPTIONS="--quick --output /tmp/rehearsal"   # a dry run without one

It needs no network and no checkpoint. docs/gpu-benchmark.md says which packages it takes.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

try:
    import gpu_tower
    import msgspec
    import numpy as np
    from gpu_page import FP16, Report, page
    from gpu_served import START_S, Server, served
    from machine import describe
except ImportError as missing:
    sys.exit(f"{missing}; run: pip install 'wanwu[export,server-gpu]'")

from wanwu.embedded.device import CudaError, try_cuda

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
FP32, REFERENCE = "onnxruntime fp32", "onnxruntime fp32 on the CPU"
EAGER, COMPILED = "PyTorch fp16, eager", "PyTorch fp16, compiled"
VARIANTS = ("onnxruntime fp16, pinned buffers bound", "onnxruntime fp32, TF32 products")
#: Compiling takes a quarter of a minute for each size of a batch.
COMPILED_BATCHES = (1, 64)
#: A part that takes longer than was thought is ended so long after the budget.
GRACE_S = 20.0


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    sizes: tuple[str, ...]
    batches: tuple[int, ...]
    in_flight: tuple[int, ...]
    labels: tuple[int, ...]
    seconds: float
    served_s: float


FULL = Plan(("ViT-B/16", "ViT-L/14"), (1, 8, 32, 64), (1, 8, 32, 128), (18, 1000, 50_000), 1.0, 3.0)
QUICK = Plan(("small",), (1, 8), (1, 8), (18, 1000), 0.2, 1.0)


class Bench:
    """Measures part after part while the time lasts, and keeps the report."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        gpu: str | None,
        budget_s: float,
        report: Report,
        skip: Sequence[str] = (),
    ) -> None:
        self._plan, self._folder, self._gpu, self._skip = plan, folder, gpu, skip
        self._began, self._budget_s = time.monotonic(), budget_s
        self.report = report

    def part(self, what: str, seconds: float, work: Callable[[], None]) -> None:
        """Do a part if there is time for it; say of one without time, or that fails, why."""
        spent = time.monotonic() - self._began
        if any(text in what for text in self._skip):
            self.report.left_out.append(f"{what}: by --skip")
            return
        if spent + seconds > self._budget_s:
            self.report.left_out.append(f"{what}: no time left of {self._budget_s:.0f} s")
            return
        print(f"{spent:6.1f} s  {what}", file=sys.stderr, flush=True)
        try:
            work()
        except Exception as error:  # the others may still be measured
            self.report.left_out.append(f"{what}: {type(error).__name__}: {str(error)[-300:]}")
        self.report.minutes = (time.monotonic() - self._began) / 60

    def run(self) -> None:
        """Do all parts, the most important first."""
        plan = self._plan
        # Long lists are measured with the first size alone.
        lists = [plan.labels, *[plan.labels[:1]] * (len(plan.sizes) - 1)]
        exports = [
            _export(size, self._folder / _plain(size), labels)
            for size, labels in zip(plan.sizes, lists, strict=True)
        ]
        try:
            for size, process in zip(plan.sizes, exports, strict=True):
                finish = partial(_finish, process, self._left_s)
                self.part(f"{size}: export", 60, finish)
        finally:
            for process in exports:
                process.kill()
        first, *others = plan.sizes
        self._tower(first, (FP16, FP32, REFERENCE))
        self._serve(first, "fp16", ("pixels", "JPEG"), plan.in_flight)
        for size in others:
            self._tower(size, (FP16, FP32, REFERENCE))
            self._serve(size, "fp16", ("pixels",), plan.in_flight)
        self._serve(first, "fp16", ("JPEG",), plan.in_flight[-2:-1], plan.labels[1:])
        for size in plan.sizes:
            self._tower(size, (EAGER,))
        self._tower(first, (COMPILED,), COMPILED_BATCHES, seconds=60)
        for size in plan.sizes:
            self._tower(size, VARIANTS)
        self._serve(first, "fp32", ("pixels",), plan.in_flight[-1:])
        for size in others:
            self._tower(size, (COMPILED,), COMPILED_BATCHES, seconds=60)

    def _tower(
        self,
        size: str,
        engines: Sequence[str],
        batches: Sequence[int] | None = None,
        seconds: float = 15,
    ) -> None:
        for engine in engines:
            work = partial(self._engine, size, engine, batches or self._plan.batches)
            self.part(f"{size}: {engine}", seconds, work)

    def _engine(self, size: str, engine: str, batches: Sequence[int]) -> None:
        on_cpu = engine == REFERENCE
        folder = self._folder / _plain(size)
        job = gpu_tower.Job(
            engine=engine,
            size=size,
            folder=str(folder),
            gpu=self._gpu is not None,
            batches=[] if on_cpu else list(batches),
            seconds=self._plan.seconds,
            embeddings=str(folder / f"{engine}.npy"),
        )
        path = self._folder / "job.json"
        path.write_bytes(msgspec.json.encode(job))
        output = _run([sys.executable, str(HERE / "gpu_tower.py"), str(path)], self._left_s())
        if not on_cpu:
            found = msgspec.json.decode(output, type=gpu_tower.Found)
            self.report.towers.setdefault(size, {})[engine] = found
            return
        reference = np.load(job.embeddings)
        for each in sorted(folder.glob("onnx*.npy")):
            least = float((np.load(each) * reference).sum(1).min())
            if each.stem != REFERENCE:
                self.report.cosines.setdefault(size, {})[each.stem] = least

    def _serve(
        self,
        size: str,
        precision: str,
        kinds: Sequence[str],
        in_flight: Sequence[int],
        labels: Sequence[int] | None = None,
    ) -> None:
        loads = list(itertools.product(kinds, labels or self._plan.labels[:1], reversed(in_flight)))
        repository = self._folder / _plain(size) / precision

        def serve() -> None:
            with served(repository, size, self._gpu, self._left_s()) as server:
                for load in loads:
                    self._load(server, *load)

        self.part(f"{size} {precision}: served", 25, serve)

    def _load(self, server: Server, kind: str, labels: int, in_flight: int) -> None:
        seconds = self._plan.served_s

        def load() -> None:
            self.report.served.append(server.load(kind, labels, in_flight, seconds))

        what = f"served: {kind}, {labels:,} labels, {in_flight} in flight"
        self.part(what, START_S + seconds, load)

    def _left_s(self) -> float:
        """Return the seconds that a part may still take."""
        return max(1.0, self._began + self._budget_s + GRACE_S - time.monotonic())


def main() -> None:
    """Measure, and write the page and its figures."""
    given = _arguments()
    try:
        gpu: str | None = try_cuda()
    except CudaError as error:
        gpu = None
        print(f"no GPU: {error}; this is a dry run on the CPU", file=sys.stderr)
    when = f"{datetime.now(timezone.utc):%Y-%m-%d}"
    report = Report(gpu, when, describe())
    with tempfile.TemporaryDirectory(prefix="wanwu-gpu-") as folder:
        plan = QUICK if given.quick else FULL
        bench = Bench(plan, Path(folder), gpu, given.budget_s, report, given.skip)
        bench.run()
    output = given.output or (DOCS if gpu else None)
    text = page(report)
    if output is None:
        print(text)
        print("a dry run writes nothing unless --output names a folder", file=sys.stderr)
        return
    output.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (output / "gpu-benchmark.json").write_bytes(encoded + b"\n")
    (output / "gpu-benchmark.md").write_text(text, encoding="utf-8")
    print(f"wrote {output}/gpu-benchmark.md and .json")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small model, short parts")
    parser.add_argument("--output", type=Path, help="folder to write to; [docs/, with a GPU]")
    parser.add_argument("--budget-s", type=float, default=430.0, help="leave out what takes longer")
    parser.add_argument("--skip", nargs="*", default=[], help="leave out parts with such a name")
    return parser.parse_args()


def _export(size: str, folder: Path, labels: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "gpu_models.py"), size, str(folder), *map(str, labels)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _finish(process: subprocess.Popen[bytes], left_s: Callable[[], float]) -> None:
    _, errors = process.communicate(timeout=left_s())
    if process.returncode:
        raise RuntimeError(errors.decode())


def _run(command: Sequence[str], limit_s: float) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout


def _plain(size: str) -> str:
    return size.replace("/", "-")


if __name__ == "__main__":
    main()
