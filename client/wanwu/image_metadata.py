"""Encoded pictures without their metadata, which does not decide whether pixels can be read.

Pillow reads all of it and refuses a picture for what is wrong with it, or for its length. Of what
is left out here only the orientation is looked for.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from wanwu.image_parts import JPEG, PNG, Directory, png_chunks, riff_chunks

#: Of a compressed text, no more is decompressed to look for the orientation.
MAX_TEXT_BYTES = 1_000_000

#: A part in front of a JPEG's first scan.
_SEGMENT = re.compile(rb"\xff+([\xc0-\xc7\xc9-\xcf\xdb-\xef\xfe])(..)", re.DOTALL)
_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
#: Chunks and texts of a PNG that may hold the orientation, the best first.
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_WEBP_PIXELS = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
#: In a WebP's VP8X: that there is a colour profile, EXIF, XMP.
_WEBP_METADATA = 0x20 | 0x08 | 0x04
#: Tags of a TIFF without which its pixels cannot be read.
_TIFF_PIXELS = {
    *(*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320),
    *(*range(322, 326), 338, 339, 347, *range(512, 522), *range(529, 533)),
}
#: In an AVIF: that an item is EXIF. What turns the picture is told elsewhere in it.
_AVIF_EXIF = re.compile(rb"(infe[\2\3]...(?:....|......))Exif", re.DOTALL)
_ORIENTATION = 274
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def bare(data: bytes) -> tuple[bytes, int]:
    """Leave the metadata out of an encoded picture.

    Returns:
        The picture, and its orientation as EXIF tells it: 1 to 8, 1 where it stands upright.
    """
    if data.startswith(JPEG):
        kept, metadata = _bare_jpeg(data)
    elif data.startswith(PNG):
        kept, metadata = _bare_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kept, metadata = _bare_webp(data)
    elif data[:2] in (b"II", b"MM"):
        kept, metadata = _bare_tiff(data), iter([data])
    else:  # of other formats Pillow reads none that could be wrong, but an AVIF's EXIF
        return (_AVIF_EXIF.sub(rb"\1free", data) if data[4:8] == b"ftyp" else data), 1
    # Lazily: what comes after the first orientation is not even decompressed.
    found = (exif_orientation(each) or _xmp_orientation(each) for each in metadata)
    return kept, next(filter(None, found), 1)


def _bare_jpeg(data: bytes) -> tuple[bytes, Iterator[bytes]]:
    kept, metadata, place = [data[:2]], [], 2
    while segment := _SEGMENT.match(data, place):
        end = segment.start(2) + int.from_bytes(segment[2], "big")
        if not segment.end() <= end <= len(data):
            break
        content = data[segment.end() : end]
        if segment[1] < b"\xe0" or _tells_colours(segment[1], content):
            kept.append(data[place:end])
        elif segment[1] == b"\xe1":
            metadata.append(content)
        place = end
    return b"".join([*kept, memoryview(data)[place:]]), iter(metadata)


def _tells_colours(marker: bytes, content: bytes) -> bool:
    """Tell whether libjpeg learns from a part of a JPEG how its colours are stored."""
    jfif = marker == b"\xe0" and content.startswith(b"JFIF\0") and len(content) >= 14
    return jfif or (marker == b"\xee" and content.startswith(b"Adobe") and len(content) >= 12)


def _bare_png(data: bytes) -> tuple[bytes, Iterator[bytes]]:
    kept = [PNG]
    metadata: dict[bytes, tuple[bytes, bytes]] = {}
    for kind, start, end in png_chunks(data):
        if kind in _PNG_PIXELS:
            kept.append(data[start - 8 : end + 4])
            continue
        text = data[start : min(end, start + 80)].partition(b"\0")[0]
        keyword = kind if kind == b"eXIf" else text
        if keyword in _PNG_ORIENTATION:
            metadata.setdefault(keyword, (kind, data[start:end]))
    return b"".join(kept), (_text(*metadata[each]) for each in _PNG_ORIENTATION if each in metadata)


def _text(kind: bytes, content: bytes) -> bytes:
    """Return EXIF or XMP from a chunk of a PNG; nothing where it cannot be read."""
    if kind == b"eXIf":
        return content
    keyword, _, value = content.partition(b"\0")
    if kind == b"zTXt" or (kind == b"iTXt" and value[:1] == b"\1"):
        packed = value[1:] if kind == b"zTXt" else b"".join(value[2:].split(b"\0", 2)[2:])
        try:
            value = zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES)
        except zlib.error:
            return b""
    if keyword != b"Raw profile type exif":
        return value
    # As ImageMagick writes it: a line of a name, one of a length, and lines of digits.
    try:
        return bytes.fromhex(b"".join(value.split()[2:]).decode("ascii"))
    except ValueError:
        return b""


def _bare_webp(data: bytes) -> tuple[bytes, Iterator[bytes]]:
    kept, metadata, frames = [], [], 0
    for kind, start, end in riff_chunks(data):
        frames += kind == b"ANMF"
        cut = end - start < int.from_bytes(data[start - 4 : start], "little")
        if kind in _WEBP_PIXELS and not (cut and frames > 1):  # the first frame is what is seen
            chunk = bytearray(data[start - 8 : end + (end - start) % 2])
            if kind == b"VP8X":
                chunk[8:9] = bytes([each & ~_WEBP_METADATA for each in chunk[8:9]])
            kept.append(chunk)
        elif kind in (b"EXIF", b"XMP "):
            metadata.append(data[start:end])
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<L", len(body)) + body, iter(metadata)


def _bare_tiff(data: bytes) -> bytes:
    directory = Directory.first(data)
    order, place, large = directory.order, directory.place, directory.large
    entries = directory.entries()
    kept = [entry.data for tag, entry in entries if tag in _TIFF_PIXELS]
    head = struct.pack(order + "HQ"[large], len(entries))
    if not data.startswith(head, place):
        return data  # cut short
    head = struct.pack(order + "HQ"[large], len(kept))
    # No other directory follows it.
    written = head + b"".join(kept) + bytes((4, 8)[large])
    return data[:place] + written + data[place + len(written) :]


def exif_orientation(data: bytes) -> int | None:
    """Return the orientation that EXIF, or a TIFF, tells."""
    for tag, entry in Directory.first(data.removeprefix(b"Exif\0\0")).entries():
        if tag == _ORIENTATION:
            return entry.value if entry.value in range(1, 9) else None
    return None


def _xmp_orientation(data: bytes) -> int | None:
    found = _XMP_ORIENTATION.search(data)
    return int(found[1]) if found else None
