from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
import pytest

from wanwu import AsyncRecognizer, ImageError, InputError, LabelError, Recognizer, ServerError
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.samples import cat_photo

T = TypeVar("T")
PETS = ("一杯咖啡", "狗", "猫", "摩托车")


@pytest.fixture
def ask(server: EmbeddedServer) -> Callable[[Callable[[AsyncRecognizer], Awaitable[T]]], T]:
    """Run something with an asynchronous recognizer of the server."""

    def run(use: Callable[[AsyncRecognizer], Awaitable[T]]) -> T:
        async def go() -> T:
            async with AsyncRecognizer(server.url) as recognizer:
                return await use(recognizer)

        return asyncio.run(go())

    return run


def test_both_clients_have_the_same_surface() -> None:
    def surface(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    asynchronous = surface(AsyncRecognizer)
    # The synchronous client decodes in its caller's threads.
    assert asynchronous["__init__"].pop() == "decoders"
    assert asynchronous == surface(Recognizer)


def test_the_answers_are_those_of_the_synchronous_client(ask, recognizer: Recognizer) -> None:
    async def everything(client: AsyncRecognizer) -> list[Any]:
        return [
            (await client.recognize(cat_photo(), labels=PETS)).predictions,
            (await client.recognize(cat_photo(), bank=["seed18", "default"])).predictions,
            await client.embed_image(cat_photo()),
            await client.embed_texts(PETS),
            await client.labels("seed18"),
            await client.banks(),
            await client.contract("seed18"),
            await client.is_ready("image_encoder"),
        ]

    expected = [
        recognizer.recognize(cat_photo(), labels=PETS).predictions,
        recognizer.recognize(cat_photo(), bank=["seed18", "default"]).predictions,
        recognizer.embed_image(cat_photo()),
        recognizer.embed_texts(PETS),
        recognizer.labels("seed18"),
        recognizer.banks(),
        recognizer.contract("seed18"),
        True,
    ]
    for found, wanted in zip(ask(everything), expected, strict=True):
        if isinstance(wanted, np.ndarray):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
        else:
            assert found == wanted


def test_many_pictures_are_answered_in_order_with_errors_in_their_place(ask) -> None:
    images = [cat_photo(), b"no picture", cat_photo(), "/no/such/file.jpg"] * 5

    async def gather(client: AsyncRecognizer) -> list[Any]:
        found = client.recognize_many(images, labels=PETS, in_flight=16)
        return [answer async for answer in found]

    answers = ask(gather)
    assert [answer.index for answer in answers] == list(range(20))
    assert [answer.source for answer in answers] == images
    for answer in answers:
        if answer.index % 2:
            assert isinstance(answer.error, ImageError)
            assert answer.recognition is None
        else:
            assert answer.error is None
            assert answer.recognition.top.label == "猫"


def test_pictures_may_come_asynchronously(ask) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(5):
            await asyncio.sleep(0.01)
            yield cat_photo()

    async def gather(client: AsyncRecognizer) -> list[Any]:
        return [answer.embedding async for answer in client.embed_many(source(), in_flight=4)]

    vectors = ask(gather)
    assert len(vectors) == 5
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_tasks_that_start_together_fetch_the_bank_once(server: EmbeddedServer) -> None:
    from wanwu.async_transport import AsyncGrpcTransport
    from wanwu.channel import Address

    pages = 0

    class Counting(AsyncGrpcTransport):
        async def infer(self, model, inputs, outputs, *, timeout_s):
            nonlocal pages
            pages += "EMBEDDINGS" in outputs
            return await super().infer(model, inputs, outputs, timeout_s=timeout_s)

    async def go() -> None:
        wire = Counting(Address(server.url))
        async with AsyncRecognizer(transport=wire, cache=False) as recognizer:
            many = [recognizer.recognize(cat_photo()) for _ in range(12)]
            answers = await asyncio.gather(*many)
        assert len({answer.top.label for answer in answers}) == 1

    asyncio.run(go())
    assert pages == 1


def test_the_loop_is_not_held_up_by_decoding(ask) -> None:
    large = np.random.default_rng(0).integers(0, 255, (3000, 4000, 3)).astype(np.uint8)

    async def go(client: AsyncRecognizer) -> float:
        await client.recognize(cat_photo(), labels=PETS)
        longest, running = 0.0, True

        async def watch() -> None:
            nonlocal longest
            while running:
                before = time.monotonic()
                await asyncio.sleep(0.001)
                longest = max(longest, time.monotonic() - before)

        watching = asyncio.ensure_future(watch())
        async for answer in client.recognize_many([large] * 8, labels=PETS, in_flight=4):
            assert answer.error is None
        running = False
        await watching
        return longest

    # Eight pictures of 12 megapixels take about a second to resize.
    assert ask(go) < 0.3


def test_what_cannot_be_asked_is_refused_at_once(ask) -> None:
    async def go(client: AsyncRecognizer) -> None:
        with pytest.raises(InputError, match="top_k is 0"):
            client.recognize_many([], top_k=0)
        with pytest.raises(LabelError, match="empty"):
            await client.recognize(cat_photo(), labels=[])

    ask(go)


def test_no_server_is_told_within_seconds() -> None:
    url = f"127.0.0.1:{free_port()}"

    async def go() -> None:
        async with AsyncRecognizer(url, timeout_s=30) as recognizer:
            with pytest.raises(ServerError, match=f"no Triton answers gRPC at {url}"):
                await recognizer.recognize(cat_photo())

    started = time.monotonic()
    asyncio.run(go())
    assert time.monotonic() - started < 5


def test_a_cancelled_call_leaves_the_client_usable(ask) -> None:
    async def go(client: AsyncRecognizer) -> str:
        await client.recognize(cat_photo(), labels=PETS)
        for _ in range(5):
            task = asyncio.ensure_future(client.recognize(cat_photo(), labels=PETS))
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return (await client.recognize(cat_photo(), labels=PETS)).top.label

    assert ask(go) == "猫"


def test_after_closing_the_way_on_is_told(server: EmbeddedServer) -> None:
    async def go() -> None:
        recognizer = AsyncRecognizer(server.url)
        await recognizer.is_ready()
        await recognizer.close()
        with pytest.raises(ServerError, match="closed; make a new"):
            await recognizer.embed_texts(["猫"])

    asyncio.run(go())


def test_another_event_loop_has_a_connection_of_its_own(server: EmbeddedServer) -> None:
    recognizer = AsyncRecognizer(server.url)

    async def go() -> str:
        return (await recognizer.recognize(cat_photo(), labels=PETS)).top.label

    assert [asyncio.run(go()), asyncio.run(go())] == ["猫", "猫"]
    asyncio.run(recognizer.close())
    with pytest.raises(ServerError, match="closed; make a new"):
        asyncio.run(go())
