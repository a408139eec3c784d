"""Recognise pictures: preprocess, ask Triton, score. An address is all it needs.

Every answer of a tower carries the fingerprint of the export it came from. A bank carries it too.
They are compared on every answer, so an embedding is never scored against another model's labels.
"""

from __future__ import annotations

import math
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import PIL.Image

from wanwu.bank import DEFAULT_BANK, Bank, fetch_bank, fetch_contract, fetch_tokenizer
from wanwu.contract import Contract
from wanwu.errors import InputError, ModelError, ServerError
from wanwu.images import MAX_PIXELS, ImageSource, fit, open_rgb
from wanwu.labels import check_labels
from wanwu.rank import Floats, Prediction, scores
from wanwu.settings import Settings
from wanwu.similarity import LabelRows
from wanwu.tokens import doubts, load_tokenizer, pad, tokenize
from wanwu.transport import GrpcTransport, ModelMissingError, ShapeError, Transport

T = TypeVar("T")

#: Labels sent to the text tower at a time; every config's max_batch_size allows it.
TEXT_BATCH = 32
#: Lists of custom labels whose embeddings are kept.
KEPT_LISTS = 16
#: Pause before asking again while versions are being swapped, growing to the second figure.
SWAP_PAUSE_S = (0.02, 0.5)


@dataclass(frozen=True)
class Recognition:
    """What a picture shows, best label first.

    `bank` is the bank's name, or None when the caller brought labels.
    `seconds` is the time from the encoded picture to the answer.
    """

    predictions: tuple[Prediction, ...]
    model: str
    fingerprint: int
    bank: str | None
    seconds: float

    @property
    def top(self) -> Prediction:
        """The best label."""
        return self.predictions[0]


@dataclass(frozen=True)
class _Candidates:
    """Labels with their embeddings, and the contract they belong to."""

    contract: Contract
    labels: tuple[str, ...]
    categories: tuple[str | None, ...]
    rows: LabelRows


class _Stale(Exception):  # noqa: N818 - a signal between methods, never seen outside
    """An answer came from another version than the contract in hand."""


class Recognizer:
    """Recognises pictures through a Triton that serves a Wanwu export.

    Args:
        url: HOST:PORT of Triton's gRPC service; by default WANWU_URL, else 127.0.0.1:8001.
        timeout_s: deadline of each answer; by default WANWU_TIMEOUT_S, else 10 seconds.
        max_pixels: refuse larger pictures before decoding them.
        refresh_s: ask again for a bank's contract after this many seconds, to see a swapped bank.
        transport: another wire than gRPC; then `url` is not used.

    One recognizer may be used by many threads.

    Example:
        >>> with Recognizer("127.0.0.1:8001") as recognizer:
        ...     recognizer.recognize("cat.jpg", labels=["猫", "狗"]).top.label
        '猫'
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float | None = None,
        max_pixels: int = MAX_PIXELS,
        refresh_s: float = 60.0,
        transport: Transport | None = None,
    ) -> None:
        settings = Settings.from_env(url=url, timeout_s=timeout_s)
        self.timeout_s = settings.timeout_s
        self.max_pixels = max_pixels
        self.refresh_s = refresh_s
        self._wire: Transport = transport or GrpcTransport(settings.url)
        self._banks: dict[str, tuple[Bank, float]] = {}
        self._encoded: OrderedDict[tuple[int, tuple[str, ...]], LabelRows] = OrderedDict()
        self._tokenizer: tuple[int, Any] | None = None

    def recognize(
        self,
        image: ImageSource,
        *,
        labels: Sequence[str] | None = None,
        bank: str | None = None,
        top_k: int = 5,
    ) -> Recognition:
        """Name what a picture shows.

        Args:
            image: a path, encoded bytes, a PIL picture, or an array [H, W, 3] UINT8, RGB.
            labels: the caller's own labels; without them a bank's are used. A warning tells of
                labels the model cannot read or cannot tell apart.
            bank: a served bank's name; by default the server's default bank.
            top_k: how many labels to give, at most all of them.

        Raises:
            ImageError, LabelError: the picture or the labels cannot be used.
            ServerError: Triton did not answer in time.
            ModelError: what Triton serves does not fit together.
        """
        if not isinstance(top_k, int) or top_k < 1:
            raise InputError(f"top_k is {top_k!r}; expected a whole number of at least 1")
        if labels is not None and bank is not None:
            raise InputError("both labels and a bank were given; give one of them")
        wanted = None if labels is None else check_labels(labels)
        started = time.perf_counter()
        picture = open_rgb(image, max_pixels=self.max_pixels)

        def attempt(deadline: _Deadline) -> Recognition:
            candidates = self._candidates(wanted, bank, deadline)
            vector = self._embed_image(picture, candidates.contract, deadline)
            return Recognition(
                _rank(vector, candidates, top_k),
                candidates.contract.model.name,
                candidates.contract.fingerprint,
                candidates.contract.bank.name if wanted is None else None,
                time.perf_counter() - started,
            )

        return self._settle(attempt)

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Encode texts with the text tower.

        Returns:
            FP32 [len(texts), D], unit length.

        Raises:
            LabelError: a text is blank, a duplicate, or too long for the model.
            ServerError, ModelError: as `recognize`.
        """
        checked = check_labels(texts)
        candidates = self._settle(lambda deadline: self._candidates(checked, None, deadline))
        return candidates.rows.embeddings

    def embed_image(self, image: ImageSource) -> Floats:
        """Encode a picture with the image tower: FP32 [D], unit length.

        Raises:
            ImageError, ServerError, ModelError: as `recognize`.
        """
        picture = open_rgb(image, max_pixels=self.max_pixels)
        return self._settle(
            lambda deadline: self._embed_image(
                picture, self._bank(None, deadline).contract, deadline
            )
        )

    def contract(self, bank: str | None = None) -> Contract:
        """Give the contract of a bank, by default of the default bank, as the server has it now."""
        return fetch_contract(self._wire, bank, timeout_s=self.timeout_s)[0]

    def labels(self, bank: str | None = None) -> tuple[str, ...]:
        """Give the labels of a bank, by default of the default bank."""
        return self._settle(lambda deadline: self._bank(bank, deadline)).labels

    def banks(self) -> tuple[str, ...]:
        """Give the names of the served banks."""
        names = [
            DEFAULT_BANK if model == "label_bank" else model.removeprefix("label_bank_")
            for model in self._wire.models(timeout_s=self.timeout_s)
            if model.startswith("label_bank")
        ]
        return tuple(sorted(names, key=lambda name: (name != DEFAULT_BANK, name)))

    def is_ready(self, model: str | None = None) -> bool:
        """Tell whether the server, or one of its models, is ready."""
        return self._wire.is_ready(model, timeout_s=self.timeout_s)

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

    def _settle(self, attempt: Callable[[_Deadline], T]) -> T:
        """Try until every part of an answer comes from one version, within one deadline."""
        deadline = _Deadline(self.timeout_s)
        disagreement = ""
        while True:
            try:
                return attempt(deadline)
            except _Stale as stale:
                disagreement = str(stale)
                # Ask for every contract again; a bank whose contract is unchanged is kept.
                self._banks = {key: (bank, -math.inf) for key, (bank, _) in self._banks.items()}
                deadline.wait(disagreement)
            except ServerError as error:
                # The time ran out in the last attempt: the disagreement is why, not the server.
                if disagreement and deadline.passed:
                    raise deadline.disagreed(disagreement) from error
                raise

    def _candidates(
        self, labels: tuple[str, ...] | None, bank: str | None, deadline: _Deadline
    ) -> _Candidates:
        held = self._bank(bank, deadline)
        if labels is None:
            return _Candidates(held.contract, held.labels, held.categories, held.rows)
        rows = self._encode(labels, held.contract, deadline)
        return _Candidates(held.contract, labels, (None,) * len(labels), rows)

    def _bank(self, name: str | None, deadline: _Deadline) -> Bank:
        key = name or DEFAULT_BANK
        kept = self._banks.get(key)
        if kept is not None:
            bank, checked = kept
            now = time.monotonic()
            if now - checked < self.refresh_s:
                return bank
            _, current = fetch_contract(self._wire, name, timeout_s=deadline.left_s())
            if current == bank.contract_json:
                self._banks[key] = (bank, now)
                return bank
        fresh = self._fetch(name, deadline)
        if fresh is None:
            raise _Stale(f"bank {key!r} changed while it was read")
        self._banks[key] = (fresh, time.monotonic())
        return fresh

    def _fetch(self, name: str | None, deadline: _Deadline) -> Bank | None:
        try:
            return fetch_bank(self._wire, name, timeout_s=deadline.left_s())
        except ModelMissingError as error:
            served = ", ".join(self.banks()) or "none"
            raise ModelMissingError(f"{error}. Banks served: {served}") from error

    def _encode(
        self, labels: tuple[str, ...], contract: Contract, deadline: _Deadline
    ) -> LabelRows:
        key = (contract.fingerprint, labels)
        kept = self._encoded.get(key)
        if kept is not None:
            return kept
        tokenizer = self._tokenizer_of(contract, deadline)
        tokens = tokenize(tokenizer, labels, contract.text)
        for doubt in doubts(tokenizer, labels, tokens):
            warnings.warn(doubt, stacklevel=2)
        parts = []
        for first in range(0, len(labels), TEXT_BATCH):
            ids = pad(tokens[first : first + TEXT_BATCH], contract.text)
            deadline.restart()  # for each batch: a long list is encoded once and then kept
            parts.append(self._embed("text_encoder", {"INPUT_IDS": ids}, contract, deadline))
        deadline.restart()
        rows = LabelRows(np.concatenate(parts))
        self._encoded[key] = rows
        while len(self._encoded) > KEPT_LISTS:
            self._encoded.popitem(last=False)
        return rows

    def _tokenizer_of(self, contract: Contract, deadline: _Deadline) -> Any:
        if self._tokenizer is None or self._tokenizer[0] != contract.fingerprint:
            data, owner = fetch_tokenizer(self._wire, None, timeout_s=deadline.left_s())
            if Contract.from_json(owner).fingerprint != contract.fingerprint:
                raise _Stale("the tokenizer is another version's")
            self._tokenizer = (contract.fingerprint, load_tokenizer(data))
        return self._tokenizer[1]

    def _embed_image(
        self, picture: PIL.Image.Image, contract: Contract, deadline: _Deadline
    ) -> Floats:
        pixels = fit(picture, contract.image)[np.newaxis]
        vector: Floats = self._embed("image_encoder", {"PIXELS": pixels}, contract, deadline)[0]
        return vector

    def _embed(
        self,
        model: str,
        inputs: dict[str, npt.NDArray[Any]],
        contract: Contract,
        deadline: _Deadline,
    ) -> Floats:
        try:
            outputs = self._wire.infer(
                model, inputs, ["EMBEDDING", "FINGERPRINT"], timeout_s=deadline.left_s()
            )
        except ShapeError as error:
            # What the contract in hand asks for fits its own version, so this is another one.
            raise _Stale(str(error)) from error
        fingerprints = np.unique(outputs["FINGERPRINT"]).tolist()
        if fingerprints != [contract.fingerprint]:
            raise _Stale(
                f"{model} answered with fingerprint {fingerprints} and bank "
                f"{contract.bank.name!r} has {contract.fingerprint}"
            )
        return outputs["EMBEDDING"]


class _Deadline:
    """The time one answer may take, through every new attempt."""

    def __init__(self, timeout_s: float) -> None:
        self._ends = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._pause_s = SWAP_PAUSE_S[0]

    def restart(self) -> None:
        """Give the whole time again, after a step forward."""
        self._ends = time.monotonic() + self._timeout_s

    def left_s(self) -> float:
        return max(0.001, self._ends - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._ends

    def disagreed(self, what: str) -> ModelError:
        return ModelError(
            f"the served models did not come to agree within {self._timeout_s:.1f} s: {what}. "
            "They come from different exports; publish the towers and every bank together"
        )

    def wait(self, what: str) -> None:
        """Wait a little for a version swap to end, or give up.

        Raises:
            ModelError: the deadline has passed.
        """
        if time.monotonic() + self._pause_s >= self._ends:
            raise self.disagreed(what)
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, SWAP_PAUSE_S[1])


def _rank(vector: Floats, candidates: _Candidates, top_k: int) -> tuple[Prediction, ...]:
    contract = candidates.contract
    cosines, best = candidates.rows.compare(vector, top_k)
    values = scores(cosines, contract.score, contract.calibration)
    return tuple(
        Prediction(
            candidates.labels[place],
            float(values[place]),
            float(cosines[place]),
            candidates.categories[place] or None,
        )
        for place in best
    )
