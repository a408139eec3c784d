"""Join a classifier to a text space, so that pictures and texts can be compared (ConSE).

An image embedding is the mean of the class descriptions, weighted by the classifier's
probabilities (Norouzi et al., 2013, arXiv:1312.5650). Two changes make labels that no class has
come out right; docs/decisions/0002 gives the measurements:

* the text space is whitened over our vocabulary, since raw sentence embeddings share a few
  directions that make unrelated words look alike;
* a class is described by its name, its other names and the broader words it falls under.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wanwu_export.concepts import Concept
from wanwu_export.describe import Weights, describe
from wanwu_export.templates import load_templates

#: The sentence encoder knows no captions: a sentence around a label pulls it away.
TEMPLATES = "bare"
WEIGHTS = Weights(alias=0.3, description=0.3, broader=0.6)
#: Share of the mean variance added to every direction before whitening.
SHRINKAGE = 0.05

EncodeTexts = Callable[[Sequence[str]], Tensor]


class Whitening(nn.Module):
    """Centres and decorrelates sentence embeddings."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Whiten FP32 [N, D]: FP32 [N, D], unit length."""
        return functional.normalize((embeddings - self.mean) @ self.matrix, dim=-1)

    @classmethod
    def fit(cls, embeddings: Tensor) -> Whitening:
        """Fit to the embeddings of a vocabulary, FP32 [V, D].

        In FP64 and with fixed signs, so that the same vocabulary gives the same matrix.
        """
        wide = embeddings.double()
        mean = wide.mean(0)
        centred = functional.normalize(wide - mean, dim=-1)
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        scale = (variances.clamp_min(0) + SHRINKAGE * variances.mean()).rsqrt()
        matrix = directions @ torch.diag(scale) @ directions.T
        return cls(mean.float(), matrix.float())


class JoinedClassifier(nn.Module):
    """Embeds pictures: the class descriptions, weighted by the classifier's probabilities."""

    descriptions: Tensor

    def __init__(self, classifier: nn.Module, descriptions: Tensor) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("descriptions", descriptions)

    def forward(self, images: Tensor) -> Tensor:
        """Embed FP32 [N, 3, H, W]: FP32 [N, D], unit length."""
        probabilities = functional.softmax(self.classifier(images), dim=-1)
        return functional.normalize(probabilities @ self.descriptions, dim=-1)


def describe_concepts(concepts: Sequence[Concept], encode: EncodeTexts) -> Tensor:
    """Embed concepts as the starter does: FP32 [len(concepts), D], unit length."""
    rows = describe(
        concepts, lambda texts: encode(texts).numpy(), load_templates(TEMPLATES), WEIGHTS
    )
    return torch.from_numpy(rows)
