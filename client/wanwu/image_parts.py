"""The parts of encoded pictures; a file of countless ones is refused before Pillow lists them."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from wanwu.catalog import Message, byte_size
from wanwu.errors import ImageError

#: A file of more parts than this is refused. Each costs Pillow far more time and memory than it
#: has bytes, and a JPEG's scan the time of a whole picture, however few bytes the scan has.
MAX_PARTS, MAX_JPEG_PARTS, MAX_JPEG_SCANS = 50_000, 1_000, 64

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
#: What begins each part of a JPEG that tells its length, and what ends the picture.
_MARKER = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe])")
END_OF_IMAGE, START_OF_SCAN = b"\xd9", b"\xda"
#: Tags of a TIFF whose values are a place in the file for each of its parts.
_PLACES = (273, 324)


class Stream(io.BytesIO):
    """An encoded picture that Pillow may not read in countless parts.

    `short` says that Pillow wanted more than there is.
    """

    _reads = 0
    short = False

    def read(self, size: int | None = -1) -> bytes:
        """Read, if it is not once too often."""
        self._reads += 1
        if self._reads > 4 * MAX_PARTS:  # a chunk of a PNG takes Pillow four
            raise _too_many_parts(Message("the picture of {0}", byte_size(len(self.getbuffer()))))
        found = super().read(size)
        self.short = self.short or len(found) < (size or 0)
        return found


def check_parts(data: bytes, name: str) -> None:
    """Refuse a file of countless parts, which would be listed before any limit is looked at."""
    parts = scans = 0
    for marker, _ in jpeg_markers(data):
        parts, scans = parts + 1, scans + (marker == START_OF_SCAN)
        if parts > MAX_JPEG_PARTS or scans > MAX_JPEG_SCANS:
            raise _too_many_parts(name)
    for number, _ in enumerate(riff_chunks(data) if data[:4] == b"RIFF" else png_chunks(data)):
        if number > MAX_PARTS:
            raise _too_many_parts(name)
    for tag, entry in Directory.first(data).entries():
        if tag in _PLACES and entry.count > MAX_PARTS:
            raise _too_many_parts(name)


def _too_many_parts(name: str) -> ImageError:
    return ImageError("{0} is made of more parts than any program writes; save it anew", name)


def jpeg_markers(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the markers of a JPEG, and the place behind each, up to the picture's end."""
    place, scans = 0, False
    while data[:2] == JPEG and (found := _MARKER.search(data, place)):
        place = found.end()
        yield found[1], place
        if found[1] != END_OF_IMAGE:
            place += int.from_bytes(data[place : place + 2], "big")
        elif scans:
            return
        scans = scans or found[1] == START_OF_SCAN


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks of a PNG: the kind of each, and where its content begins and ends."""
    place = len(PNG) if data.startswith(PNG) else len(data)
    while len(data) - place >= 8:
        (length,) = struct.unpack_from(">L", data, place)
        kind = data[place + 4 : place + 8]
        yield kind, place + 8, min(place + 8 + length, len(data))
        if kind == b"IEND":
            return
        place += 12 + length


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the chunks of a WebP, as `png_chunks`."""
    whole, place = min(len(data), 8 + int.from_bytes(data[4:8], "little")), 12
    while whole - place >= 8:
        (length,) = struct.unpack_from("<L", data, place + 4)
        yield data[place : place + 4], place + 8, min(place + 8 + length, whole)
        place += 8 + length + length % 2


@dataclass(frozen=True)
class Entry:
    """One of a directory's entries: how many values, the first whole number, and its bytes."""

    count: int
    value: int | None
    data: bytes


@dataclass(frozen=True)
class Directory:
    """The first directory of a TIFF, or of EXIF. `place` is where it begins."""

    data: bytes
    place: int
    order: str
    large: bool

    @classmethod
    def first(cls, data: bytes) -> Directory:
        """Find it; in what is no TIFF it is empty."""
        order, large = (">", "<")[data[:1] == b"I"], 43 in data[2:4]
        try:
            (place,) = struct.unpack_from(order + "LQ"[large], data, (4, 8)[large])
        except struct.error:
            place = len(data)  # Pillow tells that it is cut short
        return cls(data if data[:2] in (b"II", b"MM") else b"", place, order, large)

    def entries(self) -> list[tuple[int, Entry]]:
        """Return its entries by their tags; of one that is cut short none."""
        try:
            (count,) = struct.unpack_from(self.order + "HQ"[self.large], self.data, self.place)
        except struct.error:
            return []
        entry = struct.Struct(self.order + ("HHL4s", "HHQ8s")[self.large])
        first = self.place + (2, 8)[self.large]
        count = min(count, (len(self.data) - first) // entry.size)
        places = range(first, first + count * entry.size, entry.size)
        return [self._entry(entry, place) for place in places]

    def _entry(self, entry: struct.Struct, place: int) -> tuple[int, Entry]:
        tag, kind, count, value = entry.unpack_from(self.data, place)
        number = None
        if kind in (3, 4):
            (number,) = struct.unpack_from(self.order + "HL"[kind == 4], value)
        return tag, Entry(count, number, self.data[place : place + entry.size])
