"""What makes an answer doubtful, for people and for programs."""

from __future__ import annotations

from typing import Any, cast

from wanwu.catalog import Message
from wanwu.rank import Floats

#: The best of many labels is hardly better than chance below this many times their mean score.
UNIFORM = 1.1


class Doubt(Message):
    """A sentence that says why an answer is doubtful, with a `code` that never changes.

    Example:
        >>> answer = recognizer.recognize(cat, labels=["猫"])
        >>> [doubt.code for doubt in answer.warnings]
        ['label_single']
    """

    __slots__ = ("code",)

    code: str

    def __new__(cls, code: str, template: str, *arguments: Any) -> Doubt:
        """Fill the slots of a template."""
        made = cast("Doubt", super().__new__(cls, template, *arguments))
        made.code = code
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return what a copy is made of."""
        return (self.code, *super().__getnewargs__())


def doubts_of_softmax(values: Floats) -> list[Doubt]:
    """Return what is doubtful about a softmax, FP32 [labels], over the labels of an answer."""
    if values.size == 1:
        return [
            Doubt(
                "label_single",
                "one label alone scores 1 whatever the picture shows; offer others beside it, or "
                "ask for the score cosine",
            )
        ]
    best = float(values.max())
    if best * values.size < UNIFORM:
        return [
            Doubt(
                "scores_uniform",
                "the scores of all {0} labels are nearly equal (the best is {1}): none fits, or "
                "the model cannot tell them apart; offer others",
                f"{values.size:,}",
                f"{best:.3g}",
            )
        ]
    return []
