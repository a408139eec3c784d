"""Messages in Chinese: the catalog zh.json.

The library's messages are English. The catalog has their templates, with slots {0}, {1} in order,
and the Chinese for each. There `{0}` stands for what came, to the letter, and `{0:t}` for what came
when that is a message itself.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

CATALOG = Path(__file__).with_name("zh.json")

_SLOT = re.compile(r"\{(\d+)(:t)?\}")


def in_chinese(text: str) -> str:
    """Give a message in Chinese; what the catalog lacks stays English."""
    if text in _catalog():
        return _catalog()[text]
    for template, literals in _by_literal_length():
        # Few texts hold the literal parts of a template, so few are compiled.
        if all(literal in text for literal in literals):
            match = _pattern(literals).fullmatch(text)
            if match:
                return _filled(_catalog()[template], match.groups())
    return text


def _filled(template: str, values: tuple[str, ...]) -> str:
    def value(slot: re.Match[str]) -> str:
        came = values[int(slot[1])]
        return in_chinese(came) if slot[2] else came

    return _SLOT.sub(value, template)


@cache
def _catalog() -> dict[str, str]:
    catalog: dict[str, str] = json.loads(CATALOG.read_text(encoding="utf-8"))
    return catalog


@cache
def _by_literal_length() -> list[tuple[str, tuple[str, ...]]]:
    """Give the templates with slots and their literal parts, the most specific first."""
    split = [(template, tuple(_SLOT.split(template)[::3])) for template in _catalog()]
    return sorted(
        ((template, literals) for template, literals in split if len(literals) > 1),
        key=lambda each: -sum(map(len, each[1])),
    )


@cache
def _pattern(literals: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("(.*?)".join(map(re.escape, literals)), re.DOTALL)
