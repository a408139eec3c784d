"""Scores: from an embedding and a bank's embeddings to the best labels. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wanwu.contract import Calibration, Score

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One label of an answer. `cosine` is the bare similarity, from -1 to 1."""

    label: str
    score: float
    cosine: float
    category: str | None = None


def scores(cosines: Floats, score: Score, calibration: Calibration) -> Floats:
    """Turn cosine similarities into scores, along the last axis.

    Args:
        cosines: FP32 [..., labels].
        score: softmax over the labels, or a sigmoid for each.
        calibration: its temperature divides the logits.

    Returns:
        FP32 of the same shape, from 0 to 1; under softmax each row sums to 1.
    """
    if score.kind == "sigmoid":
        logits = (score.logit_scale * cosines + score.logit_bias) / calibration.temperature
        # Plain exp(-logits) would overflow at SigLIP's scale.
        sigmoid: Floats = np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)
        return sigmoid
    logits = score.logit_scale / calibration.temperature * cosines
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    softmax: Floats = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
    return softmax


def top(values: Floats, k: int) -> npt.NDArray[np.intp]:
    """Give the places of the `k` largest of FP32 [labels], largest first, ties by place.

    Only the winners are sorted, so 50,000 labels cost little more than 18.
    """
    if k < values.size:
        smallest = np.partition(values, values.size - k)[values.size - k]
        places = np.flatnonzero(values >= smallest)
    else:
        places = np.arange(values.size)
    return places[np.argsort(-values[places], kind="stable")][:k]
