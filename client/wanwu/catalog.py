"""Messages in English and Chinese: the catalog zh.json.

A message is an English template with slots {0}, {1} and what fills them, so that its Chinese is
found by the template alone. What fills a slot is a text to the letter, or a message itself, which
is put into Chinese too. `{0:t}` in the Chinese marks a slot that is filled with one of a few texts
without slots, such as "file"; these are looked up as well.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

CATALOG = Path(__file__).with_name("zh.json")

#: How the templates begin whose texts come whole: Typer's, pydantic's, and those of a manifest.
_WHOLE = (
    *("Missing ", "No such ", "Got unexpected ", "Option ", "Invalid value ", "Input should be "),
    *("Value error, ", "Invalid JSON: ", "List should ", "Data should "),
    *("bank ", "rollback to ", "without bank "),
)
_SLOT = re.compile(r"\{(\d+)(:t)?\}")


class Message(str):
    """An English text that knows the template and the arguments that it was made of.

    Example:
        >>> Message("{0} is empty", "photo.jpg")
        'photo.jpg is empty'
    """

    __slots__ = ("arguments", "template")

    template: str
    arguments: tuple[Any, ...]

    def __new__(cls, template: str, *arguments: Any) -> Message:
        """Fill the slots of a template; an argument is anything that `str` takes."""
        text = _SLOT.sub(lambda slot: str(arguments[int(slot[1])]), template)
        made = super().__new__(cls, text)
        made.template, made.arguments = template, arguments
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return what a copy is made of; an argument may be of a kind that cannot be copied."""
        arguments = (each if isinstance(each, Message) else str(each) for each in self.arguments)
        return (self.template, *arguments)


def message(text: str, *arguments: Any) -> str:
    """Return a text, or a template filled with arguments."""
    return Message(text, *arguments) if arguments else text


def message_of(error: BaseException) -> str:
    """Return the message of an error with its template, where it has one."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, Message) else str(error)


def byte_size(count: int) -> str:
    """Return a number of bytes as people read it, the same in both languages: 32 MB, 1.5 kB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if count >= size:
            return f"{count / size:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} B"


def shortened(text: str, most: int) -> str:
    """Return a message whose arguments have at most so many characters each."""
    if not isinstance(text, Message):
        return text
    arguments = (
        shortened(each, most) if isinstance(each, Message) else _cut(str(each), most)
        for each in text.arguments
    )
    return Message(text.template, *arguments)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def recognized(text: str) -> str:
    """Return a text that came whole, of another program or a file, with its template."""
    if text in _catalog():
        return text
    for template, literals in _whole_templates():
        arguments = _between(literals, text)
        if arguments is not None:
            return Message(template, *map(recognized, arguments))
    return text


def _between(literals: tuple[str, ...], text: str) -> list[str] | None:
    """Return what stands between literals that a text is made of, in time linear in its length."""
    head, *middle, tail = literals
    if not (text.startswith(head) and text.endswith(tail)):
        return None
    found, at, end = [], len(head), len(text) - len(tail)
    for literal in middle:
        place = text.find(literal, at, end)
        if place < 0:
            return None
        found.append(text[at:place])
        at = place + len(literal)
    return [*found, text[at:end]] if at <= end else None


@cache
def _whole_templates() -> list[tuple[str, tuple[str, ...]]]:
    """Return the templates of `_WHOLE` and their literal parts, the most specific first."""
    split = [
        (template, tuple(_SLOT.split(template)[::3]))
        for template in _catalog()
        if template.startswith(_WHOLE) and _SLOT.search(template)
    ]
    return sorted(split, key=lambda each: -sum(map(len, each[1])))


def in_chinese(text: Any, *, look_up: bool = True) -> str:
    """Return a message, a text or an error's message in Chinese.

    What the catalog lacks stays English. Without `look_up` a plain text stays as it is.
    """
    if isinstance(text, BaseException):
        text, look_up = message_of(text), True
    if not isinstance(text, Message):
        return _catalog().get(text, text) if look_up and isinstance(text, str) else str(text)
    chinese = _catalog().get(text.template)
    if chinese is None:
        return str(text)

    def filled(slot: re.Match[str]) -> str:
        return in_chinese(text.arguments[int(slot[1])], look_up=slot[2] is not None)

    return _SLOT.sub(filled, chinese)


@cache
def _catalog() -> dict[str, str]:
    catalog: dict[str, str] = json.loads(CATALOG.read_text(encoding="utf-8"))
    return catalog
