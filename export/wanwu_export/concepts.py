"""Concepts: a label with its other names, its category and the broader words it falls under."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from wanwu.errors import LabelError

SEPARATOR = "|"

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Concept:
    """One thing a picture can show.

    `aliases` name the same thing, `broader` what it is a kind of, from near to far.
    """

    label: str
    aliases: tuple[str, ...] = ()
    category: str = ""
    broader: tuple[str, ...] = ()


def read_concepts(source: Path) -> list[Concept]:
    """Read a UTF-8 TSV file with the columns label, aliases, category and broader.

    Raises:
        LabelError: a label is blank, or names two concepts.
    """
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    concepts = []
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        label = row["label"].strip()
        if not label:
            raise LabelError(f"{source} line {line}: the label is blank; write one")
        if label in seen:
            raise LabelError(
                f"{source} line {line}: {label!r} repeats line {seen[label]}; remove one of them"
            )
        seen[label] = line
        concepts.append(
            Concept(label, _split(row["aliases"]), row["category"].strip(), _split(row["broader"]))
        )
    return concepts


def imagenet_concepts() -> list[Concept]:
    """Give the 1000 ImageNet classes in Chinese, in the order of a classifier's outputs."""
    return read_concepts(_HERE / "starter" / "concepts.tsv")


def built_in_banks() -> dict[str, list[Concept]]:
    """Give the label banks that come with Wanwu, beside the default one, by name."""
    return {path.stem: read_concepts(path) for path in sorted((_HERE / "banks").glob("*.tsv"))}


def _split(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(SEPARATOR) if part.strip())
