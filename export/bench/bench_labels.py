"""Benchmark a large bank: 50,000 labels built with the starter, and recognition against it.

    make bench-labels

The demo's photographs are recognised against 18 labels and against 50,000 in turn, in one run of
one client.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path

from measured import run_wanwu

from wanwu import Recognizer
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.samples import cat_photo, sample_photos
from wanwu_export.concepts import imagenet_concepts

LABELS = 50_000
ROUNDS = 100
WORDS = list("红白黑蓝绿黄大小旧新圆方长短木铁银金古软厚薄湿干冷热野家")


def main() -> None:
    """Export the starter, build the bank, serve both, measure, print."""
    with tempfile.TemporaryDirectory(prefix="wanwu-bench-") as name:
        repository, labels = Path(name) / "model_repository", Path(name) / "labels.txt"
        labels.write_text("\n".join(make_labels(LABELS)), encoding="utf-8")
        run_wanwu("export", "starter", "--output", str(repository))
        build = ("labels", "build", str(labels), "--bank", "large")
        seconds, peak = run_wanwu(*build, "--model-repository", str(repository))
        print(f"{LABELS:,} labels built in {seconds:.0f} s, peak memory {peak / 1e6:.0f} MB")
        options = ServerOptions(repository, grpc_port=free_port(), metrics_port=None)
        with EmbeddedServer(options) as server, Recognizer(server.url) as recognizer:
            small, large = compare(recognizer)
        print(f"recognition against 18 labels {small:.2f} ms, against {LABELS:,} {large:.2f} ms")
        print(f"ratio of the medians of {ROUNDS} turns: {large / small:.3f}")


def make_labels(count: int) -> list[str]:
    """Give distinct labels of four to a dozen characters."""
    names = [concept.label for concept in imagenet_concepts()]
    pairs = itertools.product(itertools.product(WORDS, WORDS[:2]), names)
    return [f"{''.join(words)}{name}" for words, name in itertools.islice(pairs, count)]


def compare(recognizer: Recognizer) -> tuple[float, float]:
    """Give the median ms of a picture against 18 labels and against the large bank, in turns."""
    photos = [cat_photo(), *(path.read_bytes() for path in sample_photos())]
    times: dict[str, list[float]] = {"seed18": [], "large": []}
    for bank in times:
        recognizer.recognize(photos[0], bank=bank)  # fetches the bank, once
    rounds = itertools.product(range(ROUNDS), photos, times.items())
    for _, photo, (bank, spent) in rounds:
        started = time.perf_counter()
        recognizer.recognize(photo, bank=bank)
        spent.append(time.perf_counter() - started)
    return (
        statistics.median(times["seed18"]) * 1000,
        statistics.median(times["large"]) * 1000,
    )


if __name__ == "__main__":
    main()
