"""Measure a model on labelled pictures: top-1, top-5, and what was taken for what."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanwu.catalog import Message, message_of
from wanwu.errors import ImageError, InputError
from wanwu.recognizer import Recognizer
from wanwu.textfile import read_utf8

TOP = 5


@dataclass(frozen=True)
class TruthRow:
    """One labelled picture. `line` is where the truth file says so."""

    line: int
    file: str
    label: str


@dataclass(frozen=True)
class Truth:
    """The rows of a truth file, and how many had no label in the column."""

    path: Path
    rows: tuple[TruthRow, ...]
    unlabelled: int


@dataclass(frozen=True)
class Report:
    """The figures of one evaluation. `confusions` are (true, predicted, how often)."""

    pictures: int
    labels: int
    top_1: float
    top_5: float
    mean_score: float
    seconds_per_picture: float
    unlabelled: int
    confusions: tuple[tuple[str, str, int], ...]
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give the figures as plain values."""
        return {
            "pictures": self.pictures,
            "labels": self.labels,
            "top_1": round(self.top_1, 4),
            "top_5": round(self.top_5, 4),
            "mean_top_score": round(self.mean_score, 4),
            "seconds_per_picture": round(self.seconds_per_picture, 4),
            "rows_without_label": self.unlabelled,
            "confusions": [
                {"true": true, "predicted": predicted, "count": count}
                for true, predicted, count in self.confusions
            ],
            "failures": list(self.failures),
        }

    def as_text(self) -> str:
        """Give the figures as lines for a terminal."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return the figures as messages, a line each."""
        lines = [
            Message("{0} pictures, {1} labels", self.pictures, self.labels),
            f"top-1 {self.top_1:.3f}",
            f"top-5 {self.top_5:.3f}",
            Message("mean top score {0}", f"{self.mean_score:.3f}"),
            Message("{0} ms a picture", f"{self.seconds_per_picture * 1000:.0f}"),
        ]
        if self.unlabelled:
            lines.append(Message("{0} rows without a label were left out", self.unlabelled))
        if self.confusions:
            lines.append("taken for another:")
            lines += [
                f"  {true} -> {predicted}  {count}" for true, predicted, count in self.confusions
            ]
        lines += [Message("failed: {0}", failure) for failure in self.failures]
        return lines


def read_truth(path: Path, *, file_column: str = "file", label_column: str = "label") -> Truth:
    """Read a truth file: UTF-8, comma or tab separated, with a header.

    Raises:
        InputError: the file or a column is missing, it is not UTF-8, or no row has a label.
    """
    text = read_utf8(path, "truth file", InputError)
    tabs = "\t" in text.partition("\n")[0]
    reader = csv.DictReader(
        io.StringIO(text, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
    )
    try:
        for column in (file_column, label_column):
            if list(reader.fieldnames or ()).count(column) > 1:
                raise InputError(
                    "{0} has several columns {1}; rename all but one", path, repr(column)
                )
            if column not in (reader.fieldnames or ()):
                raise InputError(
                    "{0} has no column {1}; it has {2}: choose by --file-column and --label-column",
                    path,
                    repr(column),
                    ", ".join(reader.fieldnames or ()),
                )
        rows, unlabelled = [], 0
        for row in reader:
            label, file = (row[label_column] or "").strip(), (row[file_column] or "").strip()
            if not label:
                unlabelled += 1
            elif not file:
                raise InputError("{0} line {1} names no file; add one", path, reader.line_num)
            else:
                rows.append(TruthRow(reader.line_num, file, label))
    except csv.Error as error:
        raise InputError(
            "{0} line {1}: {2}; correct the line", path, reader.line_num, error
        ) from error
    if not rows:
        raise InputError("{0} has no row with a label in column {1}", path, repr(label_column))
    return Truth(path, tuple(rows), unlabelled)


def measure(
    recognizer: Recognizer,
    folder: Path,
    truth: Truth,
    *,
    labels: Sequence[str] | None = None,
    bank: str | None = None,
    labels_from_truth: bool = False,
) -> Report:
    """Recognise every labelled picture and compare.

    Args:
        recognizer: the client.
        folder: where the truth file's pictures are.
        truth: the labelled pictures. A whole number is a row of the offered labels, from 0.
        labels: labels to offer; without them a bank's.
        bank: the bank to use; by default the default bank.
        labels_from_truth: offer the labels of the truth file instead.

    Raises:
        InputError: the folder is missing, or a true label is not among the labels offered.
    """
    if not folder.is_dir():
        raise InputError("there is no folder {0}; give the folder of the pictures", folder)
    if labels_from_truth:
        labels = tuple(dict.fromkeys(row.label for row in truth.rows))
    offered = tuple(labels) if labels is not None else recognizer.labels(bank)
    wanted = [_true_label(row, offered, truth.path) for row in truth.rows]
    first = hits = done = 0
    scored = seconds = 0.0
    confused: Counter[tuple[str, str]] = Counter()
    failures = []
    for row, label in zip(truth.rows, wanted, strict=True):
        try:
            answer = recognizer.recognize(folder / row.file, labels=labels, bank=bank, top_k=TOP)
        except ImageError as error:
            failures.append(message_of(error))
            continue
        done += 1
        scored += answer.top.score
        seconds += answer.seconds
        first += answer.top.label == label
        hits += any(item.label == label for item in answer.predictions)
        if answer.top.label != label:
            confused[label, answer.top.label] += 1
    if not done:
        raise InputError("no picture of {0} could be read; first: {1}", truth.path, failures[0])
    return Report(
        pictures=done,
        labels=len(offered),
        top_1=first / done,
        top_5=hits / done,
        mean_score=scored / done,
        seconds_per_picture=seconds / done,
        unlabelled=truth.unlabelled,
        confusions=tuple((*pair, count) for pair, count in confused.most_common()),
        failures=tuple(failures),
    )


def _true_label(row: TruthRow, offered: Sequence[str], path: Path) -> str:
    if row.label in offered:
        return row.label
    if row.label.isdecimal() and int(row.label) < len(offered):
        return offered[int(row.label)]
    raise InputError(
        "{0} line {1}: {2} is not one of the {3} labels offered; offer the file's own by "
        "--truth-labels, or correct the file",
        path,
        row.line,
        repr(row.label),
        len(offered),
    )
