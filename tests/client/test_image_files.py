"""Encoded pictures: what is wrong beside their pixels does not matter, and what is missing does."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support import hostile
from support.hostile import chunk, encoded, exif, jpeg_with, noise, png, segment
from wanwu import ImageError
from wanwu.contract import Image as Geometry
from wanwu.image_files import FORMATS, TooLargeError, UnknownFormatError
from wanwu.images import open_rgb, to_pixels

PICTURE = noise()
CUT = "is damaged or cut short; send the whole file"
#: Each format that is read, and how it is written.
WRITTEN: dict[str, dict[str, Any]] = {
    "JPEG": {},
    "JPEG, progressive": {"progressive": True},
    "PNG": {},
    "WEBP": {},
    "WEBP, lossless": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "TIFF, LZW": {"compression": "tiff_lzw"},
    "TIFF, deflate": {"compression": "tiff_adobe_deflate"},
    "AVIF": {},
    "JPEG2000": {},
}


def written(name: str, picture: Image.Image = PICTURE) -> bytes:
    return encoded(picture, name.partition(",")[0], **WRITTEN[name])


def decode_every_pixel(data: bytes) -> np.ndarray:
    return np.asarray(open_rgb(data))


def decode_fewer_pixels(data: bytes) -> np.ndarray:
    return to_pixels(data, Geometry(height=1, width=1, resize="squash", resample="bicubic"))


DECODERS = pytest.mark.parametrize("decode", [decode_every_pixel, decode_fewer_pixels])


def assert_read_as(data: bytes, plain: bytes) -> None:
    for decode in (decode_every_pixel, decode_fewer_pixels):
        assert np.array_equal(decode(data), decode(plain))


# Metadata


@cache
def whole_with_metadata() -> dict[str, tuple[bytes, bytes]]:
    """Whole pictures with metadata that Pillow refuses, and each as it is without."""
    jpeg, plain, webp = (encoded(PICTURE, kind) for kind in ("JPEG", "PNG", "WEBP"))
    large = zlib.compress(bytes(100_000_000))
    files = {
        f"JPEG with APP{number} of {content!r}": (
            jpeg_with(segment(0xE0 + number, content)),
            jpeg,
        )
        for number, content in (
            *((0, b"JFIF"), (2, b"ICC_PROFILE\0"), (2, b"MPF\0"), (14, b"Adobe")),
            *((13, b"Photoshop 3.0\x008BIM\x03\xed"), (1, b"Exif\0\0junk")),
        )
    }
    for name, each in (
        ("a text of 100 MB", chunk(b"zTXt", b"Raw profile type xmp\0\0" + large)),
        ("EXIF of 100 MB", chunk(b"zTXt", b"Raw profile type exif\0\0" + large)),
        ("XMP of 100 MB", chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + large)),
        ("a colour profile of 100 MB", chunk(b"iCCP", b"icc\0\0" + large)),
        ("80 texts", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6))) * 80),
        ("a text of a wrong sum", chunk(b"tEXt", b"a\0b")[:-4] + b"abcd"),
        ("half a gamma", chunk(b"gAMA", b"\0")),
        ("EXIF that is none", chunk(b"eXIf", b"junk")),
        ("frames that are none", chunk(b"acTL", bytes(8)) + chunk(b"fcTL", b"\0")),
    ):
        files[f"PNG with {name}"] = plain[:33] + each + plain[33:], plain
        files[f"PNG with {name} at its end"] = plain[:-12] + each + plain[-12:], plain
    files["PNG cut in a text"] = plain[:-12] + chunk(b"tEXt", bytes(99))[:50], plain
    exif_of_none = encoded(PICTURE, "WEBP", exif=b"Exif\0\0junkjunk")
    files["WebP with EXIF that is none"] = exif_of_none, webp
    files["WebP cut in its EXIF"] = exif_of_none[:-5], webp
    avif = encoded(PICTURE, "AVIF", exif=exif((0x0100, 3, 1, 9)))
    assert avif.count(b"II*\0") == 1
    files["AVIF with EXIF that is none"] = avif.replace(b"II*\0", b"junk"), avif
    pixels = bytes(range(64)) * 64
    tiff = hostile.grey_tiff(64, 64, data=pixels)
    for tag in (270, 700, 34_665, 34_675, 34_377):
        loop = hostile.grey_tiff(64, 64, (tag, 13, 2**31, 8), data=pixels)
        files[f"TIFF with tag {tag} that leads nowhere"] = loop, tiff
    return files


@pytest.mark.parametrize("name", whole_with_metadata())
def test_metadata_does_not_decide_whether_pixels_can_be_read(name: str) -> None:
    assert_read_as(*whole_with_metadata()[name])


def turned_in_every_way() -> dict[str, bytes]:
    """Pictures that lie on their side, as each place for metadata says it."""
    turn = exif((0x0112, 3, 1, 6))
    hexed = f"\nexif\n{len(turn):8}\n{turn.hex()}\n".encode()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    plain = encoded(PICTURE, "PNG")
    texts = {
        "PNG, eXIf": chunk(b"eXIf", turn[6:]),
        "PNG, EXIF as text": chunk(b"tEXt", b"Raw profile type exif\0" + hexed),
        "PNG, EXIF as packed text": chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexed)
        ),
        "PNG, XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "PNG, packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    }
    return {
        **{name: plain[:33] + each + plain[33:] for name, each in texts.items()},
        "WebP, EXIF": encoded(PICTURE, "WEBP", lossless=True, exif=turn),
        "WebP, XMP": encoded(PICTURE, "WEBP", lossless=True, xmp=xmp),
        "TIFF": encoded(PICTURE, "TIFF", tiffinfo={274: 6}),
    }


@pytest.mark.parametrize("name", turned_in_every_way())
def test_a_picture_is_upright_wherever_its_orientation_is_told(name: str) -> None:
    upright = np.asarray(PICTURE.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(open_rgb(turned_in_every_way()[name]), upright)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_a_lossy_picture_on_its_side_is_upright(kind: str) -> None:
    data = encoded(PICTURE, kind, exif=exif((0x0112, 3, 1, 6)))
    upright = open_rgb(encoded(PICTURE, kind)).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(open_rgb(data), upright)


# Ends


@pytest.mark.parametrize(
    ("name", "missing"),
    [("JPEG", 2), ("JPEG", 1), ("JPEG, progressive", 2), ("PNG", 12), ("PNG", 16), ("GIF", 1)],
)
def test_a_picture_that_lacks_its_end_marker_alone_is_read(name: str, missing: int) -> None:
    data = written(name)
    assert_read_as(data[:-missing], data)


@pytest.mark.parametrize("name", WRITTEN)
@DECODERS
def test_a_picture_cut_short_is_refused_in_the_same_words(decode: Any, name: str) -> None:
    data = written(name)
    for length in range(len(data) // 4, len(data) - 30, len(data) // 60):
        with pytest.raises(ImageError, match=CUT) as caught:
            decode(data[:length])
        assert not isinstance(caught.value, UnknownFormatError)


def test_a_progressive_jpeg_without_its_last_scan_and_end_is_refused() -> None:
    data = written("JPEG, progressive")
    for place in (place for place in range(len(data)) if data.startswith(b"\xff\xc4", place)):
        with pytest.raises(ImageError, match=CUT):
            open_rgb(data[:place])


@DECODERS
def test_a_jpeg_whose_data_ends_before_its_end_marker_is_refused(decode: Any) -> None:
    data = written("JPEG")
    decode(data)
    for length in range(len(data) // 2, len(data) - 200, 100):
        with pytest.raises(ImageError, match=CUT):
            decode(data[:length] + b"\xff\xd9")


def test_a_grey_jpeg_is_not_taken_for_one_that_ends_early() -> None:
    for mode, colour in (("L", 128), ("RGB", (128, 128, 128))):
        grey = encoded(Image.new(mode, (64, 64), colour), "JPEG")
        assert np.asarray(open_rgb(grey)).min() == 128


@pytest.mark.parametrize("rows", [1, 32, 63])
@DECODERS
def test_a_png_whose_data_has_fewer_rows_is_refused(decode: Any, rows: int) -> None:
    whole, short = (zlib.compress(bytes(65 * each)) for each in (64, rows))
    decode(png(64, 64, data=whole))  # black to its end
    with pytest.raises(ImageError, match=CUT):
        decode(png(64, 64, data=short))


def test_an_interlaced_png_is_read_whole_alone() -> None:
    def interlaced(width: int, height: int, missing: int) -> bytes:
        data = bytes(sum(map(sum, passes(width, height))) - missing)
        head = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 1)
        return b"".join(
            (
                png(1, 1)[:8],
                chunk(b"IHDR", head),
                chunk(b"IDAT", zlib.compress(data)),
                chunk(b"IEND", b""),
            )
        )

    def passes(width: int, height: int) -> list[list[int]]:
        steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4))
        every = (*steps, (1, 0, 2, 2), (0, 1, 1, 2))
        lines = ((len(range(x, width, dx)), len(range(y, height, dy))) for x, y, dx, dy in every)
        return [[1 + columns] * rows for columns, rows in lines if columns]

    for size in ((1, 1), (5, 1), (64, 64), (63, 33)):
        assert open_rgb(interlaced(*size, missing=0)).size == size
    for missing in (65, 65 * 10):
        with pytest.raises(ImageError, match=CUT):
            open_rgb(interlaced(64, 64, missing))


# What is not read


def heic(*brands: bytes) -> bytes:
    box = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return struct.pack(">L", 4 + len(box)) + box + bytes(200)


@pytest.mark.parametrize("brands", [(b"heic",), (b"mif1", b"heic"), (b"msf1", b"hevc")])
def test_heic_is_named_with_its_way_out(brands: tuple[bytes, ...]) -> None:
    with pytest.raises(UnknownFormatError, match=r"is HEIC.*save it as JPEG.*Most Compatible"):
        open_rgb(heic(*brands))


def twelve_bits() -> bytes:
    data = bytearray(written("JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def differential() -> bytes:
    data = bytearray(written("JPEG"))
    data[data.index(b"\xff\xc0") + 1] = 0xC5
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (twelve_bits(), "kind of JPEG"),
        (differential(), "kind of JPEG"),
        (hostile.grey_tiff(64, 64, data=bytes(4096), compression=50_001), "kind of TIFF"),
        (hostile.grey_tiff(64, 64, data=bytes(4096), compression=9_999), "kind of TIFF"),
        (hostile.bmp(64, 64, compression=5, data=bytes(12_288)), "kind of BMP"),
        (png(64, 64, bits=3), "kind of PNG"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating point"),
        (encoded(Image.new("I", (2, 2), 70_000), "TIFF"), "16 bits"),
        (b"\xff\x0a" + bytes(100), "not a picture that can be read"),
    ],
    ids=["12-bit", "differential", "WebP", "9999", "BMP", "PNG", "float", "17-bit", "JPEG XL"],
)
def test_what_the_library_lacks_is_not_told_as_damage(data: bytes, says: str) -> None:
    with pytest.raises(UnknownFormatError, match=says):
        open_rgb(data)


def test_no_text_of_pillow_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(written("JPEG")[:900])
    with pytest.raises(ImageError) as caught:
        open_rgb(tmp_path / "a.jpg")
    assert str(caught.value) == f"{tmp_path / 'a.jpg'} {CUT}"


# AVIF and JPEG 2000


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_a_newer_format_is_read(kind: str) -> None:
    assert kind in FORMATS
    orange = Image.new("RGB", (64, 48), (250, 120, 10))
    found = np.asarray(open_rgb(encoded(orange, kind)))
    assert found.shape == (48, 64, 3)
    assert np.abs(found.astype(int) - np.asarray(orange)).max() < 5


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_a_format_that_takes_much_memory_may_have_half_as_many_pixels(kind: str) -> None:
    data = encoded(PICTURE, kind)
    assert open_rgb(data, max_pixels=2 * 64 * 64).size == (64, 64)
    with pytest.raises(TooLargeError, match=r"4,096 pixels and the limit is 4,095") as caught:
        open_rgb(data, max_pixels=2 * 64 * 64 - 1)
    assert caught.value.limit == 4_095
