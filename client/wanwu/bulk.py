"""Many pictures at once: chunks of them under way, answers in order, memory bounded."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from PIL.Image import Image

from wanwu.answers import Recognition
from wanwu.errors import InputError, WanwuError
from wanwu.images import ImageSource
from wanwu.rank import Floats

T = TypeVar("T")

#: Pictures under way by default: enough that Triton's instances are never without a batch.
IN_FLIGHT = 32
#: Pictures that travel in one request; more gain nothing, and one slow picture holds up fewer.
CHUNK = 4


@dataclass(frozen=True)
class Answer:
    """One picture's recognition, or the error in its place.

    `index` is the picture's place among those given, from 0; `source` is the picture as it came.

    Example:
        >>> [answer] = recognizer.recognize_many([cat])
        >>> answer.index, answer.error
        (0, None)
    """

    index: int
    source: ImageSource
    recognition: Recognition | None
    error: WanwuError | None


@dataclass(frozen=True)
class Embedded:
    """One picture's embedding, FP32 [D] of unit length, or the error in its place.

    Example:
        >>> [answer] = recognizer.embed_many([cat])
        >>> answer.embedding.shape == (recognizer.contract().embedding_dim,)
        True
    """

    index: int
    source: ImageSource
    embedding: Floats | None
    error: WanwuError | None


Kind = TypeVar("Kind", Answer, Embedded)


@dataclass(frozen=True)
class Chunk:
    """Pictures that travel together; `first` is the index of the first."""

    first: int
    images: tuple[ImageSource, ...]


Images: TypeAlias = "Iterable[ImageSource] | AsyncIterable[ImageSource]"


def check_many(images: Images, in_flight: int) -> None:
    """Check that there are many pictures, and how many may be under way.

    Raises:
        InputError: they are one picture, or nothing to go through; or `in_flight` is no whole
            number of at least 1.
    """
    one = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image)
    if one or not isinstance(images, Iterable | AsyncIterable):
        raise InputError(
            "images came as one {0}; expected a list or another iterable of pictures, such as "
            "sorted(Path('photos').glob('*.jpg'))",
            type(images).__name__,
        )
    if not isinstance(in_flight, int) or in_flight < 1:
        raise InputError("in_flight is {0}; expected a whole number of at least 1", repr(in_flight))


def chunk_size(in_flight: int) -> int:
    """Give how many pictures travel together: a few chunks are always under way."""
    return max(1, min(CHUNK, in_flight // 4))


def chunks(images: Iterable[ImageSource], in_flight: int) -> Iterator[Chunk]:
    """Put pictures together as they are asked for."""
    size, first = chunk_size(in_flight), 0
    some: list[ImageSource] = []
    try:
        for image in images:
            some.append(image)
            if len(some) == size:
                yield Chunk(first, tuple(some))
                first, some = first + size, []
    except Exception:
        if some:
            yield Chunk(first, tuple(some))  # what came before the failure is answered
        raise
    if some:
        yield Chunk(first, tuple(some))


async def async_chunks(images: Images, in_flight: int) -> AsyncIterator[Chunk]:
    """Put pictures together as they come."""
    if not isinstance(images, AsyncIterable):
        for chunk in chunks(images, in_flight):
            yield chunk
        return
    size, first = chunk_size(in_flight), 0
    some: list[ImageSource] = []
    try:
        async for image in images:
            some.append(image)
            if len(some) == size:
                yield Chunk(first, tuple(some))
                first, some = first + size, []
    except Exception:
        if some:
            yield Chunk(first, tuple(some))
        raise
    if some:
        yield Chunk(first, tuple(some))


def answered(kind: type[Kind], chunk: Chunk, found: Sequence[object]) -> list[Kind]:
    """Give each picture of a chunk what was found for it, or its error."""
    numbered = enumerate(zip(chunk.images, found, strict=True), start=chunk.first)
    return [
        kind(index, image, None, each)
        if isinstance(each, WanwuError)
        else kind(index, image, each, None)  # type: ignore[arg-type]
        for index, (image, each) in numbered
    ]


def failed(kind: type[Kind], chunk: Chunk, error: WanwuError) -> list[Kind]:
    """Give each picture of a chunk the error of their request."""
    return answered(kind, chunk, [error] * len(chunk.images))


def in_threads(
    source: Iterator[Chunk],
    work: Callable[[Chunk], list[T]],
    in_flight: int,
    *,
    ordered: bool,
) -> Iterator[T]:
    """Do the work of chunks in threads, taking chunks only as results are taken."""
    workers = -(-in_flight // chunk_size(in_flight))
    # Finished chunks may wait for an unfinished one before them without a thread being idle.
    most = 1 if workers == 1 else 2 * workers
    waiting: deque[Future[list[T]]] = deque()
    failure: Exception | None = None
    left = True
    # A chunk is taken for each that is given, and a slow source holds up no answer that is there.
    due = False
    pool = ThreadPoolExecutor(workers, thread_name_prefix="wanwu")
    try:
        while True:
            ready = any(each.done() for each in ([*waiting][:1] if ordered else waiting))
            if left and len(waiting) < most and (due or not ready):
                try:
                    waiting.append(pool.submit(work, next(source)))
                except StopIteration:
                    left = False
                except Exception as error:
                    # The pictures that came before it are answered first.
                    failure, left = error, False
                due = False
            elif waiting:
                yield from (waiting.popleft() if ordered else _first_done(waiting)).result()
                due = True
            else:
                break
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failure is not None:
        raise failure


def _first_done(waiting: deque[Future[T]]) -> Future[T]:
    done = next(iter(wait(waiting, return_when=FIRST_COMPLETED).done))
    waiting.remove(done)
    return done


async def in_tasks(
    source: AsyncIterator[Chunk],
    work: Callable[[Chunk], Awaitable[list[T]]],
    in_flight: int,
    *,
    ordered: bool,
) -> AsyncIterator[T]:
    """Do the work of chunks in tasks; results are given while the source is waited for."""
    workers = -(-in_flight // chunk_size(in_flight))
    room = asyncio.Semaphore(workers)
    waiting: deque[asyncio.Task[list[T]]] = deque()
    failure: Exception | None = None

    async def one(chunk: Chunk) -> list[T]:
        async with room:
            return await work(chunk)

    async def take() -> Chunk | None:
        return await anext(source, None)

    taking: asyncio.Task[Chunk | None] | None = asyncio.ensure_future(take())
    most = 1 if workers == 1 else 2 * workers
    try:
        while waiting or taking is not None:
            heads = [waiting[0]] if ordered and waiting else list(waiting)
            coming = [taking] if taking is not None and len(waiting) < most else []
            await asyncio.wait([*heads, *coming], return_when=asyncio.FIRST_COMPLETED)
            if taking is not None and taking in coming and taking.done():
                try:
                    chunk = taking.result()
                except Exception as error:
                    failure, chunk = error, None  # the pictures before it are answered first
                taking = None
                if chunk is not None:
                    waiting.append(asyncio.ensure_future(one(chunk)))
                    taking = asyncio.ensure_future(take())
            for head in heads:
                if head.done():
                    waiting.remove(head)
                    for result in head.result():
                        yield result
    finally:
        left = [*waiting, *([taking] if taking is not None else [])]
        for task in left:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*left, return_exceptions=True)
    if failure is not None:
        raise failure
