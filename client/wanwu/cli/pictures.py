"""The pictures that a command line names: files, folders, globs, and lists on standard input."""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wanwu.catalog import Message
from wanwu.errors import InputError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".jp2", ".j2k", ".jpf", ".jpx"),
    *(".heic", ".heif"),  # not read, and said so
)


@dataclass(frozen=True)
class Pictures:
    """Paths of pictures, how many there are if that is known, and what was left out."""

    paths: Iterable[str]
    total: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run. Each picture is in one part, whatever the others hold."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read `I/N`, such as 0/4 to 3/4; without a text, the whole.

        Raises:
            InputError: it is no such text.
        """
        index, slash, count = (text or "0/1").partition("/")
        digits = all(part.isascii() and part.isdecimal() for part in (index, count))
        if not slash or not digits or not int(index) < int(count):
            raise InputError(
                "--shard is {0}; expected I/N with I from 0 to N-1, such as 0/4 to 3/4", repr(text)
            )
        return cls(int(index), int(count))

    def __contains__(self, path: str) -> bool:
        """Tell by the path alone, so that machines need not agree on a list."""
        digest = hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index


def spelled(text: str) -> str:
    r"""Give a text as it is written into files: what is not UTF-8 in a name as \udcXX."""
    return text.encode("utf-8", "backslashreplace").decode()


def find_pictures(named: Sequence[str], shard: Shard, done: set[str]) -> Pictures:
    """Find the pictures that arguments name.

    Args:
        named: files, folders (all pictures below them), globs, or `-` for a list on standard
            input, a path a line.
        shard: the part of them to give.
        done: those to leave out, as `spelled`.

    Raises:
        InputError: a folder or a glob holds no picture.
    """
    if "-" in named:
        if len(named) > 1:
            raise InputError("- was given with {0} other paths; give it alone", len(named) - 1)
        listed = (path for path in _listed() if path in shard and spelled(path) not in done)
        return Pictures(listed, None)
    paths: dict[str, None] = {}
    others = 0
    for name in named:
        found, left = _expand(name)
        others += left
        paths.update(dict.fromkeys(found))
    mine = [path for path in paths if path in shard]
    wanted = [path for path in mine if spelled(path) not in done]
    notes = []
    if others:
        notes.append(
            Message("{0} files that are no pictures by their names were left out", f"{others:,}")
        )
    if len(wanted) < len(mine):
        notes.append(
            Message(
                "{0} of {1} pictures are done already",
                f"{len(mine) - len(wanted):,}",
                f"{len(mine):,}",
            )
        )
    return Pictures(wanted, len(wanted), tuple(notes))


def _expand(name: str) -> tuple[list[str], int]:
    """Give the pictures that one argument names, and how many other files were in its folder."""
    if os.path.isdir(name):  # noqa: PTH112 - names stay as they were typed
        return _below(name)
    if os.path.lexists(name) or not glob.has_magic(name):
        return [name], 0  # what is wrong with it, if anything, is told in its own answer
    found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207
    pictures = [path for path in found if not os.path.isdir(path)]  # noqa: PTH112
    if not pictures:
        raise InputError("no file matches {0}; check the pattern and the folder", repr(name))
    return pictures, 0


def _below(folder: str) -> tuple[list[str], int]:
    pictures, others = [], 0
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders.sort()
        for file in sorted(files):
            if file.lower().endswith(SUFFIXES):
                pictures.append(os.path.join(parent, file))  # noqa: PTH118
            else:
                others += 1
    if not pictures:
        raise InputError(
            "{0} holds no picture; expected files that end in {1}", folder, ", ".join(SUFFIXES)
        )
    return pictures, others


def _refuse(error: OSError) -> None:
    raise InputError("a folder cannot be read: {0}; check its permissions", error) from error


def _listed() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer):
        line = line if number else line.removeprefix(codecs.BOM_UTF8)
        path = os.fsdecode(line.rstrip(b"\r\n"))
        if path:
            yield path
