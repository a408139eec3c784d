"""Concepts: a label with all that is known of it, and the label files that hold them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanwu.catalog import Message
from wanwu.errors import LabelError
from wanwu.labels import check_label, look, repeated
from wanwu.textfile import read_utf8

#: The largest bank: 100,000 rows of 512 FP16 numbers are 100 MB.
MAX_LABELS = 100_000
#: Between two aliases, or two broader words, in one cell.
SEPARATOR = "|"
COLUMNS = ("label", "aliases", "category", "description", "broader")

_HERE = Path(__file__).parent
_CHINESE = dict(zip(("标签", "别名", "类别", "描述", "上位词"), COLUMNS, strict=True))
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SEPARATORS = re.compile("[|｜]")
#: A note names no more lines or labels than these.
_NAMED = 10


@dataclass(frozen=True)
class Concept:
    """One thing a picture can show.

    `aliases` name the same thing, `broader` what it is a kind of, from near to far;
    `description` is free text.
    """

    label: str
    aliases: tuple[str, ...] = ()
    category: str = ""
    broader: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class ConceptFile:
    """What a label file holds, and `notes`: what its writer should know, a sentence for each."""

    concepts: list[Concept]
    notes: list[str]


#: A label's rows: line number and content of each.
_Rows = Sequence[tuple[int, Concept]]


def read_concepts(path: str | os.PathLike[str]) -> ConceptFile:
    """Read a UTF-8 label file.

    A `.txt` file has one label a line. A `.csv` or `.tsv` file has a header row: the column
    `label` is needed; `aliases`, `category`, `description` and `broader` may be left out, and
    the names may be Chinese. Aliases and broader words are separated by `|`.

    Empty rows are left out and rows of the same label are merged; the notes tell where.

    Raises:
        LabelError: the file cannot be read, holds no label or more than MAX_LABELS rows, or a
            row cannot be used.
    """
    return _read(Path(path))


def write_concepts(concepts: Iterable[Concept], path: Path) -> None:
    """Write the TSV file that `read_concepts` reads back as the same concepts.

    Raises:
        LabelError: an alias or a broader word holds the separator.
    """
    rows = [
        (
            concept.label,
            _joined(concept.aliases, concept.label),
            concept.category,
            _one_line(concept.description),
            _joined(concept.broader, concept.label),
        )
        for concept in concepts
    ]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def imagenet_concepts() -> list[Concept]:
    """Give the 1000 ImageNet classes in Chinese, in the order of a classifier's outputs."""
    path = _HERE / "starter" / "concepts.tsv"
    return _read(path, passed_over=("index", "english")).concepts


def built_in_banks() -> dict[str, list[Concept]]:
    """Give the label banks that come with Wanwu, beside the default one, by name."""
    paths = sorted((_HERE / "banks").glob("*.tsv"))
    return {path.stem: read_concepts(path).concepts for path in paths}


def _read(path: Path, passed_over: Sequence[str] = ()) -> ConceptFile:
    kind = path.suffix.lower()
    if kind != ".txt" and kind not in _DELIMITERS:
        raise LabelError(
            "{0} is neither .txt (one label a line) nor .csv or .tsv (with a header row); save it "
            "as one of these, in UTF-8",
            path,
        )
    text = read_utf8(path, "label file", LabelError)
    rows = list(_rows(path, text))
    if kind == ".txt":
        columns = ["label"]
    else:
        columns = _columns(path, rows[0][1] if rows else [], passed_over)
        rows = rows[1:]
    if len(rows) > MAX_LABELS:
        raise LabelError(
            "{0} has {1} rows of labels; a bank holds at most {2}: split it into several banks",
            path,
            f"{len(rows):,}",
            f"{MAX_LABELS:,}",
        )
    filled = [(line, cells) for line, cells in rows if any(map(str.strip, cells))]
    if not filled:
        raise LabelError("{0} holds no label; write one a line, below the header in a table", path)
    by_label: dict[str, list[tuple[int, Concept]]] = {}
    looks: dict[str, tuple[str, str]] = {}
    for line, cells in filled:
        place = Message("{0} line {1}", path, line)
        concept = _concept(columns, cells, place)
        before, same = looks.setdefault(look(concept.label), (place, concept.label))
        if same != concept.label:
            raise repeated(place, concept.label, before, same)
        by_label.setdefault(concept.label, []).append((line, concept))
    notes = [
        *_note_empty(rows),
        *_note_merged(by_label),
        *_note_shared(by_label),
        *_note_unsplit(by_label),
    ]
    return ConceptFile([_merge(path, same) for same in by_label.values()], notes)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Give each row's first line number and its cells."""
    if path.suffix.lower() == ".txt":
        for line, label in enumerate(io.StringIO(text, newline=None), start=1):
            yield line, [label]
        return
    # Without `strict`, a forgotten quotation mark takes the rest of the file for one cell.
    delimiter = _DELIMITERS[path.suffix.lower()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise LabelError(
            "{0} line {1} is no row of a table: {2}; put a cell that holds quotation marks "
            'between quotation marks, and double those inside: "13""屏幕"',
            path,
            line,
            error,
        ) from error


def _columns(path: Path, cells: Sequence[str], passed_over: Sequence[str]) -> list[str]:
    """Give the English name of each column of the header row."""
    header = [name.strip() for name in cells]
    while header and not header[-1]:  # spreadsheets leave empty columns at the right
        header.pop()
    known = Message("{0} (or {1})", ", ".join(COLUMNS), ", ".join(_CHINESE))
    columns = [_CHINESE.get(name, name) for name in header]
    for name, column in zip(header, columns, strict=True):
        if column not in COLUMNS and column not in passed_over:
            raise LabelError(
                "{0} has a column {1}; its first row must name the columns, and those read are "
                "{2}: rename or remove it",
                path,
                repr(name),
                known,
            )
        if columns.count(column) > 1:
            raise LabelError("{0} has the column {1} twice; remove one of them", path, repr(column))
    if "label" not in columns:
        raise LabelError("{0} has no column 'label' in its first row; expected {1}", path, known)
    return columns


def _concept(columns: Sequence[str], cells: Sequence[str], place: str) -> Concept:
    if any(map(str.strip, cells[len(columns) :])):
        raise LabelError(
            "{0} has {1} cells and the header {2}; put a cell that holds the delimiter between "
            "quotation marks",
            place,
            len(cells),
            len(columns),
        )
    row = dict(zip(columns, map(str.strip, cells), strict=False))
    category = row.get("category", "")
    return Concept(
        label=check_label(row.get("label", ""), Message("{0}: the label", place)),
        aliases=_split(row.get("aliases", ""), Message("{0}: the alias", place)),
        category=check_label(category, Message("{0}: the category", place)) if category else "",
        broader=_split(row.get("broader", ""), Message("{0}: the broader word", place)),
        description=_one_line(row.get("description", "")),
    )


def _split(cell: str, place: str) -> tuple[str, ...]:
    return tuple(check_label(part, place) for part in _SEPARATORS.split(cell) if part.strip())


def _joined(words: Sequence[str], label: str) -> str:
    for word in words:
        if _SEPARATORS.search(word):
            raise LabelError(
                "{0}, a word of the label {1}, holds a {2}, which separates the words of a cell; "
                "write it as two words, or without",
                repr(word),
                repr(label),
                SEPARATOR,
            )
    return SEPARATOR.join(words)


def _one_line(description: str) -> str:
    return re.sub(r"\s*[\r\n]+\s*", " ", description).strip()


def _merge(path: Path, rows: _Rows) -> Concept:
    """Make one concept of all rows of a label, each text once."""
    label = rows[0][1].label
    aliases: dict[str, str] = {}
    for alias in (alias for _, row in rows for alias in row.aliases):
        aliases.setdefault(look(alias), alias)
    aliases.pop(look(label), None)
    place = Message("{0}: the label {1}", path, repr(label))
    return Concept(
        label=label,
        aliases=tuple(aliases.values()),
        category=_agreed(
            Message("{0} has the category", place), [(n, row.category) for n, row in rows]
        ),
        broader=tuple(dict.fromkeys(word for _, row in rows for word in row.broader)),
        description=_agreed(
            Message("{0} has the description", place), [(n, row.description) for n, row in rows]
        ),
    )


def _agreed(what: str, texts: Iterable[tuple[int, str]]) -> str:
    """Give the one text that all rows agree on; a row may leave it out."""
    lines: dict[str, int] = {}
    for line, text in texts:
        lines.setdefault(text, line)
    lines.pop("", None)
    if len(lines) > 1:
        first, other = list(lines)[:2]
        raise LabelError(
            "{0} {1} in line {2} and {3} in line {4}; keep one of them",
            what,
            f"{first!r:.40}",
            lines[first],
            f"{other!r:.40}",
            lines[other],
        )
    return next(iter(lines), "")


def _note_empty(rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[str]:
    lines = [str(line) for line, cells in rows if not any(map(str.strip, cells))]
    if lines:
        yield Message(
            "empty rows were left out: {0}, in lines {1}", f"{len(lines):,}", _some(lines)
        )


def _note_merged(by_label: Mapping[str, _Rows]) -> Iterator[str]:
    repeated = [
        _place(label, [line for line, _ in rows])
        for label, rows in by_label.items()
        if len(rows) > 1
    ]
    if repeated:
        yield Message("labels came more than once and their rows were merged: {0}", _some(repeated))


def _note_shared(by_label: Mapping[str, _Rows]) -> Iterator[str]:
    """Note the names that several labels go by, be it as a label or as an alias."""
    owners = {look(label): {label: rows[0][0]} for label, rows in by_label.items()}
    for label, rows in by_label.items():
        for line, concept in rows:
            for alias in concept.aliases:
                owners.setdefault(look(alias), {}).setdefault(label, line)
    shared = [_place(name, lines.values()) for name, lines in owners.items() if len(lines) > 1]
    if shared:
        yield (
            Message(
                "names belong to several labels, which the model cannot tell apart by them: {0}",
                _some(shared),
            )
        )


def _note_unsplit(by_label: Mapping[str, _Rows]) -> Iterator[str]:
    """Note the aliases that look like several, separated by something else."""
    doubtful = [
        _place(alias, [line])
        for rows in by_label.values()
        for line, concept in rows
        for alias in concept.aliases
        if re.search("[、，,；;/]", alias)
    ]
    if doubtful:
        yield (
            Message(
                "each of these is one alias, since aliases are separated by {0}: {1}",
                SEPARATOR,
                _some(doubtful),
            )
        )


def _place(name: str, lines: Iterable[int]) -> str:
    return f"{name!r} (lines {_some([str(line) for line in sorted(lines)])})"


def _some(parts: Sequence[str]) -> str:
    shown = ", ".join(parts[:_NAMED])
    return (
        shown
        if len(parts) <= _NAMED
        else Message("{0} and {1} more", shown, f"{len(parts) - _NAMED:,}")
    )
