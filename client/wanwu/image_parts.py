"""Pictures of countless parts, which Pillow would work on for minutes: they are refused unread."""

from __future__ import annotations

import io
import re
import struct

from wanwu.catalog import Message
from wanwu.errors import ImageError

#: A file of more parts than this is refused. Each costs Pillow far more time and memory than it
#: has bytes, and a JPEG's scan the time of a whole picture, however few bytes the scan has.
MAX_PARTS, MAX_JPEG_PARTS, MAX_JPEG_SCANS = 50_000, 1_000, 64

#: What begins each part of a JPEG that tells its length, and what ends the picture.
_MARKER = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe])")
_END_OF_IMAGE, _START_OF_SCAN = b"\xd9", b"\xda"
#: Tags of a TIFF whose values are a place in the file for each of its parts.
_PLACES = (273, 324)


class Stream(io.BytesIO):
    """An encoded picture that Pillow may not read in countless parts."""

    _reads = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read, if it is not once too often."""
        self._reads += 1
        if self._reads > 4 * MAX_PARTS:  # a chunk of a PNG takes Pillow four
            raise _too_many_parts(Message("the picture of {0} bytes", len(self.getbuffer())))
        return super().read(size)


def check_parts(data: bytes, name: str) -> None:
    """Refuse a file of countless parts, which Pillow would list before any limit is looked at."""
    if data[:2] == b"\xff\xd8":
        _check_jpeg_parts(data, name)
    for tag, count in _tags(data) if data[:2] in (b"II", b"MM") else ():
        if tag in _PLACES and count > MAX_PARTS:
            raise _too_many_parts(name)


def _check_jpeg_parts(data: bytes, name: str) -> None:
    parts = scans = place = 0
    while found := _MARKER.search(data, place):
        place = found.end()
        if found[1] != _END_OF_IMAGE:
            place += int.from_bytes(data[place : place + 2], "big")
        elif scans:
            return
        parts, scans = parts + 1, scans + (found[1] == _START_OF_SCAN)
        if parts > MAX_JPEG_PARTS or scans > MAX_JPEG_SCANS:
            raise _too_many_parts(name)


def _tags(data: bytes) -> list[tuple[int, int]]:
    """Give the tags of a TIFF's first picture, each with how many values it has."""
    order, large = (">", "<")[data[:1] == b"I"], 43 in data[2:4]
    try:
        (place,) = struct.unpack_from(order + "LQ"[large], data, (4, 8)[large])
        (count,) = struct.unpack_from(order + "HQ"[large], data, place)
    except struct.error:
        return []  # Pillow tells that it is cut short
    entry, place = struct.Struct(order + ("HHLL", "HHQQ")[large]), place + (2, 8)[large]
    whole = min(count, (len(data) - place) // entry.size)
    entries = entry.iter_unpack(data[place : place + whole * entry.size])
    return [(tag, values) for tag, _, values, _ in entries]


def _too_many_parts(name: str) -> ImageError:
    return ImageError("{0} is made of more parts than any program writes; save it anew", name)
