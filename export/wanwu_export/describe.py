"""Descriptions: a concept as one vector, made of the texts that are known of it.

It does not know what encodes the texts; that is the caller's `encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wanwu.bank import normalise
from wanwu.errors import ModelError
from wanwu.rank import Floats
from wanwu_export.concepts import Concept
from wanwu_export.templates import SLOT, Templates

#: Gives the FP32 [n, D] embeddings of n texts, unit length.
Encode = Callable[[Sequence[str]], Floats]


@dataclass(frozen=True)
class Weights:
    """How much a concept's other texts count beside its label, which counts 1.

    `broader` goes for the broader words and the category together. Texts of weight 0 are not
    encoded.
    """

    alias: float
    description: float
    broader: float


def describe(
    concepts: Sequence[Concept], encode: Encode, templates: Templates, weights: Weights
) -> Floats:
    """Embed concepts by all that is known of them: FP32 [len(concepts), D], unit length.

    A label, alias, category or broader word is the mean of its templates' embeddings; a
    description is encoded as it stands. Each distinct text is encoded once, all in one call.

    Raises:
        ModelError: the texts of a concept have no finite embedding, or cancel each other out.
    """
    weighed = [_weighed(concept, weights) for concept in concepts]
    prompts = {word: _prompts(word, templates) for word in vocabulary(weighed)}
    texts = {prompt for words in prompts.values() for prompt in words}
    texts.update(concept.description for concept in weighed if concept.description)
    ordered = sorted(texts)
    embedded = dict(zip(ordered, encode(ordered), strict=True))
    # A zero vector has no direction: it becomes NaN here and is refused below, by its label.
    with np.errstate(invalid="ignore"):
        words = {word: _direction([embedded[p] for p in prompts[word]]) for word in prompts}
        rows = [_describe(concept, words, embedded, weights) for concept in weighed]
    _check_finite(weighed, rows)
    return np.stack(rows)


def vocabulary(concepts: Iterable[Concept]) -> list[str]:
    """Give every label, alias, category and broader word of the concepts once, sorted."""
    words: set[str] = set()
    for concept in concepts:
        words.update((concept.label, concept.category, *concept.aliases, *concept.broader))
    return sorted(words - {""})


def _weighed(concept: Concept, weights: Weights) -> Concept:
    """Leave out the texts that weigh nothing."""
    return Concept(
        concept.label,
        aliases=concept.aliases if weights.alias else (),
        category=concept.category if weights.broader else "",
        broader=concept.broader if weights.broader else (),
        description=concept.description if weights.description else "",
    )


def _prompts(word: str, templates: Templates) -> list[str]:
    return [template.replace(SLOT, word) for template in templates.texts]


def _describe(
    concept: Concept, words: Mapping[str, Floats], embedded: Mapping[str, Floats], weights: Weights
) -> Floats:
    total = words[concept.label]
    broader = dict.fromkeys((*concept.broader, concept.category))
    broader.pop("", None)
    for names, weight in ((concept.aliases, weights.alias), (broader, weights.broader)):
        if names:
            total = total + weight * _direction([words[name] for name in names])
    if concept.description:
        total = total + weights.description * normalise(embedded[concept.description])
    return normalise(total)


def _direction(vectors: Sequence[Floats]) -> Floats:
    """Give the direction of the vectors' mean, FP32 [D], unit length."""
    mean: Floats = np.mean(vectors, axis=0)
    return normalise(mean)


def _check_finite(concepts: Sequence[Concept], rows: Sequence[Floats]) -> None:
    for concept, row in zip(concepts, rows, strict=True):
        if not np.isfinite(row).all():
            raise ModelError(
                "the text tower gave no finite embedding for label {0} or its other texts; its "
                "weights are damaged or overflow: check the checkpoint, and export the text tower "
                "in fp32",
                repr(concept.label),
            )
