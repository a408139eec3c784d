"""As `recognizer`, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from wanwu.answers import Labels, Recognition, question
from wanwu.async_transport import AsyncGrpcTransport, AsyncTransport
from wanwu.bulk import (
    IN_FLIGHT,
    Answer,
    Chunk,
    Embedded,
    Images,
    answered,
    async_chunks,
    check_many,
    failed,
    in_tasks,
)
from wanwu.cache import FileCache
from wanwu.calls import Alone, Call, Compute, Infer, ListModels, Pause, Steps, Together
from wanwu.channel import Tls, closed
from wanwu.contract import Contract
from wanwu.doubts import Doubt
from wanwu.errors import WanwuError
from wanwu.image_files import MAX_PIXELS
from wanwu.images import ImageSource
from wanwu.rank import Floats, ScoreKind
from wanwu.session import Session, only
from wanwu.settings import Settings
from wanwu.shared import Locks
from wanwu.transport import Instances

T = TypeVar("T")


class AsyncRecognizer:
    """Recognises pictures from inside an event loop; arguments and answers as `Recognizer`.

    Pictures are decoded in threads of its own, so the loop is never held up; `decoders` is how many
    at a time, by default as many as the machine has cores and four more, or an executor of yours.

    Example:
        >>> async def name(picture):
        ...     async with AsyncRecognizer(url) as recognizer:
        ...         return (await recognizer.recognize(picture, labels=["猫", "狗"])).top.label
        >>> asyncio.run(name(cat))
        '猫'
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float | None = None,
        api_key: str | None = None,
        tls: Tls | None = None,
        max_pixels: int = MAX_PIXELS,
        exact: bool = False,
        refresh_s: float = 60.0,
        cache: Path | str | bool = True,
        transport: AsyncTransport | None = None,
        decoders: int | Executor | None = None,
    ) -> None:
        settings = Settings.from_env(
            url=url, timeout_s=timeout_s, api_key=api_key, tls=tls, cache=cache
        )
        self.timeout_s = settings.timeout_s
        self._session = Session(
            timeout_s=settings.timeout_s,
            max_pixels=max_pixels,
            refresh_s=refresh_s,
            exact=exact,
            cache=FileCache(settings.cache),
        )
        self._address, self._given = settings.address, transport
        self._made: AsyncTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._locks = Locks(asyncio.Lock)
        self._own_pool = not isinstance(decoders, Executor)
        self._pool = (
            decoders
            if isinstance(decoders, Executor)
            else ThreadPoolExecutor(decoders, thread_name_prefix="wanwu")
        )

    async def recognize(
        self,
        image: ImageSource,
        *,
        labels: Labels | None = None,
        bank: str | Sequence[str] | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        score: ScoreKind | None = None,
    ) -> Recognition:
        """Name what a picture shows, as `Recognizer.recognize`."""
        asked = question(labels, bank, top_k, threshold, score)
        return only(await self._run(self._session.recognize([image], asked)))

    def recognize_many(
        self,
        images: Images,
        *,
        labels: Labels | None = None,
        bank: str | Sequence[str] | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        score: ScoreKind | None = None,
        in_flight: int = IN_FLIGHT,
        ordered: bool = True,
    ) -> AsyncIterator[Answer]:
        """Name what many pictures show, as `Recognizer.recognize_many`.

        `images` may be an asynchronous iterable: its next picture is waited for while others are
        answered.
        """
        asked = question(labels, bank, top_k, threshold, score)
        check_many(images, in_flight)

        async def work(chunk: Chunk) -> list[Answer]:
            try:
                steps = self._session.recognize(chunk.images, asked, patient=True)
                return answered(Answer, chunk, await self._run(steps))
            except WanwuError as error:
                return failed(Answer, chunk, error)

        return in_tasks(async_chunks(images, in_flight), work, in_flight, ordered=ordered)

    async def embed_image(self, image: ImageSource) -> Floats:
        """Encode a picture, as `Recognizer.embed_image`."""
        return only(await self._run(self._session.embed_images([image])))

    def embed_many(
        self, images: Images, *, in_flight: int = IN_FLIGHT, ordered: bool = True
    ) -> AsyncIterator[Embedded]:
        """Encode many pictures, as `recognize_many` recognises them."""
        check_many(images, in_flight)

        async def work(chunk: Chunk) -> list[Embedded]:
            try:
                steps = self._session.embed_images(chunk.images, patient=True)
                return answered(Embedded, chunk, await self._run(steps))
            except WanwuError as error:
                return failed(Embedded, chunk, error)

        return in_tasks(async_chunks(images, in_flight), work, in_flight, ordered=ordered)

    async def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Encode texts, as `Recognizer.embed_texts`."""
        return await self._run(self._session.embed_texts(texts))

    async def doubts(self, texts: Sequence[str]) -> tuple[Doubt, ...]:
        """Tell which texts the model cannot read or tell apart, as `Recognizer.doubts`."""
        return await self._run(self._session.doubts(texts))

    async def contract(self, bank: str | None = None) -> Contract:
        """Give the contract of a bank as the server has it now."""
        return await self._run(self._session.contract(bank))

    async def labels(self, bank: str | None = None) -> tuple[str, ...]:
        """Give the labels of a bank."""
        return await self._run(self._session.labels(bank))

    async def banks(self) -> tuple[str, ...]:
        """Give the names of the served banks."""
        return await self._run(self._session.banks())

    async def is_ready(self, model: str | None = None) -> bool:
        """Tell whether the server, or one of its models, is ready."""
        return await self._wire.is_ready(model, timeout_s=self.timeout_s)

    async def instances(self, model: str) -> tuple[Instances, ...]:
        """Return where a model's instances run."""
        return await self._wire.instances(model, timeout_s=self.timeout_s)

    async def server_version(self) -> str:
        """Return the version of Triton, such as 2.51.0."""
        return await self._wire.server_version(timeout_s=self.timeout_s)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._made is not None and not self._closed:
            await self._made.close()
        self._closed = True
        if self._own_pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> AsyncRecognizer:
        """Give itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the connection."""
        await self.close()

    @property
    def _wire(self) -> AsyncTransport:
        if self._closed:
            raise closed(self._address)
        # gRPC binds a channel to the loop that runs when it is made, so another loop has another.
        loop = asyncio.get_running_loop()
        if self._made is None or self._loop is not loop:
            self._made, self._loop = self._given or AsyncGrpcTransport(self._address), loop
        return self._made

    async def _run(self, steps: Steps[T]) -> T:
        """Make every call of some work, and give its result."""
        result: Any = None
        failure: Exception | None = None
        while True:
            try:
                call = steps.send(result) if failure is None else steps.throw(failure)
            except StopIteration as end:
                value: T = end.value
                return value
            result, failure = None, None
            try:
                result = await self._make(call)
            except Exception as error:
                failure = error

    async def _make(self, call: Call) -> Any:
        match call:
            case Infer():
                return await self._wire.infer(
                    call.model, call.inputs, call.outputs, timeout_s=call.timeout_s
                )
            case Compute():
                if self._closed:
                    raise closed(self._address)
                return await asyncio.get_running_loop().run_in_executor(self._pool, call.function)
            case Together():
                return await asyncio.gather(*map(self._make, call.calls))
            case Alone():
                async with self._locks.of(call.key):
                    return await self._run(call.steps())
            case Pause():
                return await asyncio.sleep(call.seconds)
            case ListModels():
                return await self._wire.models(timeout_s=call.timeout_s)
