"""Benchmark the client: pictures a second and CPU time a picture, in one run and in turns.

    make bench-client                 # the starter, and Chinese-CLIP ViT-B/16 with random weights
    make bench-client OPTIONS=--quick # a smoke run: a small Chinese-CLIP, one short round

Ours is client, gRPC and the embedded Triton. It is compared with the ceiling, the same ONNX file
in this process without a wire, and with the script it takes the place of (`seed_service.py`). CPU
time is that of this process and of the server's processes, so it counts both ends of the wire.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from measured import machine, run_wanwu
from PIL import Image, ImageOps

from wanwu import Recognizer
from wanwu.embedded.server import INSTANCES, EmbeddedServer, ServerOptions, free_port
from wanwu.images import Pixels, to_pixels
from wanwu.rank import scores
from wanwu.repository import newest_release
from wanwu.samples import cat_photo, sample_photos
from wanwu.similarity import LabelRows
from wanwu_export.banks import model_file
from wanwu_export.concepts import built_in_banks, imagenet_concepts

IN_FLIGHT = (1, 4, 16, 64)
BATCHES = (1, 4, 8, 16)
TIMEOUT_S = 60.0
SEED_SERVICE = Path(__file__).with_name("seed_service.py")
OURS, CEILING, TOWER, SEED = "ours", "ceiling", "ceiling, decoded before", "the seed's script"

#: Takes pictures until there are no more and gives the seconds that each took.
Work = Callable[[Iterator[bytes]], list[float]]


@dataclass(frozen=True)
class Plan:
    """How long to measure, and on how large a Chinese-CLIP."""

    family: str
    rounds: int
    seconds: float

    def window_s(self, at: int) -> float:
        """Give the time of a part: more with many in flight, whose start and end take longer."""
        return self.seconds * (1 + at / 16)


FULL = Plan("Chinese-CLIP ViT-B/16", rounds=3, seconds=2.5)
QUICK = Plan("chinese_clip", rounds=1, seconds=0.5)


@dataclass(frozen=True)
class Part:
    """One figure to measure. `at` is pictures in flight or in a batch, `group` the server's."""

    system: str
    model: str
    labels: int
    at: int
    work: Work
    group: int | None

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells it from the others."""
        return self.system, self.model, self.labels, self.at


@dataclass(frozen=True)
class Figure:
    """What one timed part showed."""

    latencies: list[float]
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return len(self.latencies) / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time a picture."""
        return self.cpu_s / len(self.latencies) * 1000


class Pictures:
    """The photographs over and over, at least one, until the time is up; for many threads."""

    def __init__(self, photos: list[bytes], seconds: float) -> None:
        self._photos = itertools.cycle(photos)
        self._ends = time.perf_counter() + seconds
        self._begun = False
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._lock:
            if self._begun and time.perf_counter() >= self._ends:
                raise StopIteration
            self._begun = True
            return next(self._photos)


class Ceiling:
    """The image tower in this process: as many threads and sessions as Triton has instances."""

    def __init__(self, repository: Path, client: Recognizer, photos: list[bytes]) -> None:
        path = model_file(repository, newest_release(repository), "image_encoder")
        self._sessions = [_session(path) for _ in range(INSTANCES)]
        self._contract = client.contract("seed18")
        self._labels = client.labels("seed18")
        self._rows = LabelRows(client.embed_texts(self._labels))
        self._decoded = {photo: self._decode(photo) for photo in photos}

    def whole(self, batch: int) -> Work:
        """Decode, embed and score in batches of that size."""
        return lambda pictures: self._run(pictures, batch, self._decode)

    def tower(self, batch: int) -> Work:
        """Embed and score pictures that were decoded before."""
        return lambda pictures: self._run(pictures, batch, self._decoded.__getitem__)

    def _decode(self, photo: bytes) -> Pixels:
        return to_pixels(photo, self._contract.image)

    def _run(
        self, pictures: Iterator[bytes], batch: int, decode: Callable[[bytes], Pixels]
    ) -> list[float]:
        def work(session: Any) -> list[float]:
            spent: list[float] = []
            while photos := list(itertools.islice(pictures, batch)):
                started = time.perf_counter()
                pixels = np.stack([decode(photo) for photo in photos])
                for vector in session.run(["EMBEDDING"], {"PIXELS": pixels})[0]:
                    self._score(vector)
                spent += [time.perf_counter() - started] * len(photos)
            return spent

        return in_threads(work, self._sessions)

    def _score(self, vector: Any) -> list[tuple[str, float]]:
        cosines, best = self._rows.compare(vector, 5)
        values = scores(cosines, self._contract.score, self._contract.calibration)
        return [(self._labels[place], float(values[place])) for place in best]


def main() -> None:
    """Export, serve, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run of under 2 minutes")
    # So that the servers are ended whichever way this is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = QUICK if parser.parse_args().quick else FULL
    with tempfile.TemporaryDirectory(prefix="wanwu-bench-") as name:
        checkpoint = export(Path(name), plan.family)
        figures = measure(Path(name), checkpoint, plan)
    shortest, longest = map(plan.window_s, (IN_FLIGHT[0], IN_FLIGHT[-1]))
    print(f"{machine()}, medians of {plan.rounds} rounds of {shortest:.1f} to {longest:.1f} s")
    report(figures)


def export(folder: Path, family: str) -> Path:
    """Export the starter and Chinese-CLIP, each as a folder of the model's name."""
    names, seed18 = folder / "names.txt", folder / "seed18.txt"
    names.write_text("\n".join(c.label for c in imagenet_concepts()), encoding="utf-8")
    seed18.write_text("\n".join(c.label for c in built_in_banks()["seed18"]), encoding="utf-8")
    checkpoint = folder / "checkpoint"
    # torch and its threads stay out of the process that is measured.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(make, family, checkpoint).result()
    run_wanwu("export", "starter", "--output", str(folder / "starter fp32"))
    for precision in ("fp32", "int8"):
        output = str(folder / f"Chinese-CLIP {precision}")
        lists = ("--labels", str(names), "--templates", "bare")
        run_wanwu(
            *("export", str(checkpoint), "--precision", precision, "--output", output), *lists
        )
        build = ("labels", "build", str(seed18), "--bank", "seed18", "--templates", "bare")
        run_wanwu(*build, "--model-repository", output)
    return checkpoint


def make(family: str, folder: Path) -> None:
    """Save a checkpoint with random weights."""
    from support.checkpoints import make_checkpoint

    make_checkpoint(family, folder)


def measure(
    folder: Path, checkpoint: Path, plan: Plan
) -> dict[tuple[str, str, int, int], list[Figure]]:
    """Serve everything at once and measure it in turns."""
    photos = make_photos()
    parts: list[Part] = []
    with ExitStack() as stack:
        for model in ("starter fp32", "Chinese-CLIP fp32", "Chinese-CLIP int8"):
            options = ServerOptions(folder / model, grpc_port=free_port(), metrics_port=None)
            server = stack.enter_context(EmbeddedServer(options))
            client = stack.enter_context(Recognizer(server.url, timeout_s=TIMEOUT_S))
            ceiling = Ceiling(folder / model, client, photos)
            parts += our_parts(model, client, server.pid) + ceiling_parts(model, ceiling)
        parts += seed_parts(*stack.enter_context(seed_service(checkpoint)))
        for part in parts:
            part.work(iter(photos[:1]))  # fetches banks, and takes memory
        figures: dict[tuple[str, str, int, int], list[Figure]] = {}
        for part in parts * plan.rounds:
            found = timed(part, Pictures(photos, plan.window_s(part.at)))
            figures.setdefault(part.key, []).append(found)
    return figures


def make_photos() -> list[bytes]:
    """Give the demo's photographs as JPEGs of about 640 x 480."""
    photos = []
    for data in (cat_photo(), *(path.read_bytes() for path in sample_photos())):
        encoded = io.BytesIO()
        with Image.open(io.BytesIO(data)) as image:
            ImageOps.contain(image.convert("RGB"), (640, 640)).save(encoded, "JPEG", quality=85)
        photos.append(encoded.getvalue())
    return photos


def our_parts(model: str, client: Recognizer, group: int) -> list[Part]:
    """Recognise against 18 labels and, one at a time, against 1,000."""

    def part(labels: int, bank: str, at: int) -> Part:
        return Part(OURS, model, labels, at, lambda given: ask(client, given, bank, at), group)

    return [*(part(18, "seed18", at) for at in IN_FLIGHT), part(1000, "default", 1)]


def ask(client: Recognizer, pictures: Iterator[bytes], bank: str, in_flight: int) -> list[float]:
    """Recognise pictures, so many in flight, and give the seconds of each."""
    if in_flight == 1:
        return [client.recognize(picture, bank=bank).seconds for picture in pictures]
    spent = []
    for answer in client.recognize_many(pictures, bank=bank, in_flight=in_flight):
        if answer.recognition is None:
            sys.exit(f"picture {answer.index} was not answered: {answer.error}")
        spent.append(answer.recognition.seconds)
    return spent


def ceiling_parts(model: str, ceiling: Ceiling) -> list[Part]:
    """Measure the ceiling in every size of batch, with decoding and without."""
    whole = [Part(CEILING, model, 18, at, ceiling.whole(at), None) for at in BATCHES]
    return whole + [Part(TOWER, model, 18, at, ceiling.tower(at), None) for at in BATCHES]


def seed_parts(port: int, group: int) -> list[Part]:
    """Post to the script, with its own 18 labels and, one at a time, with 1,000."""
    names = "\n".join(concept.label for concept in imagenet_concepts())

    def part(labels: int, text: str | None, at: int) -> Part:
        return Part(SEED, "Chinese-CLIP fp32", labels, at, lambda g: post(port, g, text, at), group)

    return [*(part(18, None, at) for at in IN_FLIGHT), part(1000, names, 1)]


@contextmanager
def seed_service(checkpoint: Path) -> Iterator[tuple[int, int]]:
    """Run the script in a process of its own and give its port and its process group."""
    port = free_port()
    command = [sys.executable, str(SEED_SERVICE), str(checkpoint), "--port", str(port)]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not listens(port):
                if process.poll() is not None:
                    sys.exit(f"{' '.join(command)} ended with {process.returncode}")
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()


def post(port: int, pictures: Iterator[bytes], labels: str | None, in_flight: int) -> list[float]:
    """Post pictures to the script, so many in flight, and give the seconds of each."""

    def work(_: int) -> list[float]:
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            return [_post(connection, picture, labels) for picture in pictures]

    return in_threads(work, range(in_flight))


def _post(connection: http.client.HTTPConnection, picture: bytes, labels: str | None) -> float:
    started = time.perf_counter()
    kind = "multipart/form-data; boundary=wanwu"
    connection.request("POST", "/predict", form(picture, labels), {"Content-Type": kind})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        sys.exit(f"the seed's script answered {response.status}: {answer.decode()}")
    assert len(json.loads(answer)["results"]) == 5
    return time.perf_counter() - started


def form(picture: bytes, labels: str | None, **fields: str) -> bytes:
    """Write a form with the boundary `wanwu`: a picture, and fields of text."""
    part = '--wanwu\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    body = part.format("file", '; filename="picture.jpg"').encode() + picture
    if labels is not None:
        fields["labels"] = labels
    for name, value in fields.items():
        body += b"\r\n" + part.format(name, "").encode() + value.encode()
    return body + b"\r\n--wanwu--\r\n"


def timed(part: Part, pictures: Pictures) -> Figure:
    """Measure one part."""
    cpu, started = _cpu_seconds(part.group), time.perf_counter()
    latencies = part.work(pictures)
    seconds = time.perf_counter() - started
    return Figure(latencies, seconds, _cpu_seconds(part.group) - cpu)


def report(figures: dict[tuple[str, str, int, int], list[Figure]]) -> None:
    """Print the tables."""
    rate = {key: statistics.median(f.rate for f in found) for key, found in figures.items()}
    cpu = {key: statistics.median(f.cpu_ms for f in found) for key, found in figures.items()}
    models = list(dict.fromkeys(model for _, model, _, _ in figures))
    best = {
        (system, model): max(((system, model, 18, at) for at in BATCHES), key=rate.__getitem__)
        for system in (CEILING, TOWER)
        for model in models
    }
    _title("the ceiling, at its best batch", "batch", "pictures/s", "CPU ms a picture")
    for (system, model), key in best.items():
        _row(f"{model}, {system}", key[3], f"{rate[key]:.1f}", f"{cpu[key]:.1f}")
    columns = ("labels", "in flight", "pictures/s", "CPU ms a picture")
    _title("ours", *columns, "pictures/s, of the ceiling", "CPU, of the ceiling")
    for key in (key for key in figures if key[0] == OURS):
        top = best[CEILING, key[1]]
        ratios = (f"{rate[key] / rate[top]:.2f} x", f"{cpu[key] / cpu[top]:.2f} x")
        _row(key[1], f"{key[2]:,}", key[3], f"{rate[key]:.1f}", f"{cpu[key]:.1f}", *ratios)
    precisions = [model for model in models if model.startswith("Chinese-CLIP")]
    _title(SEED, *columns, *(f"ours in {p.split()[1]}, pictures/s; CPU" for p in precisions))
    for key in (key for key in figures if key[0] == SEED):
        ours = [(OURS, model, *key[2:]) for model in precisions]
        gains = [f"{rate[our] / rate[key]:.1f} x; {cpu[our] / cpu[key]:.2f} x" for our in ours]
        _row("Chinese-CLIP", f"{key[2]:,}", key[3], f"{rate[key]:.2f}", f"{cpu[key]:.0f}", *gains)
    _title("latency, 1 in flight", "labels", "p50 ms", "p95 ms", "p95/p50", "pictures")
    for key in (key for key in figures if key[0] in (OURS, SEED) and key[3] == 1):
        spent = [seconds * 1000 for figure in figures[key] for seconds in figure.latencies]
        p50, p95 = np.percentile(spent, (50, 95))
        shown = (f"{key[2]:,}", f"{p50:.1f}", f"{p95:.1f}", f"{p95 / p50:.2f}", len(spent))
        _row(f"{key[1]}, {key[0]}", *shown)


def _title(*cells: str) -> None:
    print()
    _row(*cells)
    _row(*("---" for _ in cells))


def _row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


def in_threads(work: Callable[[Any], list[float]], items: Iterable[Any]) -> list[float]:
    """Run `work` for every item, each in a thread of its own, and join what they give."""
    given = list(items)
    with ThreadPoolExecutor(len(given)) as pool:
        return [seconds for part in pool.map(work, given) for seconds in part]


def _session(path: Path) -> Any:
    """Open an ONNX file as wanwu.embedded.backend does, which only Triton can import."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // INSTANCES)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _cpu_seconds(group: int | None) -> float:
    """Give the CPU time so far of this process and of every process of a group."""
    return time.process_time() + (0.0 if group is None else group_cpu_s(group))


def group_cpu_s(group: int) -> float:
    """Give the CPU time so far of every process of a group."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold spaces: state, ppid, pgrp, …, utime, stime.
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if int(fields[2]) == group:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def listens(port: int) -> bool:
    """Tell whether something listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
