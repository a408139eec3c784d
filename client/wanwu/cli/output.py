"""Answers as a table, JSON, JSON lines, CSV or Parquet, on standard output or in a file."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wanwu.answers import UNCERTAIN, Recognition
from wanwu.bulk import Answer
from wanwu.catalog import Message
from wanwu.cli.language import translate
from wanwu.cli.pictures import spelled
from wanwu.cli.vectors import INSTALL_PARQUET
from wanwu.errors import InputError, SetupError

BAR_WIDTH = 20
COLUMNS = ("picture", "rank", "label", "score", "category", "error")
#: Answers that a row group of a Parquet file holds.
ROW_GROUP = 1000

Emit = Callable[[Answer], None]


@contextmanager
def printer(output_format: str) -> Iterator[Emit]:
    """Give a function that prints answers as they come; `json` closes its list at the end."""
    with _PRINTERS[output_format](sys.stdout) as emit:
        yield emit


@contextmanager
def writer(path: Path, *, resume: bool) -> Iterator[Emit]:
    """Give a function that writes answers into a file, whose name tells the format.

    Raises:
        InputError: the name tells no format, the file is there and `resume` is false, or it
            cannot be resumed.
        SetupError: a package is missing, or the file cannot be written.
    """
    kind = _kind(path, resume=resume)
    if path.exists() and not resume:
        raise InputError("{0} is there already; add --resume to go on, or name another file", path)
    try:
        if kind == "parquet":
            with _parquet(path) as emit:
                yield emit
            return
        fresh = not path.exists() or path.stat().st_size == 0
        with path.open("a", encoding="utf-8", newline="") as stream:
            if kind == "csv":
                with _csv(stream, header=fresh) as emit:
                    yield emit
            else:
                with _jsonl(stream) as emit:
                    yield emit
    except OSError as error:
        raise SetupError(
            "{0} cannot be written: {1}; what it holds already is whole: make room or check its "
            "permissions, and go on with --resume",
            path,
            error,
        ) from error


def answered_before(path: Path, banks: list[str]) -> set[str]:
    """Give the pictures whose answers a file holds; half an answer at its end is removed.

    Raises:
        InputError: the file is not one that `writer` wrote, is of a run with other banks than
            these, or cannot be resumed.
    """
    kind = _kind(path, resume=True)
    if not path.exists():
        return set()
    try:
        return _answered_json(path, banks) if kind == "jsonl" else _answered_csv(path)
    except (ValueError, TypeError, AttributeError, KeyError, csv.Error) as error:
        raise InputError(
            "{0} is no file of answers ({1}); name the file of the run to go on with", path, error
        ) from error


def _kind(path: Path, *, resume: bool) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("jsonl", "csv", "parquet"):
        raise InputError(
            "{0} ends in {1}; expected .jsonl, .csv or .parquet", path, repr(path.suffix)
        )
    if kind == "parquet" and resume:
        raise InputError(
            "{0} cannot be resumed: a Parquet file is written as a whole; use .jsonl or .csv for "
            "runs that may be interrupted",
            path,
        )
    return kind


def _answered_json(path: Path, banks: list[str]) -> set[str]:
    done = set()
    with path.open("rb+") as stream:
        whole = 0
        for line in stream:
            if not line.endswith(b"\n"):
                stream.truncate(whole)
                break
            whole += len(line)
            answer = json.loads(line)
            before = answer.get("banks", banks)
            if before != banks:
                raise InputError(
                    "{0} holds answers by the banks {1} and this run asks {2} (none: labels of "
                    "your own); give the same ones, or name another file",
                    path,
                    before,
                    banks,
                )
            done.add(str(answer["picture"]))
    return done


def _answered_csv(path: Path) -> set[str]:
    """Read a table of answers. The last one may lack rows, so it is taken out."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1].decode()
    rows = list(csv.reader(io.StringIO(whole, newline="")))
    if rows and tuple(rows[0]) != COLUMNS:
        raise ValueError(Message("its columns are {0}", ", ".join(rows[0])))
    last = rows[-1][0] if len(rows) > 1 else None
    kept = [row for row in rows if row[0] != last]
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8", newline=""
    ) as half:
        csv.writer(half, lineterminator="\n").writerows(kept)
    Path(half.name).chmod(path.stat().st_mode)
    Path(half.name).replace(path)
    return {row[0] for row in kept[1:]}


@contextmanager
def _table(stream: IO[str]) -> Iterator[Emit]:
    console = Console(file=stream)

    def emit(answer: Answer) -> None:
        if answer.recognition is not None:
            show(console, str(answer.source), answer.recognition)

    yield emit


@contextmanager
def _json(stream: IO[str]) -> Iterator[Emit]:
    answers: list[dict[str, Any]] = []
    yield lambda answer: answers.append(as_dict(answer))
    print(json.dumps(answers, ensure_ascii=False, indent=2), file=stream)


@contextmanager
def _jsonl(stream: IO[str]) -> Iterator[Emit]:
    # One write a line: an interruption leaves half an answer at most.
    yield lambda answer: print(
        json.dumps(as_dict(answer), ensure_ascii=False), file=stream, flush=True
    )


@contextmanager
def _csv(stream: IO[str], *, header: bool = True) -> Iterator[Emit]:
    table = csv.writer(stream, lineterminator="\n")
    if header:
        table.writerow(COLUMNS)

    def emit(answer: Answer) -> None:
        table.writerows(as_rows(answer))
        stream.flush()

    yield emit


@contextmanager
def _parquet(path: Path) -> Iterator[Emit]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise SetupError(
            "{0} needs the package pyarrow; run: {1}", path, INSTALL_PARQUET
        ) from error
    kinds = (*(arrow.string(), arrow.int32(), arrow.string()), arrow.float32(), arrow.string())
    schema = arrow.schema(list(zip(COLUMNS, (*kinds, arrow.string()), strict=True)))
    rows: list[tuple[Any, ...]] = []
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with parquet.ParquetWriter(half, schema) as table:

            def flush() -> None:
                columns = [list(column) for column in zip(*rows, strict=True)]
                table.write_table(arrow.table(columns, schema=schema))
                rows.clear()

            def emit(answer: Answer) -> None:
                for picture, rank, label, score, category, error in as_rows(answer):
                    figures = (int(rank), label, float(score)) if rank else (None, None, None)
                    rows.append((picture, *figures, category or None, error or None))
                if len(rows) >= ROW_GROUP:
                    flush()

            yield emit
            if rows:
                flush()
        half.replace(path)
    finally:
        with suppress(FileNotFoundError):
            half.unlink()


_PRINTERS = {"table": _table, "json": _json, "jsonl": _jsonl, "csv": _csv}


def show(console: Console, picture: str, recognition: Recognition) -> None:
    """Print one answer: the picture, then a row of label, score, bar and category for each."""
    title = Text(f"{picture}  {recognition.seconds * 1000:.0f} ms", style="bold")
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True, min_width=16)
    table.add_column(justify="right")
    table.add_column(no_wrap=True, min_width=BAR_WIDTH)
    table.add_column(no_wrap=True)
    if recognition.uncertain:
        best = translate(Message("cosine {0} at best", f"{recognition.best_cosine:.3f}"))
        table.add_row(UNCERTAIN, "", "", best)
    for item in recognition.predictions:
        bar = "█" * round(max(0.0, item.score) * BAR_WIDTH)
        # Text, since a string would be read as markup: a label may hold brackets.
        table.add_row(Text(item.label), f"{item.score:.1%}", bar, Text(item.category or ""))
    console.print(title, soft_wrap=True)
    console.print(table)


def as_rows(answer: Answer) -> list[list[str]]:
    """Give one answer as the rows of a table; an uncertain one without a label has a row too."""
    picture, recognition = spelled(str(answer.source)), answer.recognition
    if recognition is None:
        return [[picture, "", "", "", "", spelled(str(answer.error))]]
    if not recognition.predictions:
        return [[picture, "1", UNCERTAIN, f"{0:.6f}", "", ""]]
    return [
        [picture, str(rank), item.label, f"{item.score:.6f}", item.category or "", ""]
        for rank, item in enumerate(recognition.predictions, start=1)
    ]


def as_dict(answer: Answer) -> dict[str, Any]:
    """Give one answer as plain values. The fingerprint is text: JSON numbers lose digits."""
    picture, recognition = spelled(str(answer.source)), answer.recognition
    if recognition is None:
        return {"picture": picture, "error": spelled(str(answer.error))}
    return {
        "picture": picture,
        "predictions": [
            {"label": item.label, "score": round(item.score, 6), "category": item.category}
            for item in recognition.predictions
        ],
        "uncertain": recognition.uncertain,
        "warnings": [{"code": each.code, "text": translate(each)} for each in recognition.warnings],
        "model": recognition.model,
        "fingerprint": str(recognition.fingerprint),
        "banks": list(recognition.banks),
        "seconds": round(recognition.seconds, 4),
    }
