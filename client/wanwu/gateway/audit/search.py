"""Finds lines of an audit log, and writes them as a table. Neither checks the chain."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from wanwu.catalog import Message
from wanwu.errors import InputError
from wanwu.gateway.audit.chain import lines_of, short_digest

Line = dict[str, Any]

COLUMNS = (
    *("seq", "time", "event", "request_id", "kind", "principal", "name", "issuer", "source"),
    *("port", "agent"),
    *("method", "route", "path", "status", "code", "ms", "banks", "bank_digests", "labels"),
    *("texts", "asked", "asked_hashes", "pictures", "answers", "scores", "model", "fingerprint"),
    *("act", "user", "file", "state", "error", "count", "since", "until"),
)
#: How a text begins that a spreadsheet would compute.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Wanted:
    """Which lines are looked for; None stands for any.

    Args:
        since, until: their time, from the first and before the second.
        principal: id or name of who called, or the user of an act.
        label: a label or text that was asked or answered, also where the log has its hash.
        request_id: of the request.
    """

    since: datetime | None = None
    until: datetime | None = None
    principal: str | None = None
    label: str | None = None
    request_id: str | None = None

    def fits(self, line: Line) -> bool:
        """Return whether a line is looked for."""
        time = datetime.fromisoformat(line["time"].replace("Z", "+00:00"))
        return (
            (self.since is None or self.since <= time)
            and (self.until is None or time < self.until)
            and (self.request_id is None or line.get("request_id") == self.request_id)
            and (self.principal is None or self.principal in _names(line))
            and (self.label is None or not _forms(self.label).isdisjoint(_texts(line)))
        )


def search(paths: Iterable[Path], wanted: Wanted) -> Iterator[Line]:
    """Yield the lines that are looked for.

    Raises:
        InputError: a file cannot be read, or has a line that is none of an audit log.
    """
    for path, number, text in lines_of(paths):
        try:
            line = json.loads(text)
            fits = wanted.fits(line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            where = Message("{0} line {1}", path, number)
            raise InputError(
                "{0} is no line of an audit log; it was changed, or is of another file", where
            ) from error
        if fits:
            yield line


def write_csv(lines: Iterable[Line], stream: TextIO) -> int:
    """Write lines as CSV, a row each, and return their number."""
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    count = 0
    for row in map(_row, lines):
        writer.writerow(_cell(row.get(name)) for name in COLUMNS)
        count += 1
    return count


def _row(line: Line) -> Line:
    pictures = line.get("pictures", ())
    who = line.get("principal")
    if isinstance(who, dict):
        line = {**line, **who, "principal": who["id"]}
    return {
        **line,
        "pictures": [each["sha256"] for each in pictures],
        "answers": [",".join(_answers(each)) for each in pictures],
        "scores": [",".join(map(str, each.get("scores", ()))) for each in pictures],
    }


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ";".join(map(str, value))
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _answers(picture: Line) -> list[str]:
    return [*picture.get("answers", ()), *picture.get("answers_hashes", ())]


def _names(line: Line) -> set[str]:
    who = line.get("principal") or {}
    names = {who} if isinstance(who, str) else {str(each) for each in who.values()}
    return names | {line["user"]} if "user" in line else names


def _texts(line: Line) -> Iterator[str]:
    yield from line.get("asked", ())
    yield from line.get("asked_hashes", ())
    for picture in line.get("pictures", ()):
        yield from _answers(picture)


def _forms(label: str) -> set[str]:
    """Return a text, and the hashes that may stand for it."""
    forms = {label, short_digest(label, "sha256")}
    with suppress(ValueError):  # an OpenSSL without SM3 has written none either
        forms.add(short_digest(label, "sm3"))
    return forms
