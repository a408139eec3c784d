"""A repository served by the embedded Triton under load: rate, latency, batches, the GPU's use."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gpu_load
import msgspec
from processes import cpu_s

from wanwu.embedded.device import CPU, Device
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu_loadtest.triton_statistics import TritonStatistics, batch_times, difference

LOAD = Path(__file__).with_name("gpu_load.py")
#: For the callers' Python and packages, the bank, and answers that are not counted.
START_S = 5.0
END_S = 60.0
#: A process of callers keeps a core busy; Triton and its stubs need some too.
SPARE_CORES = 6
SAMPLE_S = 0.5
SMI = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one served model. CPU is in cores kept busy, the GPU's use in 0 to 1."""

    size: str
    precision: str
    kind: str
    labels: int
    in_flight: int
    rate: float
    p50_ms: float
    p95_ms: float
    batches: dict[int, int]
    mean_batch: float
    callers: int
    caller_cores: float
    server_cores: float
    gpu_use_triton: float | None
    gpu_use_smi: float | None
    failures: list[str]


class Server:
    """A running Triton over one repository."""

    def __init__(self, running: EmbeddedServer, size: str, gpu: bool) -> None:
        self._running, self._size, self._gpu = running, size, gpu

    def load(self, kind: str, labels: int, in_flight: int, seconds: float) -> Cell:
        """Load it from several processes and count what is answered in some seconds."""
        callers = min(in_flight, max(1, (os.cpu_count() or 1) - SPARE_CORES))
        starts = time.monotonic() + START_S
        job = gpu_load.Job(
            url=self._running.url,
            kind=kind,  # type: ignore[arg-type]
            size=self._size,
            bank=f"l{labels}",
            in_flight=in_flight,
            starts=starts,
            ends=starts + seconds,
        )
        with _called(job, callers) as processes:
            counts, spent, use = self._watch(job)
            found = [_end(process) for process in processes]
        answered = sorted(each for one in found for each in one.ms)
        ms = answered or [0.0]
        return Cell(
            size=self._size,
            precision=self._running.options.model_repository.name,
            kind=kind,
            labels=labels,
            in_flight=in_flight,
            rate=len(answered) / seconds,
            p50_ms=statistics.median(ms),
            p95_ms=ms[min(len(ms) - 1, int(len(ms) * 0.95))],
            batches={each.size: each.count for each in batch_times(counts)},
            mean_batch=counts.get("pictures", 0) / max(1, counts.get("executions", 0)),
            callers=callers,
            caller_cores=sum(one.cpu_s for one in found) / seconds,
            server_cores=spent / seconds,
            gpu_use_triton=_mean(use["triton"]),
            gpu_use_smi=_mean(use["smi"]),
            failures=sorted({text for one in found for text in one.failures})[:3],
        )

    def _watch(self, job: gpu_load.Job) -> tuple[dict[str, int], float, dict[str, list[float]]]:
        """Return Triton's counts, its CPU seconds and samples of the GPU's use, of a load."""
        statistics_ = TritonStatistics(self._running.url)
        use: dict[str, list[float]] = {"triton": [], "smi": []}
        time.sleep(max(0.0, job.starts - time.monotonic()))
        before, spent = statistics_.counts() or {}, cpu_s([self._running.pid])
        while self._gpu and time.monotonic() + SAMPLE_S < job.ends:
            self._sample(use)
            time.sleep(SAMPLE_S)
        time.sleep(max(0.0, job.ends - time.monotonic()))
        after, spent = statistics_.counts() or {}, cpu_s([self._running.pid]) - spent
        statistics_.close()
        return difference(before, after), spent, use

    def _sample(self, use: dict[str, list[float]]) -> None:
        port = self._running.options.metrics_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = re.search(r"^nv_gpu_utilization\{[^}]*\} (\S+)$", text, re.MULTILINE)
        if found:
            use["triton"].append(float(found[1]))
        done = subprocess.run(SMI, capture_output=True, text=True, check=False)
        with contextlib.suppress(ValueError):
            use["smi"].append(float(done.stdout) / 100)


@contextmanager
def served(repository: Path, size: str, gpu: str | None, start_s: float) -> Iterator[Server]:
    """Serve a repository while the `with` block runs, on a GPU or else on the CPU."""
    options = ServerOptions(
        repository,
        grpc_port=free_port(),
        metrics_port=free_port(),
        device=Device("gpu", gpu) if gpu else CPU,
        gpu_memory_mb=16_384,
        ready_timeout_s=start_s,
    )
    with EmbeddedServer(options) as running:
        yield Server(running, size, gpu is not None)


@contextmanager
def _called(job: gpu_load.Job, callers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes that share the requests under way; end what is left of them."""
    shares = [job.in_flight // callers + (n < job.in_flight % callers) for n in range(callers)]
    # OpenBLAS would start a thread for each core in every process.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for number, share in enumerate(shares):
            path = Path(folder) / f"{number}.json"
            path.write_bytes(msgspec.json.encode(msgspec.structs.replace(job, in_flight=share)))
            command = [sys.executable, str(LOAD), str(path)]
            processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _end(process: subprocess.Popen[bytes]) -> gpu_load.Found:
    output, _ = process.communicate(timeout=END_S)
    return msgspec.json.decode(output, type=gpu_load.Found)


def _mean(samples: Sequence[float]) -> float | None:
    return statistics.mean(samples) if samples else None
