"""Recognise pictures: preprocess, ask Triton, score. An address is all it needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from wanwu.answers import Labels, Recognition, question
from wanwu.bulk import (
    IN_FLIGHT,
    Answer,
    Chunk,
    Embedded,
    answered,
    check_many,
    chunks,
    failed,
    in_threads,
)
from wanwu.cache import FileCache
from wanwu.calls import Alone, Call, Compute, Infer, ListModels, Pause, Steps, Together
from wanwu.channel import Tls
from wanwu.contract import Contract
from wanwu.doubts import Doubt
from wanwu.errors import WanwuError
from wanwu.image_files import MAX_PIXELS
from wanwu.images import ImageSource
from wanwu.rank import Floats, ScoreKind
from wanwu.session import Session, only
from wanwu.settings import Settings
from wanwu.shared import Locks
from wanwu.transport import GrpcTransport, Instances, Transport

T = TypeVar("T")


class Recognizer:
    """Recognises pictures through a Triton that serves a Wanwu export.

    Args:
        url: HOST:PORT of Triton's gRPC service; by default WANWU_URL, else 127.0.0.1:8001. A name
            may stand for several servers, which take turns.
        timeout_s: deadline of each answer; by default WANWU_TIMEOUT_S, else 10 seconds.
        api_key: sent with every call; by default WANWU_API_KEY, else none.
        tls: encrypt the connection; by default as WANWU_TLS, WANWU_TLS_CA, WANWU_TLS_CERT and
            WANWU_TLS_KEY say.
        max_pixels: refuse larger pictures before decoding them.
        exact: decode every pixel of a JPEG. By default it is decoded at three times the size
            the model sees or more, several times faster.
        refresh_s: ask again for a bank's contract after this many seconds, to see a swapped bank.
        cache: folder for banks and encoded labels, or False for none; by default as
            WANWU_CACHE_DIR says, else `wanwu/banks` in the user's cache folder.
        transport: another wire than gRPC; then the address is not used.

    One recognizer may be used by many threads.

    Example:
        >>> with Recognizer(url) as recognizer:
        ...     recognizer.recognize(cat, labels=["猫", "狗"]).top.label
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
        transport: Transport | None = None,
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
        self._wire: Transport = transport or GrpcTransport(settings.address)
        self._locks = Locks(threading.Lock)

    def recognize(
        self,
        image: ImageSource,
        *,
        labels: Labels | None = None,
        bank: str | Sequence[str] | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        score: ScoreKind | None = None,
    ) -> Recognition:
        """Name what a picture shows.

        Args:
            image: a path, encoded bytes, a PIL picture, or an array [H, W, 3] UINT8, RGB.
            labels: the caller's own labels, or a mapping of each to its aliases; without them a
                bank's are used. The answer's `warnings` tell of labels that the model cannot read
                or tell apart.
            bank: a served bank's name, or several; by default the server's default bank.
            top_k: how many labels to give, at most all of them.
            threshold: leave out labels of a lower score; when none is left the answer is
                uncertain.
            score: `softmax` over the labels, `sigmoid` for each, or the bare `cosine`; by default
                the model's own.

        Raises:
            ImageError, LabelError: the picture or the labels cannot be used.
            ServerError: Triton did not answer in time.
            ModelError: what Triton serves does not fit together.
        """
        asked = question(labels, bank, top_k, threshold, score)
        return only(self._run(self._session.recognize([image], asked)))

    def recognize_many(
        self,
        images: Iterable[ImageSource],
        *,
        labels: Labels | None = None,
        bank: str | Sequence[str] | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        score: ScoreKind | None = None,
        in_flight: int = IN_FLIGHT,
        ordered: bool = True,
    ) -> Iterator[Answer]:
        """Name what many pictures show, or endlessly many.

        Pictures are taken from `images` only as answers are taken from the result, so memory is
        bounded. Several travel in one request, and are decoded while others are being answered.
        What is wrong with a picture, or with the server, is in its own answer; the others go on.

        Args:
            images: the pictures, each as `recognize` takes it.
            labels: as `recognize`, like the four that follow.
            bank: one or several.
            top_k: labels a picture.
            threshold: the least score.
            score: its kind.
            in_flight: how many pictures are under way at a time. With 1 to 4, each picture is sent
                as soon as it is there: right for a slow source, such as a camera.
            ordered: give the answers in the order of the pictures, else as they come.

        Raises:
            InputError, LabelError: the question cannot be asked.

        Example:
            >>> for answer in recognizer.recognize_many([cat, b"no picture"], bank="seed18"):
            ...     print(answer.index, answer.error is None)
            0 True
            1 False
        """
        asked = question(labels, bank, top_k, threshold, score)
        check_many(images, in_flight)

        def work(chunk: Chunk) -> list[Answer]:
            try:
                steps = self._session.recognize(chunk.images, asked, patient=True)
                return answered(Answer, chunk, self._run(steps))
            except WanwuError as error:
                return failed(Answer, chunk, error)

        return in_threads(chunks(images, in_flight), work, in_flight, ordered=ordered)

    def embed_image(self, image: ImageSource) -> Floats:
        """Encode a picture with the image tower: FP32 [D], unit length.

        Raises:
            ImageError, ServerError, ModelError: as `recognize`.
        """
        return only(self._run(self._session.embed_images([image])))

    def embed_many(
        self, images: Iterable[ImageSource], *, in_flight: int = IN_FLIGHT, ordered: bool = True
    ) -> Iterator[Embedded]:
        """Encode many pictures, as `recognize_many` recognises them."""
        check_many(images, in_flight)

        def work(chunk: Chunk) -> list[Embedded]:
            try:
                steps = self._session.embed_images(chunk.images, patient=True)
                return answered(Embedded, chunk, self._run(steps))
            except WanwuError as error:
                return failed(Embedded, chunk, error)

        return in_threads(chunks(images, in_flight), work, in_flight, ordered=ordered)

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Encode texts with the text tower.

        Returns:
            FP32 [len(texts), D], unit length.

        Raises:
            LabelError: a text is blank, a duplicate, or too long for the model.
            ServerError, ModelError: as `recognize`.
        """
        return self._run(self._session.embed_texts(texts))

    def doubts(self, texts: Sequence[str]) -> tuple[Doubt, ...]:
        """Tell which texts the model cannot read or tell apart, as `Recognition.warnings` does."""
        return self._run(self._session.doubts(texts))

    def contract(self, bank: str | None = None) -> Contract:
        """Give the contract of a bank, by default of the default bank, as the server has it now."""
        return self._run(self._session.contract(bank))

    def labels(self, bank: str | None = None) -> tuple[str, ...]:
        """Give the labels of a bank, by default of the default bank."""
        return self._run(self._session.labels(bank))

    def banks(self) -> tuple[str, ...]:
        """Give the names of the served banks."""
        return self._run(self._session.banks())

    def is_ready(self, model: str | None = None) -> bool:
        """Tell whether the server, or one of its models, is ready."""
        return self._wire.is_ready(model, timeout_s=self.timeout_s)

    def instances(self, model: str) -> tuple[Instances, ...]:
        """Return where a model's instances run: on which GPUs, or on the CPU.

        Raises:
            SetupError: the server restricts its model-config protocol.
        """
        return self._wire.instances(model, timeout_s=self.timeout_s)

    def server_version(self) -> str:
        """Return the version of Triton, such as 2.51.0.

        Raises:
            SetupError: the server restricts its metadata protocol.
        """
        return self._wire.server_version(timeout_s=self.timeout_s)

    def close(self) -> None:
        """Let go of the connection."""
        self._wire.close()

    def __enter__(self) -> Recognizer:
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the connection."""
        self.close()

    def _run(self, steps: Steps[T]) -> T:
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
                result = self._make(call)
            except Exception as error:
                failure = error

    def _make(self, call: Call) -> Any:
        match call:
            case Infer():
                return self._wire.infer(
                    call.model, call.inputs, call.outputs, timeout_s=call.timeout_s
                )
            case Compute():
                return call.function()
            case Together():
                if len(call.calls) == 1:
                    return [self._make(call.calls[0])]
                with ThreadPoolExecutor(len(call.calls)) as pool:
                    return list(pool.map(self._make, call.calls))
            case Alone():
                with self._locks.of(call.key):
                    return self._run(call.steps())
            case Pause():
                return time.sleep(call.seconds)
            case ListModels():
                return self._wire.models(timeout_s=call.timeout_s)
