"""Hostile uploads, made in code and the same each time; each with the codes that may refuse it."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

DAMAGED, UNKNOWN, TOO_LARGE = (
    ("picture_damaged",),
    ("picture_type_unsupported",),
    ("picture_too_large",),
)
UNREADABLE = DAMAGED + UNKNOWN
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
#: Where each format's picture is cut, in parts of its length; past that some are decoded.
CUTS = 25
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
SCRIPT = b"<script>alert(1)</script><?php system($_GET['c']); ?>"


@dataclass(frozen=True)
class Upload:
    """A picture as it is sent, and the codes of which one must refuse it."""

    name: str
    data: bytes
    codes: tuple[str, ...]


def hostile() -> list[Upload]:
    """Give all uploads that must be refused."""
    groups = (truncated(), lying(), bombs(), costly(), foreign(), broken(), odd(), random_bytes())
    return [each for group in groups for each in group]


# Parts of files


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(side: int = 64) -> Image.Image:
    values = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deflated_zeros(count: int) -> bytes:
    squeezed, block = zlib.compressobj(1), bytes(1_000_000)
    parts = [squeezed.compress(block) for _ in range(count // len(block))]
    return b"".join(parts) + squeezed.compress(bytes(count % len(block))) + squeezed.flush()


def png(
    width: int,
    height: int,
    *chunks: bytes,
    bits: int = 8,
    colour: int = 0,
    data: bytes | None = None,
) -> bytes:
    """A PNG whose header says what is given, over data that is the zeros of 64 x 64 pixels."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(bytes(65 * 64)) if data is None else data)
    return PNG_MAGIC + chunk(b"IHDR", head) + b"".join(chunks) + idat + chunk(b"IEND", b"")


def blank_png(width: int, height: int, *, bits: int = 8, colour: int = 0, bands: int = 1) -> bytes:
    """A whole PNG of zeros."""
    zeros = deflated_zeros(height * (1 + (width * bits * bands + 7) // 8))
    return png(width, height, bits=bits, colour=colour, data=zeros)


def blank_webp(width: int, height: int) -> bytes:
    """A whole WebP of one colour, which has the same few bytes at every size."""
    data = bytearray(encoded(Image.new("RGBA", (16, 16)), "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    (word,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, word >> 28 << 28 | height - 1 << 14 | width - 1)
    return bytes(data)


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(*segments: bytes, after: bytes = b"") -> bytes:
    """A JPEG with more segments in front of its own, and bytes after its end."""
    data = encoded(noise(), "JPEG")
    return data[:2] + b"".join(segments) + data[2:] + after


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded(noise(), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def tiff(*entries: tuple[int, int, int, int], data: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of tags (tag, type, count, value); the value None means where `data` begins."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    start = 8 + 2 + 12 * len(entries) + 4
    head = magic + struct.pack(order + "LH", 8, len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1 and order == ">"
        word = start if value is DATA else value << 16 if short else value
        head += struct.pack(order + "HHLL", tag, kind, count, word)
    return head + bytes(4) + data


#: The value of a tag that is the place of a TIFF's data.
DATA = -1


def grey_tiff(
    width: int, height: int, *more: tuple[int, int, int, int], data: bytes, **changed: int
) -> bytes:
    """A grey TIFF of one strip, of the size and with the tags that are given."""
    tags = {
        "width": (256, 4, 1, width),
        "height": (257, 4, 1, height),
        "bits": (258, 3, 1, 8),
        "compression": (259, 3, 1, 1),
        "photometric": (262, 3, 1, 1),
        "offsets": (273, 4, 1, DATA),
        "samples": (277, 3, 1, 1),
        "rows": (278, 4, 1, height),
        "counts": (279, 4, 1, len(data)),
    }
    for name, value in changed.items():
        tags[name] = (*tags[name][:3], value)
    given = {tag[0] for tag in more}
    kept = [tag for tag in tags.values() if tag[0] not in given]
    return tiff(*sorted([*kept, *more]), data=data)


def bmp(width: int, height: int, *, bits: int = 24, compression: int = 0, data: bytes) -> bytes:
    palette = bytes(4 * 256) if bits == 8 else b""
    start = 54 + len(palette)
    head = struct.pack("<LHHL", start + len(data), 0, 0, start)
    about = struct.pack("<LllHHLLllLL", 40, width, height, 1, bits, compression, 0, 1, 1, 0, 0)
    return b"BM" + head + about + palette + data


def gif(canvas: tuple[int, int], frame: tuple[int, int], data: bytes, before: bytes = b"") -> bytes:
    """A GIF of two colours; `data` is what its decoder reads."""
    blocks = b"".join(
        bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)
    )
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    where = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0)
    return head + before + where + b"\x02" + blocks + b"\0;"


def riff(*chunks: tuple[bytes, bytes], kind: bytes = b"WEBP") -> bytes:
    body = kind
    for name, data in chunks:
        body += name + struct.pack("<L", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<L", len(body)) + body


def canvas(width: int, height: int) -> tuple[bytes, bytes]:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes(4) + sizes


def exif(*entries: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    return b"Exif\0\0" + tiff(*entries, data=data)


# Uploads that must be refused


def truncated() -> Iterator[Upload]:
    """Pictures of noise, of which a part is missing."""
    for kind in KINDS:
        data = encoded(noise(), kind)
        for cut in range(1, CUTS - 1):
            # The first tenth of a GIF is its colours, without which it is none to Pillow.
            codes = UNREADABLE if cut < 4 else DAMAGED
            yield Upload(f"{kind} cut at {cut}/{CUTS}", data[: len(data) * cut // CUTS], codes)
        for length in (1, 2, 3, 4, 8, 12, 16, 20):
            yield Upload(f"{kind} cut at {length} bytes", data[:length], UNREADABLE)


HUGE = ((6_500, 6_500), (10_000, 10_000), (50_000, 50_000), (1, 50_000_000), (2**31 - 1, 2**31 - 1))


def lying() -> Iterator[Upload]:
    """Headers that tell of other sizes than the data has."""
    zeros = bytes(64 * 64)
    for width, height in HUGE:
        size = f"{width}x{height}"
        for colour in (0, 2, 3, 4, 6):
            yield Upload(
                f"PNG of {size}, colour {colour}", png(width, height, colour=colour), TOO_LARGE
            )
        yield Upload(f"BMP of {size}", bmp(width, height, data=zeros), TOO_LARGE)
        yield Upload(f"BMP of {size}, upside down", bmp(width, -height, data=zeros), TOO_LARGE)
        yield Upload(f"TIFF of {size}", grey_tiff(width, height, data=zeros), TOO_LARGE)
        if max(width, height) < 65_536:
            yield Upload(f"GIF of {size}", gif((width, height), (1, 1), b"\x44\x01"), TOO_LARGE)
            frame = gif((1, 1), (width, height), b"\x44\x01")
            yield Upload(f"GIF of 1x1 with a frame of {size}", frame, TOO_LARGE)
            yield Upload(f"JPEG of {size}", jpeg_claiming(width, height), TOO_LARGE)
            head = riff(canvas(width, height), (b"VP8L", blank_webp(16, 16)[20:]))
            yield Upload(f"WebP canvas of {size}", head, UNREADABLE + TOO_LARGE)
    for width, height in ((6_000, 6_000), (100_000, 300), (200, 200_000)):
        size = f"{width}x{height}"
        yield Upload(f"short PNG of {size}", png(width, height), DAMAGED)
        yield Upload(f"short BMP of {size}", bmp(width, height, data=zeros), DAMAGED)
        yield Upload(f"short TIFF of {size}", grey_tiff(width, height, data=zeros), DAMAGED)
    yield Upload("short GIF", gif((6_000, 6_000), (6_000, 6_000), b"\x44\x01"), DAMAGED)
    yield Upload("long thread", blank_png(1, 30_000_000), TOO_LARGE)
    for width, height in ((0, 0), (0, 64), (64, 0)):
        size = f"{width}x{height}"
        yield Upload(f"PNG of {size}", png(width, height), UNREADABLE)
        yield Upload(f"BMP of {size}", bmp(width, height, data=zeros), UNREADABLE)
        yield Upload(f"TIFF of {size}", grey_tiff(width, height, data=zeros), UNREADABLE)
        yield Upload(f"JPEG of {size}", jpeg_claiming(width, height), UNREADABLE)
        yield Upload(f"GIF of {size}", gif((0, 0), (width, height), b"\x44\x01"), UNREADABLE)
    yield Upload("BMP of a negative width", bmp(-64, 64, data=zeros), TOO_LARGE)
    tall = bmp(64, -(2**31), data=zeros)
    yield Upload("BMP of the least height", tall, TOO_LARGE)


def bombs() -> Iterator[Upload]:
    """Whole files of a few kilobytes that become very large."""
    for bits in (1, 2, 4, 8):
        yield Upload(
            f"PNG of 100 megapixels, {bits} bits",
            blank_png(10_000, 10_000, bits=bits),
            TOO_LARGE,
        )
    yield Upload("PNG just past the limit", blank_png(6_325, 6_325), TOO_LARGE)
    for side in (6_325, 10_000, 16_383):
        yield Upload(f"WebP of {side} pixels squared", blank_webp(side, side), TOO_LARGE)
    zeros = deflated_zeros(100_000_000)
    for compression in (8, 32_946):
        data = grey_tiff(10_000, 10_000, data=zeros, compression=compression)
        yield Upload(f"TIFF bomb, compression {compression}", data, TOO_LARGE)
    squeezed = Image.new("1", (10_000, 10_000))
    for compression in ("tiff_lzw", "group4", "packbits"):
        data = encoded(squeezed, "TIFF", compression=compression)
        yield Upload(f"TIFF bomb, {compression}", data, TOO_LARGE)
    yield Upload("GIF bomb", encoded(Image.new("P", (7_000, 7_000)), "GIF"), TOO_LARGE)
    yield Upload("JPEG bomb", encoded(Image.new("L", (7_000, 7_000)), "JPEG"), TOO_LARGE)
    yield Upload("BMP bomb", bmp(7_000, 7_000, bits=8, compression=1, data=b"\0\1"), TOO_LARGE)
    for side in (7_000, 20_000, 65_520):
        tile = (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, DATA), (325, 4, 1, len(zeros))
        data = grey_tiff(100, 100, *tile, data=zeros, compression=8)
        yield Upload(f"TIFF cut from a tile of {side} pixels squared", data, TOO_LARGE)


def costly() -> Iterator[Upload]:
    """Files whose every few bytes cost much time or memory."""
    progressive = encoded(Image.new("L", (6_000, 6_000)), "JPEG", progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    for scans in (100, 5_000):
        data = progressive[:-2] + last * scans + b"\xff\xd9"
        yield Upload(f"JPEG of {scans} scans", data, DAMAGED)
    scan = encoded(noise(), "JPEG")
    hidden = scan[:-2] + b"\xff\x02\xff\xff" + last * 5_000 + b"\xff\xd9"
    yield Upload("JPEG with scans behind no marker", hidden, DAMAGED)
    sof = scan[scan.index(b"\xff\xc0") :][:19]
    for name, each in (
        ("comments", segment(0xFE, b"")),
        ("EXIF blocks", segment(0xE1, b"Exif\0\0X")),
        ("colour profiles", segment(0xE2, b"ICC_PROFILE\0\1\1")),
        ("frames", sof),
        ("tables", segment(0xDB, bytes(65))),
        ("starts", b"\xff\xd8"),
        ("ends", b"\xff\xd9"),
    ):
        yield Upload(f"JPEG of 200,000 {name}", jpeg_with(each * 200_000), DAMAGED)
    blocks = segment(0xE1, b"Exif\0\0X") * 5_000
    for name, front in (
        ("an end", b"\xff\xd9"),
        ("a part of no kind", b"\xff\xc8\xff\xff"),
        ("an extension", b"\xff\xf0\xff\xff"),
    ):
        yield Upload(f"JPEG of EXIF blocks behind {name}", jpeg_with(front + blocks), DAMAGED)
    chunks = chunk(b"prVt", b"") * 250_000
    yield Upload("PNG of 250,000 chunks", png(64, 64, chunks), DAMAGED)
    comments = b"!\xfe\x01a\0" * 250_000
    yield Upload("GIF of 250,000 comments", gif((1, 1), (1, 1), b"\x44\x01", comments), DAMAGED)
    comment = b"!\xfe" + b"\x01a" * 500_000 + b"\0"
    yield Upload("GIF with a comment in letters", gif((1, 1), (1, 1), b"D\1", comment), DAMAGED)
    for count in (60_000, 500_000):
        many = (273, 4, count, DATA), (278, 4, 1, 1), (279, 4, count, DATA)
        data = grey_tiff(100, 100, *many, data=bytes(4 * count))
        yield Upload(f"TIFF of {count} strips", data, DAMAGED)


def foreign() -> Iterator[Upload]:
    """Files of other formats, among them ones that Pillow reads and ones that run."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat.jpg", bytes(10_000_000))
    small = noise(16)
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    files = {
        "empty line": b"\n",
        "zeros": bytes(10_000),
        "spaces": b" " * 10_000,
        "UTF-8": "这不是图片".encode(),
        "UTF-16": "这不是图片".encode("utf-16"),
        "GB18030": "这不是图片".encode("gb18030"),
        "HTML": b"<!doctype html><title>404</title>" + SCRIPT,
        "SVG": svg,
        "SVG with a script": b"<svg onload='alert(1)'>" + SCRIPT + b"</svg>",
        "SVG, squeezed": gzip.compress(svg),
        "XML bomb": f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><x>&e9;</x>'.encode(),
        "XML of another file": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        "PHP": b"<?php system($_GET['c']); ?>",
        "shell": b"#!/bin/sh\nrm -rf /\n",
        "JSON": b'{"images": ["..."]}',
        "zip": stream.getvalue(),
        "gzip bomb": gzip.compress(bytes(10_000_000)),
        "a squeezed JPEG": gzip.compress(encoded(small, "JPEG")),
        "bzip2": b"BZh91AY&SY" + bytes(100),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
        "RAR": b"Rar!\x1a\x07\x01\0" + bytes(100),
        "ELF": b"\x7fELF\x02\x01\x01" + bytes(100),
        "Windows program": b"MZ\x90\0" + bytes(100),
        "Java class": b"\xca\xfe\xba\xbe" + bytes(100),
        "pickle": b"cos\nsystem\n(S'true'\ntR.",
        "EPS": encoded(small, "EPS"),
        "PostScript": b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n",
        "EPS in a DOS file": b"\xc5\xd0\xd3\xc6" + struct.pack("<L", 30) + bytes(22) + b"%!PS",
        "PDF": encoded(small, "PDF"),
        "PDF with a JPEG": b"%PDF-1.4\n" + encoded(small, "JPEG"),
        "HTML with a PNG": b"<html>" + encoded(small, "PNG"),
        "zip in front of a JPEG": stream.getvalue() + encoded(small, "JPEG"),
        "ICO": encoded(small, "ICO"),
        "ICNS": encoded(Image.new("RGB", (16, 16)), "ICNS"),
        "PPM": encoded(small, "PPM"),
        "TGA": encoded(small, "TGA"),
        "PCX": encoded(small, "PCX"),
        "DDS": encoded(small, "DDS"),
        "SGI": encoded(small, "SGI"),
        "XBM": encoded(Image.new("1", (16, 16)), "XBM"),
        "DIB": encoded(small, "DIB"),
        "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HLLHH", 3, 64, 64, 8, 3) + bytes(100),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100),
        "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(100),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "JPEG XL": b"\xff\x0a" + bytes(100),
        "MP3": b"ID3\x04" + bytes(100),
        "WAV": riff((b"fmt ", bytes(16)), kind=b"WAVE"),
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "FITS": b"SIMPLE  =" + b" " * 2871,
        "MPEG": b"\0\0\x01\xb3" + bytes(100),
        "QOI": b"qoif" + bytes(100),
        "FLI": struct.pack("<LHHHHHH", 200, 0xAF11, 1, 64, 64, 8, 3) + bytes(200),
        "base64": b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
        "data URL": b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==",
        "address": b"http://127.0.0.1/cat.jpg",
        "path": b"/etc/passwd",
    }
    for name, data in files.items():
        yield Upload(name, data, UNKNOWN)
    yield Upload("nothing", b"", DAMAGED)


MAGICS = {
    "JPEG": b"\xff\xd8\xff",
    "JFIF": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
    "PNG": PNG_MAGIC,
    "GIF87a": b"GIF87a",
    "GIF89a": b"GIF89a",
    "WebP": b"RIFF\xff\xff\xff\xffWEBP",
    "WebP VP8": b"RIFF\x24\0\0\0WEBPVP8 ",
    "WebP VP8L": b"RIFF\x24\0\0\0WEBPVP8L",
    "WebP VP8X": b"RIFF\x24\0\0\0WEBPVP8X",
    "BMP": b"BM",
    "TIFF, small end": b"II*\0\x08\0\0\0",
    "TIFF, big end": b"MM\0*\0\0\0\x08",
    "BigTIFF": b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
}


def random_bytes() -> Iterator[Upload]:
    """What begins as a picture and goes on as something else."""
    source = random.Random(20_240_229)
    for name, magic in MAGICS.items():
        yield Upload(f"{name} and no more", magic, UNREADABLE)
        yield Upload(f"{name} and a script", magic + SCRIPT * 20, UNREADABLE + TOO_LARGE)
        for number in range(3):
            rest = source.randbytes(2_000)
            yield Upload(f"{name} and noise {number}", magic + rest, UNREADABLE + TOO_LARGE)


def broken() -> Iterator[Upload]:
    """Whole pictures of which one thing is not as it must be."""
    whole = encoded(noise(), "PNG")
    ihdr, idat = whole[8:33], whole[33:]
    yield Upload("PNG without a header", PNG_MAGIC + idat, UNREADABLE)
    yield Upload("PNG without data", PNG_MAGIC + ihdr + chunk(b"IEND", b""), UNREADABLE)
    yield Upload("PNG with a wrong sum in its header", whole[:29] + bytes(4) + idat, UNREADABLE)
    for bits, colour in ((3, 0), (8, 1), (8, 5), (8, 7), (255, 255), (0, 0), (16, 3)):
        data = png(64, 64, bits=bits, colour=colour)
        yield Upload(f"PNG of {bits} bits, colour {colour}", data, UNREADABLE)
    yield Upload("PNG with data that is not squeezed", png(64, 64, data=bytes(5_000)), DAMAGED)
    yield Upload("PNG with a filter there is not", png(64, 64, data=filtered(9)), DAMAGED)
    for kind in (b"tEXt", b"iCCP", b"prVt", b"eXIf"):
        data = PNG_MAGIC + ihdr + struct.pack(">I", 2**31 - 1) + kind + idat
        yield Upload(f"PNG with {kind.decode()} of 2 GB", data, UNREADABLE)
    for place in (2, 4):
        for value in (0, 1):
            data = bytearray(encoded(noise(), "JPEG"))
            struct.pack_into(">H", data, place + (data[place] == 0xFF) * 2, value)
            name = f"JPEG with a segment of {value} bytes at {place}"
            yield Upload(name, bytes(data[:600]), UNREADABLE)
    jpeg = encoded(noise(), "JPEG")
    yield Upload("JPEG without tables", without(jpeg, b"\xff\xdb"), DAMAGED)
    yield Upload("JPEG without a frame", without(jpeg, b"\xff\xc0"), UNREADABLE)
    frame = jpeg.index(b"\xff\xc0")
    sof = jpeg[frame : frame + 19]
    yield Upload("JPEG of two frames", jpeg[:frame] + sof + jpeg[frame:], DAMAGED)
    for name, place, value in (
        ("12 bits", 4, 12),
        ("no bits", 4, 0),
        ("no bands", 9, 0),
        ("200 bands", 9, 200),
        ("a sampling of 0", 11, 0),
        ("a sampling of 15", 11, 0xFF),
        ("a table there is not", 12, 9),
    ):
        data = bytearray(jpeg)
        data[frame + place] = value
        yield Upload(f"JPEG of {name}", bytes(data), UNREADABLE)
    for name, tags in (
        ("9,999 bits", {"bits": 9_999}),
        ("0 bits", {"bits": 0}),
        ("no samples", {"samples": 0}),
        ("65,535 samples", {"samples": 65_535}),
        ("an unknown compression", {"compression": 9_999}),
        ("data past its end", {"offsets": 2**31}),
        ("LZW data that is none", {"compression": 5}),
        ("squeezed data that is none", {"compression": 8}),
        ("fax data of nothing", {"compression": 4, "bits": 1, "counts": 0}),
    ):
        data = grey_tiff(64, 64, data=bytes(range(256)), **tags)
        yield Upload(f"TIFF of {name}", data, UNREADABLE)
    for name, entries in (
        ("no tags", ()),
        ("4 billion strips", ((256, 4, 1, 9), (257, 4, 1, 9), (273, 4, 2**32 - 1, 8))),
        ("a negative width", ((256, 9, 1, 2**32 - 64), (257, 4, 1, 64), (273, 4, 1, 8))),
        ("a width in text", ((256, 2, 4, 0x3434), (257, 4, 1, 64), (273, 4, 1, 8))),
        ("a width of 0/0", ((256, 5, 1, 100), (257, 4, 1, 64), (273, 4, 1, 8))),
    ):
        yield Upload(f"TIFF of {name}", tiff(*entries, data=bytes(200)), UNREADABLE)
        swapped = tiff(*entries, data=bytes(200), order=">")
        yield Upload(f"TIFF of {name}, big end", swapped, UNREADABLE)
    for at in (2**32 - 1, 4, 0):
        data = b"II*\0" + struct.pack("<L", at) + bytes(100)
        yield Upload(f"TIFF whose tags are at {at}", data, UNREADABLE)
    tall = struct.pack("<HHL", 256, 4, 1) + b"\xff" * 4
    yield Upload("TIFF of 65,535 tags", b"II*\0\x08\0\0\0\xff\xff" + tall * 65_535, UNREADABLE)
    big = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + struct.pack("<Q", 2**63) + bytes(100)
    yield Upload("BigTIFF of 2**63 tags", big, UNREADABLE)
    for bits in (0, 3, 5, 64, 65_535):
        yield Upload(f"BMP of {bits} bits", bmp(64, 64, bits=bits, data=bytes(9_000)), UNREADABLE)
    for compression in (4, 5, 9, 2**32 - 1):
        data = bmp(64, 64, compression=compression, data=bytes(64 * 64 * 3))
        yield Upload(f"BMP of compression {compression}", data, UNREADABLE)
    rle = bmp(6_000, 6_000, bits=8, compression=1, data=b"\0\0" * 6_000 + b"\0\1")
    yield Upload("BMP of lines that end at once", rle, DAMAGED)
    yield Upload(
        "BMP with a short header", b"BM" + struct.pack("<LHHLL", 99, 0, 0, 54, 7), UNREADABLE
    )
    yield Upload("GIF with no frame", gif((64, 64), (1, 1), b"")[:19] + b";", UNREADABLE)
    yield Upload("GIF of codes that are none", gif((64, 64), (64, 64), b"\xff" * 500), DAMAGED)
    bits = bytearray(gif((64, 64), (64, 64), b"\x44\x01"))
    bits[29] = 200
    yield Upload("GIF of codes of 200 bits", bytes(bits), DAMAGED)
    for name, chunks in (
        ("no chunk", ()),
        ("a canvas and no picture", (canvas(64, 64),)),
        ("only EXIF", ((b"EXIF", exif()),)),
        ("an empty VP8", ((b"VP8 ", b""),)),
        ("an empty VP8L", ((b"VP8L", b""),)),
        ("a VP8 that is none", ((b"VP8 ", bytes(100)),)),
        ("a VP8L that is none", ((b"VP8L", b"\x2f" + b"\xff" * 100),)),
        ("an animation of nothing", ((b"VP8X", b"\2" + bytes(9)), (b"ANIM", bytes(6)))),
    ):
        yield Upload(f"WebP of {name}", riff(*chunks), UNREADABLE + TOO_LARGE)


def odd() -> Iterator[Upload]:
    """Pictures whose values cannot be shown."""
    for name, picture in (
        ("half", Image.new("F", (64, 64), 0.5)),
        ("huge", Image.new("F", (64, 64), 1e38)),
        ("no number", Image.new("F", (64, 64), float("nan"))),
        ("infinite", Image.new("F", (64, 64), float("inf"))),
        ("negative", Image.new("I", (64, 64), -1)),
        ("17 bits", Image.new("I", (64, 64), 70_000)),
    ):
        yield Upload(f"TIFF of values that are {name}", encoded(picture, "TIFF"), UNKNOWN)


def without(jpeg: bytes, marker: bytes) -> bytes:
    """A JPEG without any segment of a marker."""
    while (place := jpeg.find(marker)) >= 0:
        (length,) = struct.unpack_from(">H", jpeg, place + 2)
        jpeg = jpeg[:place] + jpeg[place + 2 + length :]
    return jpeg


def filtered(kind: int) -> bytes:
    return zlib.compress((bytes([kind]) + bytes(64)) * 64)


# Uploads that are pictures all the same


def harmless() -> list[tuple[str, bytes, bytes]]:
    """Pictures that carry something besides: the name, the whole, and the picture alone."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("evil.sh", "rm -rf /")
    archived, picture = stream.getvalue(), noise()
    whole = encoded(picture, "PNG")
    text, idats = chunk(b"tEXt", b"Comment\0" + SCRIPT), chunk(b"IDAT", b"") * 1_000
    loop = exif((0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8))
    far = exif((0x0112, 3, 2**32 - 1, 2**32 - 1), (0x010F, 7, 60_000, 0))
    shared = b"".join(struct.pack("<HHLL", 1_000 + n, 7, 60_000, 0) for n in range(4_000))
    many = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 4_000) + shared + bytes(12_000)
    raw = f"\nexif\n{len(many)}\n{many.hex()}".encode()
    profile = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw))
    webp = encoded(picture, "WEBP")
    bomb = zlib.compress(bytes(100_000_000))
    texts = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000))) * 80
    bombs = {
        "zTXt": chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb),
        "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        "iCCP": chunk(b"iCCP", b"icc\0\0" + bomb),
        "80 texts": texts,
    }
    files = {
        **{f"PNG with {name}": whole[:33] + each + whole[33:] for name, each in bombs.items()},
        "JPEG and a zip": jpeg_with(after=archived),
        "JPEG and a script": jpeg_with(after=SCRIPT),
        "JPEG and 100,000 scans": jpeg_with(after=b"\xff\xda" * 100_000),
        "JPEG with a script in a comment": jpeg_with(segment(0xFE, SCRIPT)),
        "JPEG with EXIF that is none": jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(1_000))),
        "JPEG with EXIF of 64 KB": jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(65_000))),
        "JPEG with EXIF that loops": jpeg_with(segment(0xE1, loop)),
        "JPEG with EXIF of 4 GB": jpeg_with(segment(0xE1, far)),
        "JPEG with EXIF that shares its data": jpeg_with(segment(0xE1, many)),
        "PNG and a zip": whole + archived,
        "PNG with a script": whole[:33] + text + whole[33:],
        "PNG with 1,000 empty chunks": whole[:33] + idats + whole[33:],
        "PNG with EXIF that shares its data": whole[:33] + chunk(b"eXIf", many) + whole[33:],
        "PNG with EXIF as text": whole[:33] + profile + whole[33:],
        "GIF and a script": encoded(picture, "GIF") + b"/*" + SCRIPT + b"*/=1;",
        "BMP and a zip": encoded(picture, "BMP") + archived,
        "WebP and a zip": webp + archived,
        "WebP with EXIF that shares its data": encoded(picture, "WEBP", exif=many),
        "TIFF and a zip": encoded(picture, "TIFF") + archived,
    }
    plain = {kind: encoded(picture, kind) for kind in KINDS} | {"WebP": webp}
    return [(name, data, plain[name.split()[0]]) for name, data in files.items()]
