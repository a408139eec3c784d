"""Lists of labels: from what a caller holds to a checked tuple of texts."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable

from wanwu.catalog import Message
from wanwu.errors import LabelError
from wanwu.textfile import read_utf8

#: Separators between labels in one text.
SEPARATORS = re.compile("[,，、;；\n]")

#: Characters that nobody sees: those that Unicode lets a font leave out, and the empty Braille
#: cell.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
#: Of these, the ones that change what stands beside them, as in an emoji of several parts or the
#: variant of a Chinese character.
_SHAPING = re.compile(
    "[\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef]"
)

#: A longer label is a mistake, such as a whole file pasted into one line.
MAX_LABEL_CHARS = 256


def look(text: str) -> str:
    """Return a form that texts share which look the same, so that one of them is enough.

    It is Unicode's NFKC, which has one width and one way to write an accent, with neither the
    characters that nobody sees nor more than one space between two words.
    """
    return " ".join(_UNSEEN.sub("", unicodedata.normalize("NFKC", text)).split())


def split_labels(text: str) -> list[str]:
    """Return labels that came as one text: with separators between them, or as a JSON list.

    Example:
        >>> split_labels("猫，狗"), split_labels('["猫", "a, b"]')
        (['猫', '狗'], ['猫', 'a, b'])

    Raises:
        LabelError: the text begins as JSON and is no list of texts.
    """
    if not _is_json(text.strip()):
        return SEPARATORS.split(text)
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(each, str) for each in labels):
        raise LabelError(
            'the labels {0} begin as JSON and are no list of texts; write ["猫", "狗"], or 猫,狗',
            _short(text),
        )
    return labels


def _is_json(text: str) -> bool:
    """Return whether a text is meant as JSON: in brackets, or with a quotation mark first."""
    first, last = text[:1], text[-1:]
    inner = text[1:].lstrip() if first in ("[", "{") else text
    return first + last in ("[]", "{}") or inner[:1] == '"'


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Strip and check a list of labels.

    Raises:
        LabelError: the list is empty, or a label is no text, blank, too long or a duplicate.
    """
    if isinstance(labels, str):
        raise LabelError(
            "labels came as one text {0}; expected a list such as ['猫', '狗']", _short(labels)
        )
    return _checked((Message("label {0}", n), label) for n, label in enumerate(labels, start=1))


def check_label(label: str, place: str) -> str:
    """Strip and check one label, or another short text such as an alias.

    Args:
        label: the text.
        place: where it stands, for messages: "label 3", or "pets.txt line 3".

    Raises:
        LabelError: it is no text, blank or too long, or holds what no label can.
    """
    if not isinstance(label, str):
        raise LabelError(
            "{0} is {1} {2}; expected a text", place, type(label).__name__, repr(label)
        )
    text = label.strip()
    if not look(text):
        raise LabelError("{0} is blank; remove it or write a label there", place)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise LabelError(
            "{0} {1} holds bytes that are not UTF-8; type it in a UTF-8 terminal, or use a UTF-8 "
            "file",
            place,
            _short(text),
        )
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise LabelError(
            "{0} {1} holds a control character, such as a tab or a line end; give each label by "
            "itself",
            place,
            _short(text),
        )
    unseen = next(filter(_is_unseen, text), None)
    if unseen is not None:
        raise LabelError(
            "{0} {1} holds the character U+{2}, which nobody sees; remove it",
            place,
            _short(text),
            f"{ord(unseen):04X}",
        )
    if len(text) > MAX_LABEL_CHARS:
        raise LabelError(
            "{0} has {1} characters, {2}; the limit is {3}: shorten it",
            place,
            f"{len(text):,}",
            _short(text),
            MAX_LABEL_CHARS,
        )
    return text


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a UTF-8 text file of one label a line.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("labels.txt").write_text("高铁站", encoding="utf-8")
        >>> read_labels("labels.txt")
        ('高铁站',)

    Raises:
        LabelError: the file is missing, not UTF-8, empty, or holds a line `check_labels` refuses.
    """
    text = read_utf8(path, "label file", LabelError)
    # str.splitlines would also split at U+2028 and others.
    lines = re.split("\r\n|\r|\n", re.sub("(\r\n|\r|\n)\\Z", "", text))
    if not any(line.strip() for line in lines):
        raise LabelError("{0} holds no label; write one label a line", path)
    return _checked(
        (Message("{0} line {1}", path, n), line) for n, line in enumerate(lines, start=1)
    )


def _checked(labels: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    seen: dict[str, tuple[str, str]] = {}
    for place, label in labels:
        text = check_label(label, place)
        before, same = seen.setdefault(look(text), (place, text))
        if before is not place:
            raise repeated(place, text, before, same)
    if not seen:
        raise LabelError("the list of labels is empty; give at least one label")
    return tuple(text for _, text in seen.values())


def repeated(place: str, text: str, before: str, same: str) -> LabelError:
    """Return the error of a label that is, or looks like, one that came before."""
    if text == same:
        return LabelError("{0} {1} repeats {2}; remove one of them", place, _short(text), before)
    return LabelError(
        "{0} {1} looks the same as {2}, {3}, and is written in other characters; remove one of "
        "them",
        place,
        _short(text),
        before,
        _short(same),
    )


def _is_unseen(character: str) -> bool:
    return bool(_UNSEEN.match(character)) and not _SHAPING.match(character)


def _short(text: str) -> str:
    return repr(text if len(text) <= 20 else f"{text[:20]}…")
