from __future__ import annotations

import io
import os
import resource
import struct
import time
import warnings
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from PIL import Image, ImageOps

from wanwu import ImageError
from wanwu.contract import Image as Geometry
from wanwu.images import fit, open_rgb, to_pixels
from wanwu.samples import cat_photo

ORIENTATION = 0x0112


def squash_to(height: int, width: int) -> Geometry:
    return Geometry(height=height, width=width, resize="squash", resample="bicubic")


def pad_to(height: int, width: int, **fields: Any) -> Geometry:
    return Geometry(height=height, width=width, resize="pad", resample="bicubic", **fields)


SQUASH = squash_to(8, 8)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises more pixels than its data holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def decode_every_pixel(source: Any, **options: Any) -> None:
    assert open_rgb(source, **options).mode == "RGB"


def decode_fewer_pixels(source: Any, **options: Any) -> None:
    """A JPEG is decoded at an eighth of its size."""
    assert to_pixels(source, squash_to(1, 1), **options).shape == (1, 1, 3)


DECODERS = pytest.mark.parametrize("decode", [decode_every_pixel, decode_fewer_pixels])


def rgb(source: Any) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in np.asarray(open_rgb(source)).reshape(-1, 3).tolist()]


# Bad pictures


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xe8\xbf\x99\xe4\xb8\x8d\xe6\x98\xaf\xe5\x9b\xbe", "not a picture"),
        (b"<html><body>404</body></html>", "not a picture"),
        (b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\x02\x02\x4c\x01\0;", "GIF"),
        (cat_photo()[:2000], "damaged or cut short"),
        (cat_photo()[:-2000], "damaged or cut short"),
        (encoded(noise(60, 40))[:3000], "damaged or cut short"),
        (encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floating point"),
        (encoded(Image.new("I", (2, 2), -1), "TIFF"), "16 bits"),
        (encoded(Image.new("I", (2, 2), 70_000), "TIFF"), "16 bits"),
    ],
    ids=["empty", "text", "html", "gif-0x0", "jpeg", "jpeg-end", "png", "float", "minus", "17-bit"],
)
@DECODERS
def test_bad_bytes_are_refused_with_the_reason(
    decode: Any, data: bytes, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)
    (tmp_path / "坏.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=rf"坏\.jpg.*{reason}"):
        decode(tmp_path / "坏.jpg")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@DECODERS
def test_a_picture_cut_anywhere_is_read_or_refused(decode: Any, kind: str) -> None:
    data = encoded(noise(16, 16), kind)
    for length in range(1, len(data), max(1, len(data) // 300)):
        try:
            decode(data[:length])
        except ImageError as error:
            assert "picture" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@DECODERS
@settings(max_examples=150, deadline=None, derandomize=True)
@given(changes=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=4))
def test_a_picture_with_changed_bytes_is_read_or_refused(
    decode: Any, kind: str, changes: list[tuple[int, int]]
) -> None:
    exif = turned(6)
    exif[0x010F] = "camera"
    data = bytearray(encoded(noise(16, 16), kind, exif=exif))
    for place, value in changes:
        data[place % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        try:
            decode(bytes(data), max_pixels=100_000)
        except ImageError as error:
            assert str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"BM" + b"\xff" * 60, "a BMP of an unknown header"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG cut in its first marker"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x05IHDRabcde\0\0\0\0", "a PNG with a short header"),
        (b"P6\n4x 30\n255\n", "a PPM with a letter in its size"),
        (encoded(noise(16, 16), "WEBP")[:40], "a WebP cut in its header"),
    ],
    ids=["BMP", "JPEG", "PNG", "PPM", "WebP"],
)
def test_a_picture_cut_or_broken_in_its_header_is_refused(header: bytes, what: str) -> None:
    with pytest.raises(ImageError, match="picture"):
        open_rgb(header)


@DECODERS
def test_a_picture_whose_exif_cannot_be_written_back_is_no_crash(decode: Any) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    exif += b"\x00\x01\x03\0\x01\0\0\0\x01\0\0\0" + b"\0" * 4
    for place in range(14, len(exif)):
        data = encoded(noise(8, 8), "JPEG", exif=exif[:place] + b"\x05" + exif[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                decode(data)
            except ImageError as error:
                assert str(error)  # noqa: PT017 - either outcome is right


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"there is no file .*没有\.jpg"):
        open_rgb(tmp_path / "没有.jpg")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        open_rgb(str(tmp_path))


def test_a_device_is_refused() -> None:
    with pytest.raises(ImageError, match="/dev/null is not a regular file"):
        open_rgb("/dev/null")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        open_rgb(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("path", ["a\0b.jpg", "x" * 5000, "\ud800.jpg"])
def test_a_path_that_cannot_be_one_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match=r"cannot be read|there is no file"):
        open_rgb(path)


@pytest.mark.parametrize("thing", [None, 3.5, ["a.jpg"], io.BytesIO(cat_photo())])
def test_an_object_of_another_type_is_refused_by_its_name(thing: Any) -> None:
    with pytest.raises(ImageError, match=f"made of {type(thing).__name__};"):
        open_rgb(thing)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_an_array_of_another_shape_or_type_is_refused(array: Any) -> None:
    with pytest.raises(ImageError, match=r"the array is .*expected"):
        open_rgb(array)


# Limits


@pytest.mark.parametrize("side", [8_001, 10_000, 30_000])
@DECODERS
def test_a_decompression_bomb_is_refused_from_its_header(decode: Any, side: int) -> None:
    bomb = png_claiming(side, side)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    # Its data is short, so decoding would have said "cut short".
    with pytest.raises(ImageError, match=r"limit (of|is) 64,000,000"):
        decode(bomb)
    assert time.monotonic() - started < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_the_limit_given_is_the_limit_told() -> None:
    with pytest.raises(ImageError) as caught:
        open_rgb(png_claiming(14_000, 14_000), max_pixels=1_000_000_000)
    assert "more pixels than the limit of 1,000,000,000" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [encoded(noise(10, 10)), noise(10, 10), np.asarray(noise(10, 10))],
    ids=["bytes", "PIL", "array"],
)
def test_max_pixels_holds_for_every_kind_of_source(source: Any) -> None:
    assert open_rgb(source, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match=r"10x10 = 100 pixels.*99"):
        to_pixels(source, SQUASH, max_pixels=99)


# Odd pictures, read right


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG"])
def test_a_one_pixel_picture_is_read(kind: str) -> None:
    pixels = to_pixels(encoded(Image.new("RGB", (1, 1), (255, 255, 255)), kind), SQUASH)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == 255).all()


def test_a_path_bytes_a_pil_picture_and_an_array_give_the_same_pixels(tmp_path: Path) -> None:
    picture = noise(30, 20)
    (tmp_path / "图.png").write_bytes(encoded(picture))
    sources = [str(tmp_path / "图.png"), tmp_path / "图.png", encoded(picture), picture]
    expected = to_pixels(np.asarray(picture), SQUASH)
    for source in (*sources, bytearray(encoded(picture)), memoryview(encoded(picture))):
        assert np.array_equal(to_pixels(source, SQUASH), expected)


def test_an_array_turned_in_memory_is_read_as_it_looks() -> None:
    values = np.asarray(noise(7, 5))
    for view in (values[::-1], values[:, ::2], values[:, :, ::-1], np.asfortranarray(values)):
        assert np.array_equal(np.asarray(open_rgb(view)), view)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (1, 1), 77), (77, 77, 77)),
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
        (Image.new("LA", (1, 1), (77, 10)), (77, 77, 77)),
        (Image.new("RGBA", (1, 1), (10, 20, 30, 128)), (10, 20, 30)),
        (Image.new("RGB", (1, 1), (10, 20, 30)).quantize(4), (10, 20, 30)),
    ],
    ids=["L", "1", "LA", "RGBA", "P"],
)
def test_a_picture_of_another_mode_is_read_in_its_colours(
    picture: Image.Image, expected: tuple[int, int, int]
) -> None:
    assert rgb(picture) == [expected]
    assert rgb(encoded(picture)) == [expected]


def test_a_palette_with_transparency_is_read_in_its_colours() -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for transparency in (1, bytes([255, 0, 128])):
        data = encoded(picture, transparency=transparency)
        assert rgb(data) == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_a_cmyk_jpeg_is_read_in_its_colours() -> None:
    cyan = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=95)
    assert np.abs(np.array(rgb(cyan)) - (0, 255, 255)).max() <= 3


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 255 * 128, 257 * 128, 65534, 65535]], np.uint16)
    grey = [pixel[0] for pixel in rgb(encoded(Image.fromarray(values)))]
    assert grey == [0, 1, 127, 128, 254, 255]
    assert rgb(Image.fromarray(values.astype(np.int32))) == [(g, g, g) for g in grey]


def test_sixteen_bit_grey_in_big_endian_is_read_the_same() -> None:
    values = np.array([[0, 257 * 5, 65535]], np.uint16)
    big = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    assert rgb(big) == [(0, 0, 0), (5, 5, 5), (255, 255, 255)]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert set(rgb(data)) == {(255, 0, 0)}


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Lay pixels out as EXIF defines each orientation: where row 0 and column 0 are seen."""
    turned = upright.transpose(1, 0, 2)
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_turned_by_exif_is_read_upright(orientation: int) -> None:
    upright = np.asarray(noise(6, 4))
    data = encoded(Image.fromarray(stored(upright, orientation)), exif=turned(orientation))
    assert np.array_equal(np.asarray(open_rgb(data)), upright)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_pil_picture_of_the_caller_stays_as_it_was(orientation: int) -> None:
    data = encoded(noise(6, 4).convert("RGBA"), exif=turned(orientation))
    with Image.open(io.BytesIO(data)) as picture:
        before = np.array(picture)
        result = open_rgb(picture)
        assert (picture.size, picture.mode) == ((6, 4), "RGBA")
        assert picture.getexif()[ORIENTATION] == orientation
        result.paste((0, 0, 0), (0, 0, *result.size))
        assert np.array_equal(np.asarray(picture), before)


def test_a_jpeg_the_caller_opened_is_still_decoded_in_full() -> None:
    with Image.open(io.BytesIO(encoded(noise(64, 48), "JPEG"))) as picture:
        to_pixels(picture, SQUASH)
        assert picture.size == (64, 48)


def test_the_array_of_the_caller_stays_as_it_was() -> None:
    array = np.array(noise(6, 4))
    result = open_rgb(array)
    result.paste((0, 0, 0), (0, 0, 6, 4))
    assert array.any()
    to_pixels(array, SQUASH)
    assert np.array_equal(array, np.asarray(noise(6, 4)))


# Geometry


def plainly(picture: Image.Image, geometry: Geometry) -> np.ndarray:
    """Resize, then crop or pad, as the models' own preprocessing does it."""
    resample = Image.Resampling[geometry.resample.upper()]
    target = (geometry.width, geometry.height)
    if geometry.resize == "squash":
        return np.asarray(picture.resize(target, resample))
    if geometry.resize == "pad":
        return np.asarray(ImageOps.pad(picture, target, resample, color=geometry.fill))
    short, (width, height) = geometry.shortest_edge, picture.size
    assert short is not None
    if width <= height:
        resized = picture.resize((short, int(short * height / width)), resample)
    else:
        resized = picture.resize((int(short * width / height), short), resample)
    left, top = (resized.width - geometry.width) // 2, (resized.height - geometry.height) // 2
    return np.asarray(resized.crop((left, top, left + geometry.width, top + geometry.height)))


def assert_alike(picture: Image.Image, geometry: Geometry) -> None:
    """Compare with Pillow, which picks the order of its two passes by their cost.

    Between the passes values are cut at 0 and 255, so at hard edges a few pixels differ by 2 or 3.
    A crop that is half a pixel off makes thousands differ.
    """
    fitted, expected = fit(picture, geometry), plainly(picture, geometry)
    assert fitted.shape == expected.shape == (geometry.height, geometry.width, 3)
    assert fitted.dtype == np.uint8
    difference = np.abs(fitted.astype(int) - expected.astype(int))
    assert difference.max() <= 3
    assert (difference > 1).mean() < 0.001


CAT = open_rgb(cat_photo())
GREY = noise(500, 500).point(lambda value: 96 + value // 4)  # every pixel another, no hard edge
SIZES = [(1, 1), (2, 3), (64, 64), (63, 65), (320, 180), (180, 320), (1920, 1080), (451, 300)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "hamming"])
@pytest.mark.parametrize(
    ("height", "width", "short"), [(64, 64, None), (64, 64, 64), (64, 64, 73), (50, 40, 57)]
)
def test_fitting_equals_resize_then_crop(
    size: tuple[int, int], resample: Any, height: int, width: int, short: int | None
) -> None:
    geometry = Geometry(
        height=height,
        width=width,
        resize="squash" if short is None else "shortest_edge",
        resample=resample,
        shortest_edge=short,
    )
    assert_alike(CAT.resize(size), geometry)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    crop=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    extra=st.integers(0, 40),
)
def test_shortest_edge_is_within_one_of_resize_then_crop_where_nothing_is_cut(
    size: tuple[int, int], crop: tuple[int, int], extra: int
) -> None:
    height, width = crop
    short = max(crop) + extra
    geometry = Geometry(
        height=height, width=width, resize="shortest_edge", resample="bicubic", shortest_edge=short
    )
    picture = GREY.crop((0, 0, *size))
    difference = fit(picture, geometry).astype(int) - plainly(picture, geometry).astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("resample", ["nearest", "box"])
def test_squash_takes_every_resample(resample: Any) -> None:
    geometry = Geometry(height=30, width=50, resize="squash", resample=resample)
    assert np.array_equal(fit(CAT, geometry), plainly(CAT, geometry))


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_a_picture_thin_as_a_thread_is_fitted(size: tuple[int, int], resize: Any) -> None:
    short = None if resize == "squash" else 16
    geometry = Geometry(height=16, width=16, resize=resize, resample="bicubic", shortest_edge=short)
    assert_alike(CAT.resize(size), geometry)


@pytest.mark.parametrize("fill", [None, (0, 0, 0), (255, 128, 1)])
@pytest.mark.parametrize(
    ("size", "height", "width"),
    [
        ((640, 320), 64, 64),
        ((320, 640), 64, 64),
        ((300, 300), 64, 64),
        ((100, 60), 40, 200),
        ((451, 300), 65, 97),
        ((7, 5), 224, 224),
        ((64, 64), 64, 64),
    ],
)
def test_padding_equals_pillows_where_the_rest_is_even(
    size: tuple[int, int], height: int, width: int, fill: Any
) -> None:
    geometry, picture = pad_to(height, width, fill=fill), CAT.resize(size)
    assert np.array_equal(fit(picture, geometry), plainly(picture, geometry))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    target=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_a_padded_picture_is_its_resized_self_in_the_middle(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    scale = min(Fraction(target[0], size[0]), Fraction(target[1], size[1]))
    width, height = (max(1, round(edge * scale)) for edge in size)
    left, top = (target[0] - width) // 2, (target[1] - height) // 2
    picture = GREY.crop((0, 0, *size))
    fitted = fit(picture, pad_to(target[1], target[0], fill=(1, 2, 3)))
    middle = fitted[top : top + height, left : left + width]
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    assert np.array_equal(middle, np.asarray(resized))
    assert (fitted == (1, 2, 3)).all(2).sum() == target[0] * target[1] - width * height


@pytest.mark.parametrize(("size", "height"), [((64, 51), 51), ((64, 61), 61), ((128, 101), 50)])
def test_padding_an_odd_rest_puts_the_odd_pixel_at_the_bottom(
    size: tuple[int, int], height: int
) -> None:
    filled = (fit(Image.new("RGB", size, "red"), pad_to(64, 64)) == (255, 0, 0)).all((1, 2))
    assert filled.sum() == height
    assert filled.argmax() == (64 - height) // 2


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1)])
def test_padding_leaves_at_least_one_line_of_a_thread(size: tuple[int, int]) -> None:
    fitted = fit(Image.new("RGB", size, "red"), pad_to(16, 16))
    assert (fitted == (255, 0, 0)).all(2).sum() == 16


@pytest.mark.parametrize("size", [(1, 40_000_002), (40_000_002, 1)])
def test_the_thinnest_picture_within_the_limit_is_fitted(size: tuple[int, int]) -> None:
    geometry = Geometry(
        height=224, width=224, resize="shortest_edge", resample="bicubic", shortest_edge=224
    )
    assert fit(Image.new("RGB", size, "red"), geometry).shape == (224, 224, 3)


def test_the_cat_is_fitted_as_pillow_does_it() -> None:
    for resize, short in (("squash", None), ("shortest_edge", 256)):
        geometry = Geometry(
            height=224, width=240, resize=resize, resample="bicubic", shortest_edge=short
        )
        assert_alike(open_rgb(cat_photo()), geometry)
        assert to_pixels(cat_photo(), geometry).std() > 20


def test_an_eps_file_is_not_handed_to_another_program(tmp_path: Path) -> None:
    eps = tmp_path / "photo.jpg"
    noise(10, 10).save(eps, format="EPS")
    with pytest.raises(ImageError, match="not a picture that can be read"):
        open_rgb(eps)


# Fewer pixels than are stored


def smooth_noise(width: int, height: int) -> Image.Image:
    """Light and colour that change as in a photograph: light finer than colour, little grain."""
    light = noise(-(-width // 16), -(-height // 16)).convert("L").resize((width, height))
    colour = noise(-(-width // 64), -(-height // 64), seed=1).resize((width, height))
    grain = np.random.default_rng(2).normal(0, 2, (height, width, 3))
    picture = np.asarray(Image.blend(light.convert("RGB"), colour, 0.4))
    return Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8))


# No edge is a multiple of 8, so that none is whole at a smaller scale.
SMOOTH = smooth_noise(1003, 761)
SMOOTH_16_BIT = Image.fromarray(np.asarray(SMOOTH.convert("L")).astype(np.uint16) * 257)
GEOMETRIES = [
    squash_to(30, 44),
    Geometry(height=44, width=36, resize="shortest_edge", resample="lanczos", shortest_edge=50),
    pad_to(44, 60),
]
BY_RESIZE = pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.resize)


def levels_apart(source: Any, geometry: Geometry) -> tuple[float, float]:
    """The largest and the mean difference from decoding every pixel."""
    exact = to_pixels(source, geometry, exact=True).astype(int)
    difference = np.abs(to_pixels(source, geometry).astype(int) - exact)
    return float(difference.max()), float(difference.mean())


def assert_near_exact(source: Any, geometry: Geometry) -> None:
    """An edge half a decoded pixel off makes a mean above 1 and a largest above 6."""
    largest, mean = levels_apart(source, geometry)
    assert largest <= 5
    assert mean < 0.8


@BY_RESIZE
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_of_fewer_pixels_is_near_the_exact_one(
    orientation: int, geometry: Geometry
) -> None:
    data = encoded(SMOOTH, "JPEG", quality=90, exif=turned(orientation))
    assert_near_exact(data, geometry)


@BY_RESIZE
@pytest.mark.parametrize(
    ("picture", "kind", "options"),
    [
        (SMOOTH, "JPEG", {"progressive": True}),
        (SMOOTH, "JPEG", {"subsampling": "4:4:4"}),
        (SMOOTH, "MPO", {"save_all": True, "append_images": [SMOOTH]}),
        (SMOOTH.convert("L"), "JPEG", {}),
        (SMOOTH.convert("CMYK"), "JPEG", {}),
        (SMOOTH, "PNG", {"exif": turned(6)}),
        (SMOOTH.convert("RGBA"), "PNG", {}),
        (SMOOTH_16_BIT, "PNG", {}),
        (SMOOTH, "WEBP", {"exif": turned(7)}),
        (SMOOTH, "TIFF", {"exif": turned(8)}),
        (SMOOTH, "BMP", {}),
    ],
)
def test_every_format_is_near_the_exact_one(
    picture: Image.Image, kind: str, options: dict[str, Any], geometry: Geometry
) -> None:
    assert_near_exact(encoded(picture, kind, **options), geometry)


@BY_RESIZE
@pytest.mark.parametrize("resample", ["bilinear", "hamming"])
def test_every_smooth_resample_is_near_the_exact_one(resample: Any, geometry: Geometry) -> None:
    data = encoded(SMOOTH, "JPEG", quality=90)
    assert_near_exact(data, structs.replace(geometry, resample=resample))


@pytest.mark.parametrize("resample", ["nearest", "box"])
def test_a_sharp_resample_takes_every_pixel(resample: Any) -> None:
    data = encoded(noise(640, 480), "JPEG")
    assert levels_apart(data, structs.replace(SQUASH, resample=resample)) == (0, 0)


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (3, 9_999), (9_999, 130)])
@BY_RESIZE
def test_a_jpeg_thin_as_a_thread_is_near_the_exact_one(
    size: tuple[int, int], geometry: Geometry
) -> None:
    """Pillow averages the last few pixels as if they were a whole block, so an edge may differ."""
    largest, mean = levels_apart(encoded(SMOOTH.resize(size), "JPEG"), geometry)
    assert largest <= 12
    assert mean < 0.8


@BY_RESIZE
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (60, 44), (87, 59)])
def test_a_small_jpeg_is_taken_as_it_is(size: tuple[int, int], geometry: Geometry) -> None:
    assert levels_apart(encoded(noise(*size), "JPEG"), geometry) == (0, 0)


@BY_RESIZE
def test_photographs_of_fewer_pixels_are_near_the_exact_ones(
    geometry: Geometry, shared_photos: Path
) -> None:
    """They are a third of a megapixel, so sharp; a few pixels on edges of colour are far off."""
    for photo in sorted(shared_photos.glob("*.jpg")):
        largest, mean = levels_apart(photo, geometry)
        assert largest <= 45, photo
        assert mean < 2, photo


@pytest.fixture
def decoded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The size of every picture that is resized from here on, as it was before."""
    sizes, resize = [], Image.Image.resize

    def spy(picture: Image.Image, *arguments: Any) -> Image.Image:
        sizes.append(picture.size)
        return resize(picture, *arguments)

    monkeypatch.setattr(Image.Image, "resize", spy)
    return sizes


@pytest.mark.parametrize(
    ("stored", "orientation", "geometry", "decoded"),
    [
        ((960, 768), 1, squash_to(32, 32), (120, 96)),
        ((960, 767), 1, squash_to(32, 32), (240, 192)),
        ((127, 640), 1, squash_to(32, 32), (127, 640)),
        ((1024, 512), 1, squash_to(64, 32), (512, 256)),
        ((1024, 512), 6, squash_to(64, 32), (128, 256)),
        ((1001, 514), 1, GEOMETRIES[1], (501, 257)),
        ((1001, 514), 5, GEOMETRIES[1], (257, 501)),
        ((1001, 514), 1, GEOMETRIES[2], (251, 129)),
        ((1001, 514), 8, GEOMETRIES[2], (129, 251)),
    ],
)
def test_a_jpeg_is_decoded_at_three_times_the_target_or_more(
    stored: tuple[int, int],
    orientation: int,
    geometry: Geometry,
    decoded: tuple[int, int],
    decoded_sizes: list[tuple[int, int]],
) -> None:
    to_pixels(encoded(Image.new("RGB", stored), "JPEG", exif=turned(orientation)), geometry)
    assert decoded_sizes == [decoded]


def test_the_first_picture_of_an_mpo_is_decoded_at_fewer_pixels(
    decoded_sizes: list[tuple[int, int]],
) -> None:
    frames = [Image.new("RGB", (960, 768), colour) for colour in ("red", "blue")]
    pixels = to_pixels(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]), SQUASH)
    assert decoded_sizes == [(120, 96)]
    assert pixels[0, 0, 0] > 250


def test_exact_decodes_every_pixel(decoded_sizes: list[tuple[int, int]]) -> None:
    data = encoded(noise(640, 512), "JPEG", exif=turned(6))
    pixels = to_pixels(data, SQUASH, exact=True)
    assert decoded_sizes == [(512, 640)]
    assert np.array_equal(pixels, plainly(open_rgb(data), SQUASH))
