"""How `wanwu labels` prints banks, labels and differences."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wanwu.cli.language import tell, translate
from wanwu_export.concepts import COLUMNS, SEPARATOR, Concept
from wanwu_export.label_banks import BankDiff, BankSummary, Change

#: The columns of a table; a description tells more than `broader` does.
SHOWN = ("label", "aliases", "category", "description")


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_tsv(concepts: Iterable[Concept]) -> None:
    """Print concepts as a label file, which can be built again."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(concept, column) for column in COLUMNS] for concept in concepts)
    # Bytes, since a label file is UTF-8 whatever the terminal's encoding is.
    typer.echo(text.getvalue().encode(), nl=False)


def _cell(concept: Concept, column: str) -> str:
    value: str | tuple[str, ...] = getattr(concept, column)
    return value if isinstance(value, str) else SEPARATOR.join(value)


def print_banks(banks: Sequence[BankSummary]) -> None:
    """Print a table of banks."""
    rows = [
        (
            bank.name,
            f"{bank.labels:,}",
            bank.templates,
            str(bank.version),
            bank.created,
            f"{bank.bytes / 1e6:.1f} MB",
        )
        for bank in banks
    ]
    _print_table(("bank", "labels", "templates", "version", "created", "size"), rows)


def print_concepts(concepts: Sequence[Concept]) -> None:
    """Print a table of concepts."""
    _print_table(SHOWN, [[_cell(concept, column) for column in SHOWN] for concept in concepts])


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, 1))
    for column in columns:
        table.add_column(translate(column), overflow="fold")
    for row in rows:
        # Text, since a string would be read as markup: a label may hold brackets.
        table.add_row(*map(Text, row))
    Console().print(table)


def print_diff(difference: BankDiff) -> None:
    """Print what was added, removed and changed, and how many of each."""
    for concept in difference.added:
        typer.secho(f"+ {concept.label}", fg="green")
    for concept in difference.removed:
        typer.secho(f"- {concept.label}", fg="red")
    for change in difference.changed:
        parts = [
            f"{translate(column)} {old!r} → {new!r}" for column, old, new in _differing(change)
        ]
        typer.secho(f"~ {change.after.label}: {'; '.join(parts)}", fg="yellow")
    tell(
        "{0} added, {1} removed, {2} changed, {3} the same",
        f"{len(difference.added):,}",
        f"{len(difference.removed):,}",
        f"{len(difference.changed):,}",
        f"{difference.same:,}",
    )


def _differing(change: Change) -> list[tuple[str, str, str]]:
    return [
        (column, _cell(change.before, column), _cell(change.after, column))
        for column in change.differing
    ]


def diff_as_dict(difference: BankDiff) -> dict[str, Any]:
    """Give a difference as plain values."""
    return {
        "added": [concept.label for concept in difference.added],
        "removed": [concept.label for concept in difference.removed],
        "changed": [
            {
                "label": change.after.label,
                "before": {name: getattr(change.before, name) for name in change.differing},
                "after": {name: getattr(change.after, name) for name in change.differing},
            }
            for change in difference.changed
        ],
        "same": difference.same,
    }
