"""Long streams and long lists: memory stays flat, and ten thousand labels are labels."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.serving import server_options
from support.tiny import tiny_tower
from wanwu import Recognizer
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.samples import cat_photo
from wanwu_export.banks import built_in_plans
from wanwu_export.publish import publish

PICTURES = 20_000
SCRIPT = """
import itertools, sys
from wanwu import Recognizer
from wanwu.samples import cat_photo

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

count = int(sys.argv[2])
readings = []
with Recognizer(sys.argv[1], timeout_s=60) as recognizer:
    photos = itertools.repeat(cat_photo(), count)
    for answer in recognizer.recognize_many(photos, bank="seed18", in_flight=64):
        assert answer.error is None, answer.error
        if answer.index % 500 == 499:
            readings.append(resident())
print(answer.index + 1, *readings)
"""


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A Triton whose towers are so small that a stream of pictures takes a minute."""
    folder = tmp_path / "model_repository"
    publish(tiny_tower(), built_in_plans(), folder, step=lambda text: None)
    with EmbeddedServer(server_options(folder, grpc_port=free_port(), metrics_port=None)) as server:
        yield server


@pytest.mark.timeout(600)
def test_memory_is_flat_over_a_stream(quick: EmbeddedServer) -> None:
    command = [sys.executable, "-c", SCRIPT, quick.url, str(PICTURES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    count, *readings = map(int, done.stdout.split())
    assert count == PICTURES
    # The first thousand pictures fill the caches and pools.
    settled = readings[2:]
    middle = sorted(settled)[len(settled) // 2]
    assert 0.9 * middle <= min(settled) <= max(settled) <= 1.1 * middle


def test_ten_thousand_labels_of_ones_own(server: EmbeddedServer) -> None:
    labels = [f"第{number}号零件" for number in range(9_999)] + ["猫"]
    with Recognizer(server.url) as recognizer:
        answer = recognizer.recognize(cat_photo(), labels=labels, top_k=3)
        started = time.monotonic()
        again = recognizer.recognize(cat_photo(), labels=labels, top_k=3)
        assert time.monotonic() - started < 5  # they are encoded once
    assert answer.top.label == again.top.label == "猫"
