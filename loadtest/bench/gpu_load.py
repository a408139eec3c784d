"""Callers of a served model: so many requests of one picture under way, in a process of its own.

    python gpu_load.py JOB.json

Every process of one load counts the answers between the same two moments.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec
from gpu_tower import pictures
from PIL import Image

from wanwu import AsyncRecognizer
from wanwu.async_transport import AsyncGrpcTransport
from wanwu.channel import Address
from wanwu.samples import cat_photo

TIMEOUT_S = 60.0
Ask = Callable[[], Awaitable[object]]


class Job(msgspec.Struct, frozen=True):
    """A load. `starts` and `ends` are moments of the machine's monotonic clock."""

    url: str
    kind: Literal["pixels", "JPEG"]
    size: str
    bank: str
    in_flight: int
    starts: float
    ends: float


class Found(msgspec.Struct, frozen=True):
    """Milliseconds of each request answered between the two moments, and CPU seconds spent."""

    ms: list[float]
    cpu_s: float
    failures: list[str]


def main() -> None:
    """Do one job."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(load(job))))


async def load(job: Job) -> Found:
    """Ask without pause until the end; what was answered before the start is warming up."""
    ms: list[float] = []
    failures: list[str] = []
    spent = [0.0, 0.0]

    async def caller(ask: Ask) -> None:
        while (began := time.monotonic()) < job.ends:
            try:
                await ask()
            except Exception as error:  # counted and shown
                failures.append(repr(error)[:200])
                await asyncio.sleep(0.1)
                continue
            now = time.monotonic()
            if job.starts <= now <= job.ends:
                ms.append((now - began) * 1000)

    async def clock() -> None:
        for place, moment in enumerate((job.starts, job.ends)):
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            spent[place] = time.process_time()

    async with AsyncRecognizer(job.url, timeout_s=TIMEOUT_S, cache=False) as client:
        ask = await _ask(job, client)
        await asyncio.gather(clock(), *(caller(ask) for _ in range(job.in_flight)))
    return Found(ms, spent[1] - spent[0], sorted(set(failures))[:3])


async def _ask(job: Job, client: AsyncRecognizer) -> Ask:
    """Return how one picture is asked about; what a caller prepares once is prepared here."""
    if job.kind == "pixels":
        wire = AsyncGrpcTransport(Address(job.url))
        inputs, outputs = {"PIXELS": pictures(1, job.size)}, ("EMBEDDING", "FINGERPRINT")
        return lambda: wire.infer("image_encoder", inputs, outputs, timeout_s=TIMEOUT_S)
    photos = itertools.cycle(jpegs())
    await client.recognize(next(photos), bank=job.bank)  # fetches the bank, once
    return lambda: client.recognize(next(photos), bank=job.bank)


def jpegs() -> list[bytes]:
    """Return a photograph of 640 x 480 in a few orientations, as JPEGs."""
    with Image.open(io.BytesIO(cat_photo())) as opened:
        photo = opened.convert("RGB").resize((640, 480))
    encoded = []
    for turned in (photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        stream = io.BytesIO()
        turned.save(stream, "JPEG", quality=85)
        encoded.append(stream.getvalue())
    return encoded


if __name__ == "__main__":
    main()
