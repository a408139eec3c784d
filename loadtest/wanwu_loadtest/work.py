"""What is asked of the server: which photographs, how many at a time, against which labels."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from wanwu.errors import InputError
from wanwu.images import ImageSource
from wanwu.samples import sample_photos

#: `single`: one picture against the bank; `batch`: several at once; `labels`: own labels.
KINDS = ("single", "batch", "labels")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
#: Labels that a request of its own labels brings, as in the seed of this project.
OWN_LABELS = 18


class Question(msgspec.Struct, frozen=True):
    """One request."""

    kind: str
    images: Sequence[ImageSource]
    labels: Sequence[str] | None


def read_photos(folder: str | None) -> list[bytes]:
    """Read the photographs of a folder, by default those of the demo.

    Raises:
        InputError: the folder has none.
        SetupError: the demo's photographs are not installed.
    """
    if folder is None:
        return [path.read_bytes() for path in sample_photos()]
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(
            "--photos {0} holds no picture ({1}); name a folder of photographs",
            folder,
            ", ".join(sorted(SUFFIXES)),
        )
    return [path.read_bytes() for path in paths]


def read_mix(text: str) -> dict[str, float]:
    """Read the parts of a mix, such as `single=8,batch=1,labels=1`.

    Raises:
        InputError: a part is unknown, or its weight no positive number.
    """
    mix = {}
    for part in text.split(","):
        kind, _, weight = part.strip().partition("=")
        try:
            mix[kind] = float(weight or 1)
        except ValueError:
            mix[kind] = 0.0
        if kind not in KINDS or not 0 < mix[kind] < float("inf"):
            raise InputError(
                "--mix has {0}; expected KIND=WEIGHT with a kind of {1} and a weight above 0",
                repr(part.strip()),
                ", ".join(KINDS),
            )
    return mix


class Questions:
    """Requests by chance, in the proportions of a mix."""

    def __init__(
        self,
        images: Sequence[ImageSource],
        labels: Sequence[str],
        mix: Mapping[str, float],
        batch_size: int,
        randomness: random.Random,
    ) -> None:
        self._images, self._labels = images, list(dict.fromkeys(labels))
        self._kinds, self._weights = list(mix), list(mix.values())
        self._batch_size, self._random = batch_size, randomness

    def next(self) -> Question:
        """Give the next request."""
        kind = self._random.choices(self._kinds, self._weights)[0]
        pictures = self._random.choices(self._images, k=self._batch_size if kind == "batch" else 1)
        labels = None
        if kind == "labels":
            labels = self._random.sample(self._labels, min(OWN_LABELS, len(self._labels)))
        return Question(kind, pictures, labels)
