"""Prompt templates: sentences around a label, to be read by a model trained on captions."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wanwu.catalog import Message
from wanwu.errors import LabelError
from wanwu.textfile import read_utf8

#: Where the label goes in a template.
SLOT = "{}"

_HERE = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Templates:
    """A set of prompt templates; each text has one slot, `{}`."""

    name: str
    texts: tuple[str, ...]


def built_in_templates() -> tuple[str, ...]:
    """Give the names of the template sets that come with Wanwu."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.txt")))


def load_templates(name_or_path: str) -> Templates:
    """Read a template set that comes with Wanwu, or a UTF-8 text file of one template a line.

    What ends in `.txt` or holds a path separator is a path. Lines that are blank or begin with
    `#` are comments.

    Raises:
        LabelError: there is no such set or file, or it holds no template, one without exactly
            one slot `{}`, or one twice.

    Example:
        >>> load_templates("bare")
        Templates(name='bare', texts=('{}',))
    """
    if name_or_path.endswith(".txt") or os.sep in name_or_path:
        path = Path(name_or_path)
        return Templates(path.name, _read(path))
    if name_or_path not in built_in_templates():
        raise LabelError(
            "there are no templates {0}; choose one of {1}, or give the path of a .txt file",
            repr(name_or_path),
            ", ".join(built_in_templates()),
        )
    return Templates(name_or_path, _read(_HERE / f"{name_or_path}.txt"))


def _read(path: Path) -> tuple[str, ...]:
    lines: dict[str, int] = {}
    for line, template in _template_lines(path):
        place = Message("{0} line {1}", path, line)
        _check(template, place)
        if template in lines:
            raise LabelError(
                "{0} {1} repeats line {2}; remove one of them",
                place,
                repr(template),
                lines[template],
            )
        lines[template] = line
    if not lines:
        raise LabelError("{0} holds no template; write one a line, such as '这是{}'", path)
    return tuple(lines)


def _template_lines(path: Path) -> Iterator[tuple[int, str]]:
    text = read_utf8(path, "template file", LabelError)
    for line, template in enumerate(io.StringIO(text, newline=None), start=1):
        if template.strip() and not template.lstrip().startswith("#"):
            yield line, template.strip()


def _check(template: str, place: str) -> None:
    around = template.split(SLOT)
    if any("{" in part or "}" in part for part in around):
        raise LabelError(
            "{0} {1} holds a brace that is no slot; write the label's place as {}, and no other "
            "braces",
            place,
            repr(template),
        )
    if len(around) != 2:
        raise LabelError(
            "{0} {1} has {2} slots {}; expected one, where the label goes",
            place,
            repr(template),
            len(around) - 1,
        )
