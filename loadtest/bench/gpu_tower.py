"""Measure one engine on one image tower, in a process of its own, so that its memory is its own.

    python gpu_tower.py JOB.json

Prints JSON: ms and images a second by batch, device memory, and where it wrote embeddings.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from gpu_models import SIDE, image_file, make_model

#: Runs a batch of UINT8 [N, H, W, 3] and returns EMBEDDING FP32 [N, D].
Run: TypeAlias = Callable[[Any], Any]
WARM_UPS, LEAST_RUNS = 3, 5


class Job(msgspec.Struct, frozen=True):
    """What to measure. `engine` is one of ENGINES."""

    engine: str
    size: str
    folder: str
    gpu: bool
    batches: list[int]
    seconds: float
    embeddings: str = ""
    #: Pictures whose embeddings are kept.
    kept: int = 16


class Speed(msgspec.Struct, frozen=True):
    """Milliseconds of a batch, the median, and images a second."""

    batch: int
    ms: float
    rate: float


class Found(msgspec.Struct, frozen=True):
    """What one engine showed. Memory is the device's, in MB, over what was in use before."""

    speeds: list[Speed]
    loaded_mb: float
    peak_mb: float


def main() -> None:
    """Measure one engine."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    before = memory_mb(job.gpu)
    run = ENGINES[job.engine](job)
    run(pictures(1, job.size))
    loaded = memory_mb(job.gpu) - before
    if job.embeddings:
        np.save(job.embeddings, run(pictures(job.kept, job.size)))
    speeds = [measure(run, batch, job) for batch in job.batches]
    found = Found(speeds, loaded, memory_mb(job.gpu) - before)
    sys.stdout.buffer.write(msgspec.json.encode(found))


def measure(run: Run, batch: int, job: Job) -> Speed:
    """Run a batch over and over for some seconds, after warming up."""
    images = pictures(batch, job.size)
    for _ in range(WARM_UPS):
        run(images)
    times: list[float] = []
    ends = time.perf_counter() + job.seconds
    while len(times) < LEAST_RUNS or time.perf_counter() < ends:
        started = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - started)
    middle = statistics.median(times)
    return Speed(batch, middle * 1000, batch / middle)


def pictures(count: int, size: str) -> Any:
    """Return pictures of soft random shapes, the same every time: UINT8 [count, H, W, 3]."""
    side = SIDE[size]
    coarse = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(side // 4, axis=1).repeat(side // 4, axis=2))


def memory_mb(gpu: bool) -> float:
    """Return the device memory in use, of all processes; without a GPU this process's memory."""
    if not gpu:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 1e6
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"]
    done = subprocess.run(query, capture_output=True, text=True, check=True)
    return float(done.stdout) * 1.048576


def _session(job: Job, precision: str, *, tf32: bool = False) -> Any:
    path = image_file(Path(job.folder), precision)
    if job.gpu:
        from wanwu.embedded.cuda import cuda_session

        return cuda_session(path, memory_mb=32_768, tf32=tf32)
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _onnx(precision: str, *, tf32: bool = False) -> Callable[[Job], Run]:
    def prepare(job: Job) -> Run:
        session = _session(job, precision, tf32=tf32)
        return lambda images: session.run(["EMBEDDING"], {"PIXELS": images})[0]

    return prepare


def _on_cpu(job: Job) -> Run:
    return _onnx("fp32")(msgspec.structs.replace(job, gpu=False))


def _bound(job: Job) -> Run:
    """Bind pinned buffers on this machine's side, so that the driver copies without staging."""
    import torch

    session = _session(job, "fp16")
    width = session.get_outputs()[0].shape[1]
    buffers: dict[int, tuple[Any, Any, Any]] = {}

    def bind(count: int, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
        given = torch.empty(shape, dtype=torch.uint8, pin_memory=job.gpu)
        answer = torch.empty((count, width), dtype=torch.float32, pin_memory=job.gpu)
        binding = session.io_binding()
        for name, tensor, kind, put in (
            ("PIXELS", given, np.uint8, binding.bind_input),
            ("EMBEDDING", answer, np.float32, binding.bind_output),
        ):
            put(
                name,
                device_type="cpu",
                device_id=0,
                element_type=kind,
                shape=list(tensor.shape),
                buffer_ptr=tensor.data_ptr(),
            )
        return binding, given.numpy(), answer.numpy()

    def run(images: Any) -> Any:
        count = len(images)
        if count not in buffers:
            buffers[count] = bind(count, images.shape)
        binding, given, answer = buffers[count]
        given[:] = images
        session.run_with_iobinding(binding)
        return answer

    return run


def _torch(*, compiled: bool) -> Callable[[Job], Run]:
    """Run what a script of transformers runs: pixel values from this side, FP16 on the device."""

    def prepare(job: Job) -> Run:
        import torch

        device = torch.device("cuda" if job.gpu else "cpu")
        model = make_model(job.size, "sdpa").to(device, torch.float16)

        def features(values: Any) -> Any:
            return model.get_image_features(pixel_values=values).pooler_output

        call = torch.compile(features, dynamic=False) if compiled else features

        @torch.inference_mode()
        def run(images: Any) -> Any:
            values = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 255
            found = call(values.to(device).to(torch.float16)).float()
            return torch.nn.functional.normalize(found, dim=-1).cpu().numpy()

        return run

    return prepare


ENGINES: dict[str, Callable[[Job], Run]] = {
    "onnxruntime fp32": _onnx("fp32"),
    "onnxruntime fp32, TF32 products": _onnx("fp32", tf32=True),
    "onnxruntime fp16": _onnx("fp16"),
    "onnxruntime fp16, pinned buffers bound": _bound,
    "onnxruntime fp32 on the CPU": _on_cpu,
    "PyTorch fp16, eager": _torch(compiled=False),
    "PyTorch fp16, compiled": _torch(compiled=True),
}


if __name__ == "__main__":
    main()
