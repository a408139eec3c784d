"""The client's work, written once for the synchronous and the asynchronous client.

Each method is a generator of `calls`: it says what it needs from the server and goes on with the
answer. Every answer of a tower carries the fingerprint of the export it came from. A bank carries
it too. They are compared on every answer, so an embedding is never scored against another model's
labels.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from wanwu.answers import Candidates, Question, Recognition, combine, recognition
from wanwu.bank import (
    DEFAULT_BANK,
    Bank,
    fetch_bank,
    fetch_contract,
    fetch_tokenizer,
    normalise,
)
from wanwu.cache import FileCache
from wanwu.calls import Alone, Compute, Infer, ListModels, Pause, Steps, Together
from wanwu.catalog import Message, message_of
from wanwu.channel import ModelMissingError
from wanwu.contract import Contract, Image
from wanwu.deadline import Deadline
from wanwu.doubts import Doubt
from wanwu.errors import (
    ImageError,
    ModelError,
    OverloadedError,
    ServerError,
    WanwuError,
)
from wanwu.images import ImageSource, to_pixels
from wanwu.labels import check_labels
from wanwu.rank import Floats
from wanwu.shared import Newest
from wanwu.similarity import LabelRows
from wanwu.tokens import doubts, load_tokenizer, pad, tokenize, unreadable

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")

#: Labels sent to the text tower in one request; every config's max_batch_size allows it.
TEXT_BATCH = 64
#: Requests of labels that are under way at a time.
TEXT_REQUESTS = 4
#: Lists of custom labels, and combinations of banks, that are kept in memory.
KEPT_LISTS = 16


@dataclass
class _Batch:
    """Pictures of one request, and what they are in the geometry asked for last."""

    images: Sequence[ImageSource]
    geometry: Image | None = None
    prepared: list[npt.NDArray[np.uint8] | ImageError] = field(default_factory=list)


@dataclass(frozen=True)
class _Encoded:
    """Labels as the model reads them, and which of them it cannot read."""

    rows: LabelRows
    doubts: tuple[Doubt, ...]
    unreadable: frozenset[str]


class _Stale(Exception):  # noqa: N818 - a signal between methods, never seen outside
    """An answer came from another version than the contract in hand, or a tower refused.

    `refusal` is a tower's own error: what the contract in hand says fits its own version, so the
    tower may be another version's.
    """

    def __init__(self, what: str, refusal: ModelError | None = None) -> None:
        super().__init__(what)
        self.refusal = refusal


class Session:
    """What a client knows of a server, and how it gets its answers.

    Used by many tasks or threads at once: what is kept is replaced whole, never changed.
    """

    def __init__(
        self, *, timeout_s: float, max_pixels: int, refresh_s: float, exact: bool, cache: FileCache
    ) -> None:
        self.timeout_s = timeout_s
        self._max_pixels, self._refresh_s, self._exact = max_pixels, refresh_s, exact
        self._cache = cache
        self._banks: dict[str, tuple[Bank, float]] = {}
        self._tokenizer: tuple[int, Any] | None = None
        self._encoded: Newest[tuple[int, object], _Encoded] = Newest(KEPT_LISTS)
        #: Rows of lists that are not finished; one task at a time works on a list.
        self._unfinished: Newest[tuple[int, str], list[Floats]] = Newest(KEPT_LISTS)
        self._combined: Newest[tuple[bytes, ...], Candidates] = Newest(KEPT_LISTS)
        self._failures: Newest[Hashable, tuple[float, Exception]] = Newest(KEPT_LISTS)

    def recognize(
        self, images: Sequence[ImageSource], asked: Question, *, patient: bool = False
    ) -> Steps[list[Recognition | ImageError]]:
        """Recognise pictures by one request: an answer for each, or what is wrong with it.

        A patient caller waits while the server's queue is full, until the deadline.
        """
        started = time.perf_counter()
        batch = _Batch(images)

        def attempt(deadline: Deadline) -> Steps[list[Recognition | ImageError]]:
            candidates = yield from self._candidates(asked, deadline)
            found = yield from self._embed_images(batch, candidates.contract, deadline)

            def rank() -> list[Recognition | ImageError]:
                return [
                    vector
                    if isinstance(vector, ImageError)
                    else recognition(vector, candidates, asked, started)
                    for vector in found
                ]

            ranked: list[Recognition | ImageError] = yield Compute(rank)
            return ranked

        return (yield from self._settle(attempt, patient=patient))

    def embed_images(
        self, images: Sequence[ImageSource], *, patient: bool = False
    ) -> Steps[list[Floats | ImageError]]:
        """Encode pictures by one request: FP32 [D] for each, or what is wrong with it."""
        batch = _Batch(images)

        def attempt(deadline: Deadline) -> Steps[list[Floats | ImageError]]:
            bank = yield from self._bank(DEFAULT_BANK, deadline)
            return (yield from self._embed_images(batch, bank.contract, deadline))

        return (yield from self._settle(attempt, patient=patient))

    def embed_texts(self, texts: Sequence[str]) -> Steps[Floats]:
        """Encode texts: FP32 [len(texts), D]; more than fit one request wait for a full queue."""
        encoded = yield from self._encode_texts(texts)
        for doubt in encoded.doubts:
            warnings.warn(doubt, stacklevel=2)
        return encoded.rows.embeddings

    def doubts(self, texts: Sequence[str]) -> Steps[tuple[Doubt, ...]]:
        """Tell what is doubtful about texts, which are encoded and kept for it."""
        return (yield from self._encode_texts(texts)).doubts

    def _encode_texts(self, texts: Sequence[str]) -> Steps[_Encoded]:
        groups = tuple((text,) for text in check_labels(texts))

        def attempt(deadline: Deadline) -> Steps[_Encoded]:
            bank = yield from self._bank(DEFAULT_BANK, deadline)
            return (yield from self._encode(groups, bank.contract, deadline))

        return (yield from self._settle(attempt, patient=len(groups) > TEXT_BATCH))

    def contract(self, bank: str | None) -> Steps[Contract]:
        """Fetch a bank's contract as the server has it now."""
        contract, _ = yield from fetch_contract(bank, timeout_s=self.timeout_s)
        return contract

    def labels(self, bank: str | None) -> Steps[tuple[str, ...]]:
        """Give a bank's labels."""
        held = yield from self._settle(lambda deadline: self._bank(bank or DEFAULT_BANK, deadline))
        return held.labels

    def banks(self) -> Steps[tuple[str, ...]]:
        """Give the names of the served banks, the default first."""
        models = yield ListModels(self.timeout_s)
        names = [
            DEFAULT_BANK if model == "label_bank" else model.removeprefix("label_bank_")
            for model in models
            if model.startswith("label_bank")
        ]
        return tuple(sorted(names, key=lambda name: (name != DEFAULT_BANK, name)))

    def _settle(
        self, attempt: Callable[[Deadline], Steps[T]], *, patient: bool = False
    ) -> Steps[T]:
        """Try until every part of an answer comes from one version, within one deadline."""
        deadline = Deadline(self.timeout_s)
        last: _Stale | None = None
        while True:
            try:
                return (yield from attempt(deadline))
            except _Stale as stale:
                last = stale
                # Ask for every contract again; a bank whose contract is unchanged is kept.
                self._banks = {key: (bank, -math.inf) for key, (bank, _) in self._banks.items()}
                pause = deadline.backoff_s()
                if pause is None:
                    raise _why(stale, deadline) from stale
                yield Pause(pause)
            except OverloadedError:
                pause = deadline.backoff_s() if patient else None
                if pause is None:
                    raise
                yield Pause(pause)
            except ServerError as error:
                # The time ran out in the last attempt: the disagreement is why, not the server.
                if last is not None and deadline.passed:
                    raise _why(last, deadline) from error
                raise

    def _candidates(self, asked: Question, deadline: Deadline) -> Steps[Candidates]:
        banks = []
        for name in asked.banks:
            banks.append((yield from self._bank(name, deadline)))
        contract = banks[0].contract
        if asked.labels is not None:
            encoded = yield from self._encode(asked.labels, contract, deadline)
            names = tuple(group[0] for group in asked.labels)
            about = encoded.rows, encoded.doubts, encoded.unreadable
            return Candidates(contract, (), names, ("",) * len(names), *about)
        for bank in banks:
            if bank.contract.fingerprint != contract.fingerprint:
                raise _Stale(
                    Message(
                        "bank {0} has fingerprint {1} and bank {2} has {3}",
                        repr(bank.contract.bank.name),
                        bank.contract.fingerprint,
                        repr(contract.bank.name),
                        contract.fingerprint,
                    )
                )
        if len(banks) == 1:
            bank = banks[0]
            digests = (contract.bank.digest,)
            return Candidates(
                contract,
                asked.banks,
                bank.labels,
                bank.categories,
                bank.rows,
                digests=digests,
            )
        key = tuple(bank.contract_json for bank in banks)
        kept = self._combined.get(key)
        if kept is None:
            kept = self._combined.put(key, combine(asked.banks, banks))
        return kept

    def _bank(self, name: str, deadline: Deadline) -> Steps[Bank]:
        held = self._held_bank(name)
        if held is None:
            held = yield from self._once(
                ("bank", name), lambda: self._refreshed_bank(name, deadline), deadline
            )
        return held

    def _held_bank(self, name: str) -> Bank | None:
        kept = self._banks.get(name)
        fresh = kept is not None and time.monotonic() - kept[1] < self._refresh_s
        return kept[0] if kept is not None and fresh else None

    def _refreshed_bank(self, name: str, deadline: Deadline) -> Steps[Bank]:
        held = self._held_bank(name)
        if held is not None:
            return held  # another task has fetched it meanwhile
        try:
            contract, contract_json = yield from fetch_contract(name, timeout_s=deadline.left_s())
        except ModelMissingError as error:
            served = ", ".join((yield from self.banks())) or "none"
            raise type(error)(
                Message("{0}. Banks served: {1}", error, served), error.model
            ) from error
        kept = self._banks.get(name)
        bank = kept[0] if kept is not None and kept[0].contract_json == contract_json else None
        if bank is None:
            bank = self._cache.read_bank(contract, contract_json)
        if bank is None:
            bank = yield from fetch_bank(name, contract, contract_json, timeout_s=deadline.left_s())
            if bank is None:
                raise _Stale(Message("bank {0} changed while it was read", repr(name)))
            self._cache.write_bank(bank)
        self._banks = {**self._banks, name: (bank, time.monotonic())}
        return bank

    def _encode(
        self, groups: tuple[tuple[str, ...], ...], contract: Contract, deadline: Deadline
    ) -> Steps[_Encoded]:
        """Give the embedding of each label; one with aliases is the mean of their directions."""
        key = (contract.fingerprint, groups)
        kept = self._encoded.get(key)
        if kept is None:
            kept = yield from self._once(
                key, lambda: self._encoded_rows(key, contract, deadline), deadline
            )
        return kept

    def _once(self, key: Hashable, work: Callable[[], Steps[T]], deadline: Deadline) -> Steps[T]:
        """Let one task do some work, for all that need it now; its failure is theirs as well."""
        asked = time.monotonic()

        def steps() -> Steps[T]:
            failure = self._failures.get(key)
            if failure is not None and failure[0] >= asked:
                raise failure[1]
            try:
                return (yield from work())
            except (WanwuError, _Stale) as error:
                self._failures.put(key, (time.monotonic(), error))
                raise

        done: T = yield Alone(key, steps)
        # The time that another task took for it, within its own deadline, is not this one's.
        deadline.extend(time.monotonic() - asked)
        return done

    def _encoded_rows(
        self,
        key: tuple[int, tuple[tuple[str, ...], ...]],
        contract: Contract,
        deadline: Deadline,
    ) -> Steps[_Encoded]:
        kept = self._encoded.get(key)
        if kept is not None:
            return kept  # another task has encoded them meanwhile
        groups = key[1]
        texts = [text for group in groups for text in group]
        tokenizer = yield from self._tokenizer_of(contract, deadline)
        read = yield Compute(lambda: _read(tokenizer, texts, contract))
        ids, doubted, unread = read
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        embeddings = self._cache.read_texts(contract, digest, len(texts))
        if embeddings is None:
            done = self._unfinished.get((contract.fingerprint, digest)) or []
            self._unfinished.put((contract.fingerprint, digest), done)
            yield from self._embed_texts(ids, contract, deadline, done)
            embeddings = np.concatenate(done)
            done.clear()
            self._cache.write_texts(contract, digest, embeddings)
        ends = np.cumsum([len(group) for group in groups])
        means = np.add.reduceat(embeddings, np.concatenate([[0], ends[:-1]]), axis=0)
        nameless = frozenset(group[0] for group in groups if unread.issuperset(group))
        encoded = _Encoded(LabelRows(normalise(means)), doubted, nameless)
        return self._encoded.put(key, encoded)

    def _embed_texts(
        self, ids: list[list[int]], contract: Contract, deadline: Deadline, done: list[Floats]
    ) -> Steps[None]:
        """Add the rows of texts to those that are done, which an attempt before may have left."""
        left = ids[sum(map(len, done)) :]
        for some in _slices(len(left), TEXT_BATCH * TEXT_REQUESTS):
            calls = [
                Infer(
                    "text_encoder",
                    {"INPUT_IDS": pad(left[some][batch], contract.text)},
                    _OUTPUTS,
                    deadline.left_s(),
                )
                for batch in _slices(len(left[some]), TEXT_BATCH)
            ]
            done += yield from _embeddings(Together(calls), contract)
            deadline.restart()  # after each round: a long list is encoded once and then kept

    def _tokenizer_of(self, contract: Contract, deadline: Deadline) -> Steps[Any]:
        if self._tokenizer is None or self._tokenizer[0] != contract.fingerprint:
            data, owner = yield from fetch_tokenizer(None, timeout_s=deadline.left_s())
            if Contract.from_json(owner).fingerprint != contract.fingerprint:
                raise _Stale("the tokenizer is another version's")
            self._tokenizer = (contract.fingerprint, load_tokenizer(data))
        return self._tokenizer[1]

    def _embed_images(
        self, batch: _Batch, contract: Contract, deadline: Deadline
    ) -> Steps[list[Floats | ImageError]]:
        if batch.geometry != contract.image:
            started = time.monotonic()
            batch.prepared = yield Compute(
                lambda: [self._pixels(i, contract) for i in batch.images]
            )
            batch.geometry = contract.image
            deadline.extend(time.monotonic() - started)  # decoding takes no time from the server's
        good = [pixels for pixels in batch.prepared if not isinstance(pixels, ImageError)]
        vectors: Iterator[Floats] = iter(())
        if good:
            call = Infer("image_encoder", {"PIXELS": np.stack(good)}, _OUTPUTS, deadline.left_s())
            (found,) = yield from _embeddings(Together([call]), contract)
            vectors = iter(found)
        return [each if isinstance(each, ImageError) else next(vectors) for each in batch.prepared]

    def _pixels(self, image: ImageSource, contract: Contract) -> npt.NDArray[np.uint8] | ImageError:
        try:
            return to_pixels(image, contract.image, max_pixels=self._max_pixels, exact=self._exact)
        except ImageError as error:
            return error


_OUTPUTS = ("EMBEDDING", "FINGERPRINT")


def _read(
    tokenizer: Any, texts: list[str], contract: Contract
) -> tuple[list[list[int]], tuple[Doubt, ...], set[str]]:
    """Return texts as token ids, what is doubtful about them, and those that cannot be read."""
    ids = tokenize(tokenizer, texts, contract.text)
    return ids, tuple(doubts(tokenizer, texts, ids)), set(unreadable(tokenizer, texts, ids))


def _why(stale: _Stale, deadline: Deadline) -> ModelError:
    """Return the error of an answer that never came: the tower's own, or a disagreement."""
    return stale.refusal or deadline.disagreed(message_of(stale))


def _embeddings(call: Together, contract: Contract) -> Steps[list[Floats]]:
    """Give a tower's answers, which must be of the contract's export."""
    try:
        answers = yield call
    except ModelError as error:
        raise _Stale(message_of(error), error) from error
    for infer, outputs in zip(call.calls, answers, strict=True):
        fingerprints = np.unique(outputs["FINGERPRINT"]).tolist()
        if fingerprints != [contract.fingerprint]:
            raise _Stale(
                Message(
                    "{0} answered with fingerprint {1} and bank {2} has {3}",
                    infer.model,
                    fingerprints,
                    repr(contract.bank.name),
                    contract.fingerprint,
                )
            )
    return [outputs["EMBEDDING"] for outputs in answers]


def only(answers: Sequence[T | ImageError]) -> T:
    """Give the one answer, or raise what is wrong with the picture."""
    (answer,) = answers
    if isinstance(answer, ImageError):
        raise answer
    return answer


def _slices(count: int, size: int) -> list[slice]:
    return [slice(first, first + size) for first in range(0, count, size)]
