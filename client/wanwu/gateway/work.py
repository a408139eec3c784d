"""The gateway's work: from what a request asks to what Triton answers. It knows no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wanwu.answers import Labels, Recognition
from wanwu.async_recognizer import AsyncRecognizer
from wanwu.async_transport import AsyncGrpcTransport
from wanwu.catalog import Message
from wanwu.contract import Contract
from wanwu.doubts import Doubt
from wanwu.errors import WanwuError
from wanwu.gateway.answers import (
    BankAnswer,
    EmbedAnswer,
    Embedding,
    PictureAnswer,
    ProblemDocument,
    RecognizeAnswer,
    picture_answer,
    warning_answers,
)
from wanwu.gateway.metrics import Metrics
from wanwu.gateway.problems import Problem, problem_of
from wanwu.gateway.questions import EmbedQuestion, RecognizeQuestion, check_pictures, examine
from wanwu.gateway.settings import GatewaySettings
from wanwu.gateway.trace import Picture, Trace
from wanwu.gateway.turns import TURN, FairPool, Turn
from wanwu.gateway.wire import GuardedTransport
from wanwu.settings import Settings

Vector = npt.NDArray[np.float32]

#: A readiness probe is answered from the last look for this long, however many ask.
READY_S = 2.0
#: Later looks at Triton, and the time of each: together less than a probe waits.
LOOKS, LOOK_S = 3, 0.9
#: Times that vectors are asked for again when the model was swapped between them.
SWAPS = 5


class Work:
    """Recognises and embeds for requests.

    Args:
        settings: what may come.
        triton: where Triton is.
        metrics: counts.
    """

    def __init__(self, settings: GatewaySettings, triton: Settings, metrics: Metrics) -> None:
        self._settings, self._triton, self._metrics = settings, triton, metrics
        self._pool = FairPool(settings.decoders)
        self.recognizer: AsyncRecognizer
        self._wire: GuardedTransport
        self._ready: tuple[float, Contract] | None = None
        self._looking = asyncio.Lock()

    async def open(self) -> None:
        """Begin, inside the event loop that goes on."""
        self._wire = GuardedTransport(AsyncGrpcTransport(self._triton.address), self._metrics)
        self.recognizer = AsyncRecognizer(
            self._triton.address.url,
            timeout_s=self._triton.timeout_s,
            max_pixels=self._settings.max_pixels,
            decoders=self._pool,
            cache=False,  # a bank is fetched once a process; callers' labels are not kept on disk
            transport=self._wire,
        )

    async def close(self) -> None:
        """Let go of the connection and the threads."""
        await self.recognizer.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def recognize(
        self, asked: RecognizeQuestion, trace: Trace, *, chinese: bool
    ) -> RecognizeAnswer:
        """Recognise a request's pictures. Of several, each has its own answer or problem.

        Raises:
            Problem: the only picture is refused, or all fail for one reason.
        """
        started = time.perf_counter()
        trace.labels = None if asked.labels is None else len(asked.labels)
        texts = trace.labels or 0
        if isinstance(asked.labels, dict):
            texts += sum(map(len, asked.labels.values()))
        if texts > self._settings.max_labels:
            raise Problem(
                "labels_invalid",
                Message(
                    "{0} labels and aliases came and the limit is {1}; have a bank made of them",
                    texts,
                    self._settings.max_labels,
                ),
            )
        trace.asked = _own_texts(asked.labels)
        found = await self._each(asked.images, trace, self._recognizes(asked))
        answers, doubts = [], []
        for index, (picture, each) in enumerate(zip(trace.pictures, found, strict=True)):
            if isinstance(each, Problem):
                answers.append(PictureAnswer(index=index, error=_document(each, chinese)))
            else:
                trace.answered(picture, each)
                trace.banks = each.banks
                self._metrics.recognised(each)
                doubts += each.warnings
                answers.append(picture_answer(index, each, chinese=chinese))
        return RecognizeAnswer(
            results=answers,
            warnings=warning_answers(doubts, chinese=chinese),
            model=trace.model,
            fingerprint=None if trace.fingerprint is None else str(trace.fingerprint),
            banks=list(trace.banks or ()),
            seconds=time.perf_counter() - started,
        )

    async def embed(self, asked: EmbedQuestion, trace: Trace, *, chinese: bool) -> EmbedAnswer:
        """Encode a request's pictures and texts, all by one version of the model.

        Raises:
            Problem: nothing came; the only picture is refused; or all fail for one reason.
        """
        if not asked.images and not asked.texts:
            raise Problem("request_invalid", "no picture and no text came; send one at least")
        trace.texts = len(asked.texts) or None
        if len(asked.texts) > self._settings.max_labels:
            raise Problem(
                "labels_invalid",
                Message(
                    "{0} texts came and the limit is {1}; send several requests",
                    len(asked.texts),
                    self._settings.max_labels,
                ),
            )
        trace.asked = asked.texts
        for _ in range(SWAPS):
            trace.pictures.clear()
            before = await self._call(self.recognizer.contract())
            found = await self._each(asked.images, trace, self.recognizer.embed_image)
            texts, doubts = await self._texts(asked.texts)
            if (await self._call(self.recognizer.contract())).fingerprint == before.fingerprint:
                break
        else:
            raise Problem("model_mismatch", "the model was swapped again and again; try later")
        trace.model, trace.fingerprint = before.model.name, before.fingerprint
        return EmbedAnswer(
            images=[
                Embedding(index=index, error=_document(each, chinese))
                if isinstance(each, Problem)
                else Embedding(index=index, embedding=each.tolist())
                for index, each in enumerate(found)
            ],
            texts=texts,
            warnings=warning_answers(doubts, chinese=chinese),
            model=before.model.name,
            fingerprint=str(before.fingerprint),
        )

    async def banks(self) -> list[BankAnswer]:
        """Give the served banks."""
        answers = []
        for name in await self._call(self.recognizer.banks()):
            contract = await self._call(self.recognizer.contract(name))
            answers.append(
                BankAnswer(
                    name=name,
                    labels=contract.bank.count,
                    model=contract.model.name,
                    fingerprint=str(contract.fingerprint),
                    rejects=contract.score.kind == "sigmoid"
                    or contract.calibration.reject_cosine is not None,
                )
            )
        return answers

    async def labels(self, bank: str) -> tuple[str, ...]:
        """Give a bank's labels.

        Raises:
            Problem: there is no such bank.
        """
        labels: tuple[str, ...] = await self._call(self.recognizer.labels(bank))
        return labels

    async def ready(self) -> Contract:
        """Check that Triton, its towers and its bank answer; return the contract.

        The first time a picture is encoded. After that an answer of any server within the last
        seconds is enough, to a caller or to this: a server that hangs, or a full queue, must not
        take every gateway out of service.

        Raises:
            Problem: they do not.
        """
        async with self._looking:
            if self._ready is None:
                contract = await self._look()
                grey = np.full((32, 32, 3), 128, np.uint8)
                await self._call(self.recognizer.embed_image(grey))
            elif time.monotonic() - self._ready[0] < READY_S:
                return self._ready[1]
            else:
                contract = await self._looked_again(self._ready[1])
            self._ready = time.monotonic(), contract
            return contract

    async def _looked_again(self, last: Contract) -> Contract:
        for _ in range(LOOKS):
            try:
                return await asyncio.wait_for(self._look(), LOOK_S)
            except (Problem, asyncio.TimeoutError):
                if self._wire.silent_s < READY_S:
                    return last
        raise Problem("unavailable", "Triton does not answer; try again", retry_after_s=5)

    async def _look(self) -> Contract:
        contract: Contract = await self._call(self.recognizer.contract())
        for tower in ("image_encoder", "text_encoder"):
            if not await self._call(self.recognizer.is_ready(tower)):
                raise Problem(
                    "unavailable", Message("Triton's model {0} is not ready; wait", tower), 5
                )
        return contract

    def _recognizes(self, asked: RecognizeQuestion) -> Any:
        async def recognize(image: bytes) -> Recognition:
            return await self.recognizer.recognize(
                image,
                labels=asked.labels,
                bank=asked.bank,
                top_k=asked.top_k,
                threshold=asked.threshold,
                score=asked.score,
            )

        return recognize

    async def _each(self, images: Sequence[bytes], trace: Trace, work: Any) -> list[Any]:
        """Do something with each picture: what came of it, or its problem."""
        check_pictures(list(images), self._settings)
        who = trace.principal and trace.principal.who
        TURN.set(Turn(who))
        checked = await asyncio.gather(*map(self._examine, images))
        for picture, _ in checked:
            trace.pictures.append(picture)
            self._metrics.came(picture)
        self._check_time(
            Turn.of(who, *(picture for picture, refused in checked if not refused)), trace
        )

        async def one(image: bytes, picture: Picture, refused: Problem | None) -> Any:
            TURN.set(Turn.of(who, picture))  # in this task alone
            try:
                return refused or await work(image)
            except WanwuError as error:
                return problem_of(error)

        found = await asyncio.gather(
            *(one(image, *each) for image, each in zip(images, checked, strict=True))
        )
        for picture, each in zip(trace.pictures, found, strict=True):
            picture.code = each.code if isinstance(each, Problem) else None
        problems = [each for each in found if isinstance(each, Problem)]
        # What is wrong with the question or with Triton is not the pictures' own.
        general = [each for each in problems if not each.code.startswith("picture_")]
        if general or (len(found) == 1 and problems):
            raise (general or problems)[0]
        return list(found)

    def _check_time(self, turn: Turn, trace: Trace) -> None:
        """Check that pictures can be decoded in the time that their request has left.

        Raises:
            Problem: they cannot.
        """
        expected_s = self._pool.expected_s(turn)
        if expected_s > trace.left_s:
            raise Problem(
                "overloaded",
                Message(
                    "the pictures would be decoded in {0} s and the request has {1} s left; send "
                    "fewer or smaller ones, or try again",
                    f"{expected_s:.0f}",
                    f"{trace.left_s:.0f}",
                ),
                retry_after_s=expected_s - trace.left_s,
            )

    async def _examine(self, image: bytes) -> tuple[Picture, Problem | None]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, examine, image, self._settings.max_pixels)

    async def _texts(self, texts: Sequence[str]) -> tuple[list[list[float]], tuple[Doubt, ...]]:
        if not texts:
            return [], ()
        vectors: Vector = await self._call(self.recognizer.embed_texts(texts))
        return vectors.tolist(), await self._call(self.recognizer.doubts(texts))

    async def _call(self, call: Any) -> Any:
        try:
            return await call
        except WanwuError as error:
            raise problem_of(error) from error


def _own_texts(labels: Labels | None) -> list[str]:
    """Return labels of a caller's own, and their aliases."""
    if isinstance(labels, Mapping):
        return [text for label, aliases in labels.items() for text in (label, *aliases)]
    return list(labels or ())


def _document(problem: Problem, chinese: bool) -> ProblemDocument:
    return ProblemDocument(**problem.document(chinese))
