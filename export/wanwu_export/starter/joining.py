"""Join a classifier to a text space, so that pictures and texts can be compared (ConSE).

An image embedding is the mean of the class descriptions, weighted by the classifier's
probabilities (Norouzi et al., 2013, arXiv:1312.5650). Two changes make labels that no class has
come out right; docs/decisions/0002 gives the measurements:

* the text space is whitened over our vocabulary, since raw sentence embeddings share a few
  directions that make unrelated words look alike;
* a class is described by its name, its other names and the broader words it falls under.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wanwu_export.concepts import Concept

#: Weight of a concept's other names, and of its broader words, beside its label.
ALIAS_WEIGHT, BROADER_WEIGHT = 0.3, 0.6
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


def vocabulary(concepts: Iterable[Concept]) -> list[str]:
    """Give every text of the concepts once, sorted."""
    texts: set[str] = set()
    for concept in concepts:
        texts.update((concept.label, concept.category, *concept.aliases, *concept.broader))
    return sorted(texts - {""})


def describe(concepts: Sequence[Concept], encode: EncodeTexts) -> Tensor:
    """Embed concepts by all that is known of them: FP32 [len(concepts), D], unit length."""
    texts = vocabulary(concepts)
    embedded = dict(zip(texts, encode(texts), strict=True))
    return torch.stack([_describe(concept, embedded) for concept in concepts])


def _describe(concept: Concept, embedded: dict[str, Tensor]) -> Tensor:
    total = embedded[concept.label]
    broader = dict.fromkeys((*concept.broader, concept.category))
    broader.pop("", None)
    for texts, weight in ((concept.aliases, ALIAS_WEIGHT), (tuple(broader), BROADER_WEIGHT)):
        if texts:
            mean = torch.stack([embedded[text] for text in texts]).mean(0)
            total = total + weight * functional.normalize(mean, dim=-1)
    return functional.normalize(total, dim=-1)
