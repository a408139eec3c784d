"""`wanwu evaluate`: measure a model on labelled pictures."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from wanwu.cli.language import say
from wanwu.cli.options import Bank, Labels, LabelsFile, TimeoutS, Url, chosen_labels


class Format(str, Enum):
    """How the figures are printed."""

    table = "table"
    json = "json"


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of pictures.")],
    truth: Annotated[
        Path, typer.Option("--truth", help="UTF-8 TSV or CSV: a file and its label, with a header.")
    ],
    file_column: Annotated[str, typer.Option(help="Column of the file names.")] = "file",
    label_column: Annotated[
        str,
        typer.Option(help="Column of the labels; whole numbers count rows of the bank from 0."),
    ] = "label",
    labels: Labels = None,
    labels_file: LabelsFile = None,
    bank: Bank = None,
    truth_labels: Annotated[
        bool, typer.Option("--truth-labels", help="Offer the labels found in the truth file.")
    ] = False,
    output_format: Annotated[Format, typer.Option("--format", help="Output.")] = Format.table,
    url: Url = None,
    timeout_s: TimeoutS = None,
) -> None:
    """Measure top-1 and top-5 on labelled pictures, and list what was taken for what."""
    import json

    from wanwu import InputError, Recognizer
    from wanwu.evaluate import measure, read_truth

    own = chosen_labels(labels, labels_file, bank)
    if truth_labels and (own or bank):
        raise InputError("--truth-labels was given with another list of labels; give one of them")
    rows = read_truth(truth, file_column=file_column, label_column=label_column)
    with Recognizer(url, timeout_s=timeout_s) as recognizer:
        report = measure(
            recognizer, folder, rows, labels=own, bank=bank, labels_from_truth=truth_labels
        )
    if output_format is Format.json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False, indent=2))
    else:
        for line in report.lines():
            if line.startswith("  "):  # labels, which are data
                typer.echo(line)
            else:
                say(line)
    if report.failures:
        raise typer.Exit(1)
