"""Scores: from an embedding and a bank's embeddings to the best labels. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wanwu.contract import Calibration, Score
from wanwu.errors import InputError

Floats = npt.NDArray[np.float32]
ScoreKind = Literal["softmax", "sigmoid", "cosine"]
Places = npt.NDArray[np.intp]

#: Values whose maximum is looked at first when the largest of many are sought.
BLOCK = 64


@dataclass(frozen=True)
class Prediction:
    """One label of an answer. `cosine` is the bare similarity, from -1 to 1.

    Example:
        >>> Prediction("猫", score=0.98, cosine=0.31).label
        '猫'
    """

    label: str
    score: float
    cosine: float
    category: str | None = None


def scores(
    cosines: Floats, score: Score, calibration: Calibration, kind: ScoreKind | None = None
) -> Floats:
    """Turn cosine similarities into scores, along the last axis.

    Args:
        cosines: FP32 [..., labels].
        score: the model's own: its scale, its bias, its kind.
        calibration: its temperature divides the logits.
        kind: softmax over the labels, a sigmoid for each, or the bare cosines; by default the
            model's own.

    Returns:
        FP32 of the same shape, from 0 to 1; under softmax each row sums to 1.

    Raises:
        InputError: a sigmoid is asked of a model that was trained without one.
    """
    kind = kind or score.kind
    if kind == "cosine":
        return cosines
    if kind == "sigmoid":
        if score.kind != "sigmoid":
            raise InputError(
                "score is sigmoid and the model was trained with a softmax: it has no bias, and "
                "every label would get nearly 1; use softmax or cosine"
            )
        logits = (score.logit_scale * cosines + score.logit_bias) / calibration.temperature
        # Plain exp(-logits) would overflow at SigLIP's scale.
        sigmoid: Floats = np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)
        return sigmoid
    # In place: with 50,000 labels each new array costs as much as what is computed into it.
    values = np.multiply(cosines, score.logit_scale / calibration.temperature, dtype=np.float32)
    values -= values.max(axis=-1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def top(values: Floats, k: int) -> Places:
    """Give the places of the `k` largest of FP32 [labels], largest first, ties by place.

    Only the winners are sorted, so 50,000 labels cost little more than 18.
    """
    places = np.flatnonzero(values >= kth_largest(values, k))
    return places[np.argsort(-values[places], kind="stable")][:k]


def kth_largest(values: Floats, k: int) -> float:
    """Give a value that at least `k` of FP32 [labels] reach, and not many more; or all of them."""
    if k >= values.size:
        return float(values.min())
    blocks = values.size // BLOCK
    if k > blocks:
        return float(np.partition(values, values.size - k)[values.size - k])
    # Of the blocks' maxima k reach the k-th largest, and to partition these takes a tenth. A block
    # takes every so many-th value, so that numpy compares whole rows at once.
    maxima = values[: blocks * BLOCK].reshape(BLOCK, blocks).max(axis=0)
    return float(np.partition(maxima, blocks - k)[blocks - k])
