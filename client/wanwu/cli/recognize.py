"""`wanwu recognize`: name what pictures show."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from wanwu.cli.options import Bank, Labels, LabelsFile, TimeoutS, Url, chosen_labels


class Format(str, Enum):
    """How answers are printed."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


def recognize(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Picture files.")],
    labels: Labels = None,
    labels_file: LabelsFile = None,
    bank: Bank = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Labels a picture.")] = 5,
    output_format: Annotated[Format, typer.Option("--format", help="Output.")] = Format.table,
    url: Url = None,
    timeout_s: TimeoutS = None,
) -> None:
    """Name what pictures show, by a bank of labels or by your own.

    A picture that cannot be used reports its error, the others are answered, and the exit code
    is 1.
    """
    from wanwu import ImageError, Recognizer
    from wanwu.cli.output import Answer, printer

    own = chosen_labels(labels, labels_file, bank)
    failed = False
    with Recognizer(url, timeout_s=timeout_s) as recognizer, printer(output_format.value) as emit:
        for photo in photos:
            try:
                answer = recognizer.recognize(photo, labels=own, bank=bank, top_k=top_k)
            except ImageError as error:
                failed = True
                typer.secho(f"wanwu: {error}", err=True, fg="red")
                emit(Answer(str(photo), None, str(error)))
            else:
                emit(Answer(str(photo), answer, None))
    if failed:
        raise typer.Exit(1)
