"""What is asked of pictures, and what is answered. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from wanwu.bank import DEFAULT_BANK, Bank, bank_model
from wanwu.contract import Contract
from wanwu.doubts import Doubt, doubts_of_softmax
from wanwu.errors import InputError, LabelError
from wanwu.labels import check_labels
from wanwu.rank import Floats, Prediction, ScoreKind, scores
from wanwu.similarity import LabelRows

#: Labels, or each with its aliases.
Labels: TypeAlias = "Sequence[str] | Mapping[str, Sequence[str]]"

#: The answer when no label is right.
UNCERTAIN = "不确定"


@dataclass(frozen=True)
class Recognition:
    """What a picture shows, best label first.

    `predictions` are the labels that reach the threshold. `uncertain` says that none does, that
    the best cosine is below what the model's contract accepts, that the scores are nearly equal,
    that the model cannot read the best label, or that there is only one under a softmax.
    `warnings` say what else is doubtful. `banks` names the banks compared with, `bank_digests`
    their versions; both are empty when the caller brought labels. `seconds` is the time from the
    encoded picture to the answer.

    Example:
        >>> answer = recognizer.recognize(cat, labels=["猫", "狗"])
        >>> [prediction.label for prediction in answer.predictions]
        ['猫', '狗']
    """

    predictions: tuple[Prediction, ...]
    uncertain: bool
    best_cosine: float
    model: str
    fingerprint: int
    banks: tuple[str, ...]
    seconds: float
    warnings: tuple[Doubt, ...] = ()
    bank_digests: tuple[str, ...] = ()

    @property
    def top(self) -> Prediction:
        """The best label; 不确定 with score 0 when the answer is uncertain."""
        if self.uncertain:
            return Prediction(UNCERTAIN, 0.0, self.best_cosine)
        return self.predictions[0]


@dataclass(frozen=True)
class Question:
    """What is asked of pictures: by which labels, and how the answer is given."""

    labels: tuple[tuple[str, ...], ...] | None
    banks: tuple[str, ...]
    top_k: int
    threshold: float | None
    score: ScoreKind | None


def question(
    labels: Labels | None,
    bank: str | Sequence[str] | None,
    top_k: int,
    threshold: float | None,
    score: ScoreKind | None,
) -> Question:
    """Check what a caller asks.

    Raises:
        InputError, LabelError: it cannot be asked.
    """
    if not isinstance(top_k, int) or top_k < 1:
        raise InputError("top_k is {0}; expected a whole number of at least 1", repr(top_k))
    if labels is not None and bank is not None:
        raise InputError("both labels and a bank were given; give one of them")
    if threshold is not None and not -1 <= threshold <= 1:
        raise InputError(
            "threshold is {0}; expected a score from 0 to 1, or a cosine from -1 to 1",
            repr(threshold),
        )
    if score not in (None, "softmax", "sigmoid", "cosine"):
        raise InputError("score is {0}; expected softmax, sigmoid or cosine", repr(score))
    banks = (bank,) if isinstance(bank, str) else tuple(bank or (DEFAULT_BANK,))
    for name in banks:
        bank_model(name)
    return Question(
        None if labels is None else _with_aliases(labels),
        tuple(dict.fromkeys(banks)),
        top_k,
        threshold,
        score,
    )


def _with_aliases(labels: Labels) -> tuple[tuple[str, ...], ...]:
    """Give each label with its aliases."""
    if not isinstance(labels, Mapping):
        return tuple((label,) for label in check_labels(labels))
    names = check_labels(labels)
    for name, aliases in labels.items():
        if isinstance(aliases, str):
            raise LabelError(
                "the aliases of label {0} came as one text {1}; expected a list such as "
                "['移动电话', '智能手机']",
                repr(name),
                repr(aliases),
            )
    # Together, so that no two answers share a text.
    check_labels([*names, *(alias for aliases in labels.values() for alias in aliases)])
    return tuple(
        (name, *(alias.strip() for alias in aliases))
        for name, aliases in zip(names, labels.values(), strict=True)
    )


@dataclass(frozen=True)
class Candidates:
    """Labels with their embeddings, and the contract they belong to."""

    contract: Contract
    banks: tuple[str, ...]
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    rows: LabelRows
    doubts: tuple[Doubt, ...] = ()
    unreadable: frozenset[str] = frozenset()
    digests: tuple[str, ...] = ()


def recognition(
    vector: Floats, candidates: Candidates, asked: Question, started: float
) -> Recognition:
    """Score one picture's embedding, FP32 [D], against the candidates."""
    contract = candidates.contract
    cosines, best = candidates.rows.compare(vector, asked.top_k)
    values = scores(cosines, contract.score, contract.calibration, asked.score)
    kept = [place for place in best if asked.threshold is None or values[place] >= asked.threshold]
    least = contract.calibration.reject_cosine
    best_cosine = float(cosines[best[0]])
    softmax = (asked.score or contract.score.kind) == "softmax"
    doubts = doubts_of_softmax(values) if softmax else []
    # A label by itself is judged by its cosine, where the contract says by which.
    undecided = any(each.code != "label_single" or least is None for each in doubts)
    unread = candidates.labels[best[0]] in candidates.unreadable
    return Recognition(
        tuple(
            Prediction(
                candidates.labels[place],
                float(values[place]),
                float(cosines[place]),
                candidates.categories[place] or None,
            )
            for place in kept
        ),
        not kept or (least is not None and best_cosine < least) or undecided or unread,
        best_cosine,
        contract.model.name,
        contract.fingerprint,
        candidates.banks,
        time.perf_counter() - started,
        (*candidates.doubts, *doubts),
        candidates.digests,
    )


def combine(names: tuple[str, ...], banks: Sequence[Bank]) -> Candidates:
    """Put banks of one export together; a label of several banks is the first one's."""
    places: dict[str, tuple[int, int]] = {}
    for number, bank in enumerate(banks):
        for row, label in enumerate(bank.labels):
            places.setdefault(label, (number, row))
    rows = [banks[number].rows.embeddings[row] for number, row in places.values()]
    return Candidates(
        banks[0].contract,
        names,
        tuple(places),
        tuple(banks[number].categories[row] for number, row in places.values()),
        LabelRows(np.stack(rows)),
        digests=tuple(bank.contract.bank.digest for bank in banks),
    )
