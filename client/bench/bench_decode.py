"""Benchmark decoding: a JPEG of 12 megapixels to the pixels of a 224 x 224 tower.

    make bench-decode                   # ms of Wanwu's two paths and of transformers, in turns
    make bench-decode OPTIONS=--cosine  # how far the starter's embeddings of the two paths are

Photographs are enlarged to 12 megapixels: those of ../shared/photos, or the cat that comes with
Wanwu. transformers also scales the pixels; with Wanwu the ONNX graph does it on the server.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from measured import run_wanwu
from PIL import Image
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
    ChineseCLIPImageProcessorPil,
)

from wanwu.contract import Image as Geometry
from wanwu.images import Pixels, to_pixels
from wanwu.repository import newest_release
from wanwu.samples import cat_photo
from wanwu_export.banks import model_file
from wanwu_export.starter.efficientnet_lite import IMAGE_SIZE, SHORTEST_EDGE

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"
PIXELS = 12_000_000
QUALITY = 90
ROUNDS = 60

CHINESE_CLIP = Geometry(height=224, width=224, resize="squash", resample="bicubic")
STARTER = Geometry(
    height=IMAGE_SIZE,
    width=IMAGE_SIZE,
    resize="shortest_edge",
    shortest_edge=SHORTEST_EDGE,
    resample="bicubic",
)


def main() -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cosine", action="store_true", help="compare embeddings, not times")
    if parser.parse_args().cosine:
        print_cosines()
    else:
        print_times(next(large_jpegs()))


def large_jpegs() -> Iterator[bytes]:
    """Give each photograph as a JPEG of 12 megapixels."""
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))] or [cat_photo()]
    for photo in photos:
        with Image.open(io.BytesIO(photo)) as opened:
            scale = (PIXELS / (opened.width * opened.height)) ** 0.5
            size = (round(opened.width * scale), round(opened.height * scale))
            stream = io.BytesIO()
            opened.convert("RGB").resize(size).save(stream, "JPEG", quality=QUALITY)
        yield stream.getvalue()


def print_times(jpeg: bytes) -> None:
    """Print the median of every way to prepare a picture, and what it is of transformers'."""
    processor = ChineseCLIPImageProcessorPil(
        size={"height": 224, "width": 224}, do_center_crop=False
    )

    def transformers_path() -> object:
        picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
        return processor(images=picture, return_tensors="np")["pixel_values"]

    ways: dict[str, Callable[[], object]] = {
        "transformers, `ChineseCLIPImageProcessorPil`": transformers_path,
        "Wanwu, `exact=True`": lambda: to_pixels(jpeg, CHINESE_CLIP, exact=True),
        "Wanwu": lambda: to_pixels(jpeg, CHINESE_CLIP),
    }
    medians = time_in_turns(ways)
    theirs, their_cpu = next(iter(medians.values()))
    print("| | ms | CPU ms | times as fast | by CPU time |\n| --- | --- | --- | --- | --- |")
    for name, (wall, cpu) in medians.items():
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {theirs / wall:.2f} | {their_cpu / cpu:.2f} |")


def time_in_turns(ways: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Give the median ms of every way, by the clock and of the processor."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, prepare in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            prepare()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (
            statistics.median(wall for wall, _ in spent) * 1000,
            statistics.median(cpu for _, cpu in spent) * 1000,
        )
        for name, spent in times.items()
    }


def print_cosines() -> None:
    """Export the starter, and print how near its embeddings are to those of every pixel decoded.

    Beside it stands what as large a change at random does to this tower.
    """
    with tempfile.TemporaryDirectory(prefix="wanwu-bench-") as name:
        repository = Path(name) / "model_repository"
        run_wanwu("export", "starter", "--output", str(repository))
        path = model_file(repository, newest_release(repository), "image_encoder")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    cosines: dict[str, list[float]] = {"decoded at fewer pixels": [], "changed at random": []}
    for jpeg in large_jpegs():
        exact, fewer = to_pixels(jpeg, STARTER, exact=True), to_pixels(jpeg, STARTER)
        mean = float(np.abs(fewer.astype(int) - exact.astype(int)).mean())
        pixels = np.stack([exact, fewer, change_at_random(exact, mean, generator)])
        embeddings = session.run(["EMBEDDING"], {"PIXELS": pixels})[0]
        for found, cosine in zip(cosines.values(), embeddings[1:] @ embeddings[0], strict=True):
            found.append(float(cosine))
    print(
        "| | photographs | least cosine | below 0.999 | median |\n| --- | --- | --- | --- | --- |"
    )
    for name, found in cosines.items():
        below = sum(cosine < 0.999 for cosine in found)
        print(
            f"| {name} | {len(found)} | {min(found):.6f} | {below} "
            f"| {statistics.median(found):.6f} |"
        )


def change_at_random(pixels: Pixels, mean: float, generator: np.random.Generator) -> Pixels:
    """Change pixels by one level of 255, so many that the mean change is as given (below 1)."""
    change = generator.choice([-1, 1], pixels.shape) * (generator.random(pixels.shape) < mean)
    changed: Pixels = (pixels + change).clip(0, 255).astype(np.uint8)
    return changed


if __name__ == "__main__":
    main()
