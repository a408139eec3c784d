"""The client's memory stays flat over a long stream."""

from __future__ import annotations

import subprocess
import sys

from wanwu.embedded.server import EmbeddedServer

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


def test_memory_is_flat_over_a_stream(server: EmbeddedServer) -> None:
    command = [sys.executable, "-c", SCRIPT, server.url, str(PICTURES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    count, *readings = map(int, done.stdout.split())
    assert count == PICTURES
    # The first thousand pictures fill the caches and pools.
    settled = readings[2:]
    middle = sorted(settled)[len(settled) // 2]
    assert 0.9 * middle <= min(settled) <= max(settled) <= 1.1 * middle
