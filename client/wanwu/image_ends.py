"""Whether all pixels of an encoded picture are there, where Pillow does not say so."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from wanwu.image_parts import (
    END_OF_IMAGE,
    JPEG,
    MAX_PARTS,
    PNG,
    START_OF_SCAN,
    Stream,
    jpeg_markers,
    png_chunks,
)

_END = b"\xff" + END_OF_IMAGE
#: Data of a scan that is not the zeros that libjpeg puts where data is missing.
_OTHER_DATA = bytes(range(0xFE, 0, -1)) * 4
#: Frames of a JPEG whose scans name coefficients.
_FRAMES = (b"\xc0", b"\xc1", b"\xc2", b"\xc9", b"\xca")
#: Of each pass of an interlaced PNG: its first column and row, and the steps between them.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
#: Bands by a PNG's kind of colour.
_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: What begins a JPEG 2000, and each part of its tiles.
_CODESTREAM, _TILE_PART = b"\xff\x4f\xff\x51", b"\xff\x90"
#: Bytes that a PNG's data is read by.
_BLOCK = 16_384
#: What libjpeg shows where data is missing.
_GREY = 128
#: Rows that are compared at a time.
_ROWS = 256


def lacks_pixels(image: Image.Image, data: bytes) -> bool:
    """Return whether a decoded picture has pixels that are not in its data.

    Of a PNG whose data ends before its time Pillow leaves the rest black, of a JPEG libjpeg leaves
    it grey. Only a picture that ends so is looked at more closely, which takes as long again.
    """
    width, height = image.size
    if data.startswith(JPEG):
        last = image.getpixel((width - 1, height - 1))
        grey = last == _GREY or (isinstance(last, tuple) and set(last) == {_GREY})
        return grey and ended_jpeg(data) is None
    if data.startswith(PNG):
        black = not any(image.crop((0, height - 1, width, height)).tobytes())
        return (black or bool(data[28])) and _inflates_to_less(data, _png_bytes(data))
    return image.format == "JPEG2000" and _lacks_tiles(data)


def ended_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG with its end marker, which it may lack; None where it lacks pixels.

    It lacks some if what follows its data changes a pixel.
    """
    ends = [place - 2 for marker, place in jpeg_markers(data) if marker == END_OF_IMAGE]
    whole = data[: ends[-1]] if ends else data.rstrip(b"\xff")
    if not ends and not _has_all_scans(whole):
        return None
    with (
        Image.open(Stream(whole + _END), formats=["JPEG"]) as plain,
        Image.open(Stream(whole + _OTHER_DATA + _END), formats=["JPEG"]) as other,
    ):
        strips = (
            (0, top, plain.width, min(top + _ROWS, plain.height))
            for top in range(0, plain.height, _ROWS)
        )
        same = all(plain.crop(each).tobytes() == other.crop(each).tobytes() for each in strips)
    return whole + _END if same else None


def _has_all_scans(data: bytes) -> bool:
    """Return whether a JPEG's scans bring all 64 coefficients of each component to the last bit."""
    lacking: dict[int, set[int]] = {}
    for marker, place in jpeg_markers(data):
        part = data[place : place + int.from_bytes(data[place : place + 2], "big")]
        if marker in _FRAMES:
            lacking.update({component: set(range(64)) for component in part[8::3]})
        elif marker == START_OF_SCAN and len(part) >= 6:
            *components, first, last, bits = part[3:]
            for component in components[::2] if bits & 15 == 0 else ():
                lacking.get(component, set()).difference_update(range(first, last + 1))
    return not any(lacking.values())


def _png_bytes(data: bytes) -> int:
    """Return how many bytes the pixels of a PNG are made of, by its header."""
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">LLBBBBB", data, 16)
    total = 0
    for column, row, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((column - width) // right), -((row - height) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits * _BANDS[colour] + 7) // 8)
    return total


def _inflates_to_less(data: bytes, wanted: int) -> bool:
    """Return whether a PNG's data is of fewer bytes, and hold only a few of them at a time."""
    inflater = zlib.decompressobj()
    for kind, start, end in png_chunks(data):
        for place in range(start, end, _BLOCK) if kind == b"IDAT" else ():
            packed = data[place : min(place + _BLOCK, end)]
            while packed and not inflater.eof and wanted > 0:
                wanted -= len(inflater.decompress(packed, 4 * _BLOCK))
                packed = inflater.unconsumed_tail
    return wanted > 0


def _lacks_tiles(data: bytes) -> bool:
    """Return whether a JPEG 2000 ends before its last tile does; OpenJPEG fills it in."""
    place = data.find(_CODESTREAM) + 2
    _, _, *size = struct.unpack_from(">HH8L", data, place + 2)
    right, bottom, _, _, width, height, left, top = size
    wanted: int = -((left - right) // width) * -((top - bottom) // height)
    seen: set[int] = set()
    for _ in range(MAX_PARTS):
        if len(data) - place < 12:
            break
        if data[place : place + 2] == _TILE_PART:
            tile, length = struct.unpack_from(">HL", data, place + 4)
            place = place + max(length, 12) if length else len(data)
            if place <= len(data):
                seen.add(tile)
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return len(seen) < wanted
