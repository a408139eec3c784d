"""A server asked for five times what it can do serves what it takes, and refuses the rest."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from support.clones import with_queue
from support.serving import server_options
from wanwu import AsyncRecognizer, OverloadedError, Recognizer
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.session import TEXT_BATCH

QUEUE = 32
TIMES, SECONDS = 5, 8.0
# Of the tower's own size, so that decoding takes nothing from the server's cores.
PICTURE = np.zeros((260, 260, 3), np.uint8)


@pytest.fixture(scope="module")
def small_queue(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = with_queue(repository, tmp_path_factory.mktemp("queue") / "model_repository", QUEUE)
    with EmbeddedServer(server_options(folder, grpc_port=free_port(), metrics_port=None)) as server:
        yield server


async def capacity(recognizer: AsyncRecognizer) -> float:
    """Give the pictures a second that the server answers with every instance busy."""
    ends = time.monotonic() + 4
    answered = 0

    async def caller() -> None:
        nonlocal answered
        while time.monotonic() < ends:
            await recognizer.recognize(PICTURE, bank="seed18")
            answered += 1

    await asyncio.gather(*(caller() for _ in range(4)))
    return answered / 4


async def flood(recognizer: AsyncRecognizer, rate: float) -> tuple[list[float], list[float]]:
    """Ask at a rate, whatever comes back: seconds of what was answered, and of what was refused."""
    answered: list[float] = []
    refused: list[float] = []

    async def ask() -> None:
        started = time.monotonic()
        try:
            await recognizer.recognize(PICTURE, bank="seed18")
            answered.append(time.monotonic() - started)
        except OverloadedError:
            refused.append(time.monotonic() - started)

    tasks = []
    started = time.monotonic()
    for number in range(int(rate * SECONDS)):
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        tasks.append(asyncio.ensure_future(ask()))
    await asyncio.gather(*tasks)
    return answered, refused


def test_what_is_taken_is_served_in_time_and_the_rest_refused_at_once(small_queue) -> None:
    async def go() -> tuple[float, list[float], list[float]]:
        async with AsyncRecognizer(small_queue.url) as recognizer:
            await recognizer.recognize(PICTURE, bank="seed18")
            able = await capacity(recognizer)
            return able, *(await flood(recognizer, TIMES * able))

    able, answered, refused = asyncio.run(go())
    assert len(answered) + len(refused) == int(TIMES * able * SECONDS)
    assert len(refused) > len(answered) > 0
    # A full queue, and the batch before it, at the server's own speed.
    bound = 2 * QUEUE / able
    assert np.quantile(answered, 0.95) <= 2 * bound
    assert np.quantile(refused, 0.95) <= bound


def test_pictures_that_come_at_once_are_answered_without_a_pause(small_queue) -> None:
    # Triton's batcher looks again after half a second where nothing wakes it.
    async def go() -> tuple[float, float]:
        async with AsyncRecognizer(small_queue.url) as recognizer:
            await recognizer.recognize(PICTURE, bank="seed18")
            able = await capacity(recognizer)
            started = time.monotonic()
            calls = [recognizer.recognize(PICTURE, bank="seed18") for _ in range(QUEUE)]
            await asyncio.gather(*calls)
            return able, time.monotonic() - started

    able, took = asyncio.run(go())
    assert took <= 3 * QUEUE / able


def test_a_bulk_run_waits_for_a_full_queue_and_loses_nothing(small_queue) -> None:
    with Recognizer(small_queue.url, timeout_s=60) as recognizer:
        pictures = [PICTURE] * 300
        # One picture a request, and four times as many requests as the queue holds.
        answers = list(recognizer.recognize_many(pictures, bank="seed18", in_flight=4 * 8 * QUEUE))
    assert [answer.error for answer in answers] == [None] * 300


def test_one_call_is_refused_with_the_way_on(small_queue) -> None:
    async def go() -> list[BaseException | object]:
        async with AsyncRecognizer(small_queue.url) as recognizer:
            await recognizer.recognize(PICTURE, bank="seed18")
            calls = [recognizer.recognize(PICTURE, bank="seed18") for _ in range(100)]
            return await asyncio.gather(*calls, return_exceptions=True)

    refused = [each for each in asyncio.run(go()) if isinstance(each, BaseException)]
    assert refused
    for error in refused:
        assert isinstance(error, OverloadedError)
        assert "is overloaded, its queue is full" in str(error)
        assert "try later" in str(error)


TEXT_QUEUE = 4


@pytest.fixture(scope="module")
def small_text_queue(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("texts") / "model_repository"
    with_queue(repository, folder, TEXT_QUEUE, "text_encoder")
    with EmbeddedServer(server_options(folder, grpc_port=free_port(), metrics_port=None)) as server:
        yield server


def long_labels(caller: int, count: int = 256) -> list[str]:
    """Labels that no other caller has, and that take the tower a while."""
    return [f"第{caller}位来客在第{number}天看到的红色汽车和白色小狗" for number in range(count)]


def test_label_lists_that_overload_the_text_tower_are_refused_at_once(small_text_queue) -> None:
    async def ask(recognizer: AsyncRecognizer, caller: int) -> tuple[bool, float]:
        started = time.monotonic()
        try:
            # As many as travel in one request: a list of several is refused when one of them is.
            await recognizer.recognize(PICTURE, labels=long_labels(caller, TEXT_BATCH))
        except OverloadedError:
            return False, time.monotonic() - started
        return True, time.monotonic() - started

    async def go() -> list[tuple[bool, float]]:
        async with AsyncRecognizer(small_text_queue.url, timeout_s=60, cache=False) as recognizer:
            await recognizer.recognize(PICTURE, labels=["猫", "狗"])
            return await asyncio.gather(*(ask(recognizer, caller) for caller in range(40)))

    answers = asyncio.run(go())
    refused = [seconds for answered, seconds in answers if not answered]
    answered = [seconds for answered, seconds in answers if answered]
    assert len(refused) > len(answered) > 0
    assert max(refused) < max(answered)


def test_bulk_callers_wait_for_a_full_text_queue_and_lose_nothing(small_text_queue) -> None:
    def bulk(caller: int) -> list[object]:
        with Recognizer(small_text_queue.url, timeout_s=60, cache=False) as recognizer:
            assert len(recognizer.embed_texts(long_labels(100 + caller))) == 256
            answers = recognizer.recognize_many([PICTURE] * 2, labels=long_labels(caller))
            return [answer.error for answer in answers]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(bulk, range(8))) == [[None, None]] * 8
