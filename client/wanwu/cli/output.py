"""Answers as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wanwu.recognizer import Recognition

BAR_WIDTH = 20
CSV_COLUMNS = ("picture", "rank", "label", "score", "category", "error")


@dataclass(frozen=True)
class Answer:
    """One picture's answer, or its error."""

    picture: str
    recognition: Recognition | None
    error: str | None


Emit = Callable[[Answer], None]


@contextmanager
def printer(output_format: str) -> Iterator[Emit]:
    """Give a function that prints answers as they come; `json` closes its list at the end."""
    with _PRINTERS[output_format]() as emit:
        yield emit


@contextmanager
def _table() -> Iterator[Emit]:
    console = Console()

    def emit(answer: Answer) -> None:
        if answer.recognition is not None:
            show(console, answer.picture, answer.recognition)

    yield emit


@contextmanager
def _json() -> Iterator[Emit]:
    answers: list[dict[str, Any]] = []
    yield lambda answer: answers.append(as_dict(answer))
    print(json.dumps(answers, ensure_ascii=False, indent=2))  # noqa: T201


@contextmanager
def _jsonl() -> Iterator[Emit]:
    yield lambda answer: print(  # noqa: T201
        json.dumps(as_dict(answer), ensure_ascii=False), flush=True
    )


@contextmanager
def _csv() -> Iterator[Emit]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)

    def emit(answer: Answer) -> None:
        if answer.recognition is None:
            writer.writerow([answer.picture, "", "", "", "", answer.error])
            return
        for rank, item in enumerate(answer.recognition.predictions, start=1):
            score = f"{item.score:.6f}"
            writer.writerow([answer.picture, rank, item.label, score, item.category or "", ""])

    yield emit


_PRINTERS = {"table": _table, "json": _json, "jsonl": _jsonl, "csv": _csv}


def show(console: Console, picture: str, recognition: Recognition) -> None:
    """Print one answer: the picture, then a row of label, score, bar and category for each."""
    title = Text(f"{picture}  {recognition.seconds * 1000:.0f} ms", style="bold")
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True, min_width=16)
    table.add_column(justify="right")
    table.add_column(no_wrap=True, min_width=BAR_WIDTH)
    table.add_column(no_wrap=True)
    for item in recognition.predictions:
        bar = "█" * round(item.score * BAR_WIDTH)
        # Text, since a string would be read as markup: a label may hold brackets.
        table.add_row(Text(item.label), f"{item.score:.1%}", bar, Text(item.category or ""))
    console.print(title, soft_wrap=True)
    console.print(table)


def as_dict(answer: Answer) -> dict[str, Any]:
    """Give one answer as plain values. The fingerprint is text: JSON numbers lose digits."""
    if answer.recognition is None:
        return {"picture": answer.picture, "error": answer.error}
    recognition = answer.recognition
    return {
        "picture": answer.picture,
        "predictions": [
            {"label": item.label, "score": round(item.score, 6), "category": item.category}
            for item in recognition.predictions
        ],
        "model": recognition.model,
        "fingerprint": str(recognition.fingerprint),
        "bank": recognition.bank,
        "seconds": round(recognition.seconds, 4),
    }
