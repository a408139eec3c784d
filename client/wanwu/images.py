"""Pictures: from what a caller holds to the pixels a contract asks for.

Pure functions. Scaling, mean and std are not here: they are inside the ONNX graph.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from wanwu import contract as _contract
from wanwu.catalog import Message, byte_size
from wanwu.errors import ImageError
from wanwu.image_ends import ended_jpeg, lacks_pixels
from wanwu.image_files import (
    MAX_PIXELS,
    Opened,
    UnknownFormatError,
    check_size,
    cut_short,
    opened,
)
from wanwu.image_parts import JPEG

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]"
Pixels: TypeAlias = "npt.NDArray[np.uint8]"
_Box: TypeAlias = tuple[float, float, float, float]
_Number = TypeVar("_Number", int, float)

#: A JPEG is decoded at this many times the size asked for, or more (docs/decisions/0010).
DRAFT = 3

#: Pillow averages whole pixels until the picture is this many times what is asked for.
_REDUCING_GAP = 3.0


#: What these take depends on each pixel's exact place, so every pixel is decoded for them.
_SHARP = ("nearest", "box")

#: What brings a picture upright, by its EXIF orientation.
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def to_pixels(
    source: ImageSource,
    geometry: _contract.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    exact: bool = False,
) -> Pixels:
    """Decode a picture and bring it to the contract's geometry.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, as long as that is DRAFT times what the
    contract asks for in both directions; any other large picture is averaged over whole pixels
    before it is resized. A photograph of 12 megapixels at 224 x 224 comes out a few of 255 levels
    from `exact`, at most. A picture that PIL has opened is not decoded by us, nor made smaller.

    Args:
        source: a path, encoded bytes, a PIL picture, or an array [H, W, 3] UINT8, RGB.
        geometry: the `image` part of a contract.
        max_pixels: refuse a picture of more pixels (width x height) before decoding it.
        exact: decode and resize every pixel, for comparing with another implementation.

    Returns:
        UINT8 [height, width, 3], RGB.

    Raises:
        ImageError: the picture is missing, unreadable or too large.
    """
    if exact or geometry.resample in _SHARP:
        return fit(open_rgb(source, max_pixels=max_pixels), geometry)
    picture, filled = _open(source, max_pixels, geometry)
    return _fit(picture, filled, geometry, reducing_gap=_REDUCING_GAP)


def header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int]:
    """Read the format, width and height of an encoded picture, and decode nothing of it.

    Raises:
        ImageError: it is no picture, or too large; a damaged one may only show when decoded.
    """
    with opened(data, _name(data), max_pixels) as found:
        return str(found.image.format), *found.image.size


def open_rgb(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to RGB, upright (EXIF orientation applied); of an animation, frame one.

    Raises:
        ImageError: the picture is missing, unreadable or too large.
    """
    return _open(source, max_pixels, None)[0]


def fit(image: Image.Image, geometry: _contract.Image) -> Pixels:
    """Resize an RGB picture, and crop or pad it, as the contract says: UINT8 [height, width, 3]."""
    return _fit(image, (0, 0, *image.size), geometry, reducing_gap=None)


def _open(
    source: ImageSource, max_pixels: int, geometry: _contract.Image | None
) -> tuple[Image.Image, _Box]:
    """Give a picture upright in RGB, and which part of it is the picture.

    With a geometry a JPEG may be smaller than it is stored: see `_draft`.
    """
    if isinstance(source, np.ndarray):
        return _whole(_from_array(source, max_pixels))
    if isinstance(source, Image.Image):
        check_size(source, "the picture", max_pixels)
        # This copies, so that the caller's picture stays as it was.
        return _whole(_to_rgb(ImageOps.exif_transpose(source), "the picture"))
    name, data = _read(source)
    with opened(data, name, max_pixels) as found:
        try:
            return _decoded(found, name, geometry)
        except OSError:
            ended = ended_jpeg(found.data) if found.data.startswith(JPEG) else None
            if ended is None:
                raise
    with opened(ended, name, max_pixels) as whole:
        return _decoded(replace(whole, orientation=found.orientation), name, geometry)


def _decoded(
    found: Opened, name: str, geometry: _contract.Image | None
) -> tuple[Image.Image, _Box]:
    """Decode a picture, and refuse it if pixels are missing."""
    image = found.image
    filled: _Box | None = None
    if geometry is not None and isinstance(image, JpegImageFile):
        filled = _draft(image, geometry, found.orientation)
    image.load()
    if lacks_pixels(image, found.data):
        raise cut_short(name)
    rgb = _to_rgb(image, name)
    method = _TRANSPOSE.get(found.orientation)
    upright = rgb if method is None else rgb.transpose(method)
    return upright, filled or (0, 0, *upright.size)


def _draft(image: JpegImageFile, geometry: _contract.Image, orientation: int) -> _Box:
    """Set the smallest scale at which a JPEG, not decoded yet, is DRAFT times what is asked for.

    Returns:
        The part of the upright picture that is the picture: a scaled edge that is not whole is
        rounded up, and what is past its end is no part of it.
    """
    on_its_side = orientation in (5, 6, 7, 8)
    wanted = _scaled_size(_turn(image.size, on_its_side), geometry)
    drafted = image.draft(None, _turn((DRAFT * wanted[0], DRAFT * wanted[1]), on_its_side))
    assert drafted is not None  # noqa: S101 - only a second call gives None
    width, height = _turn(drafted[1][2:], on_its_side)
    decoded = _turn(image.size, on_its_side)
    left = decoded[0] - width if orientation in (2, 3, 6, 7) else 0
    top = decoded[1] - height if orientation in (3, 4, 7, 8) else 0
    return left, top, left + width, top + height


def _turn(size: tuple[_Number, _Number], on_its_side: bool) -> tuple[_Number, _Number]:
    return (size[1], size[0]) if on_its_side else size


def _fit(
    image: Image.Image, filled: _Box, geometry: _contract.Image, *, reducing_gap: float | None
) -> Pixels:
    left, top, right, bottom = filled
    scaled = _scaled_size((right - left, bottom - top), geometry)
    resample = _RESAMPLE[geometry.resample]
    if geometry.resize == "shortest_edge":
        size = (geometry.width, geometry.height)
        box = _centre_box(filled, scaled, geometry)
        return np.asarray(image.resize(size, resample, box, reducing_gap))
    resized = image.resize(scaled, resample, filled, reducing_gap)
    if geometry.resize == "squash":
        return np.asarray(resized)
    padded = Image.new("RGB", (geometry.width, geometry.height), geometry.fill or (0, 0, 0))
    padded.paste(resized, ((geometry.width - scaled[0]) // 2, (geometry.height - scaled[1]) // 2))
    return np.asarray(padded)


def _scaled_size(size: tuple[float, float], geometry: _contract.Image) -> tuple[int, int]:
    """Give the width and height a whole picture is resized to, before it is cropped or padded."""
    width, height = size
    if geometry.resize == "squash":
        return geometry.width, geometry.height
    if geometry.resize == "pad":
        if geometry.width * height <= geometry.height * width:
            return geometry.width, max(1, round(height * geometry.width / width))
        return max(1, round(width * geometry.height / height)), geometry.height
    short = geometry.shortest_edge
    assert short is not None  # noqa: S101 - the contract was validated
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def _centre_box(filled: _Box, scaled: tuple[int, int], geometry: _contract.Image) -> _Box:
    """Give the part of the source that survives "resize the short edge, crop the centre".

    Resizing only that part gives the same pixels but for rounding, and a 1 x 10,000 picture
    needs no intermediate picture of hundreds of megapixels.
    """
    x, y, right, bottom = filled
    x_scale, y_scale = (right - x) / scaled[0], (bottom - y) / scaled[1]
    left = (scaled[0] - geometry.width) // 2
    top = (scaled[1] - geometry.height) // 2
    return (
        x + left * x_scale,
        y + top * y_scale,
        x + (left + geometry.width) * x_scale,
        y + (top + geometry.height) * y_scale,
    )


def _whole(image: Image.Image) -> tuple[Image.Image, _Box]:
    return image, (0, 0, *image.size)


def _name(data: bytes | bytearray | memoryview) -> str:
    return Message("the picture of {0}", byte_size(len(data)))


def _read(source: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        return _name(source), bytes(source)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            "a picture cannot be made of {0}; expected a path, bytes, a PIL picture or an array "
            "[H, W, 3] of uint8",
            type(source).__name__,
        )
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError("{0} is a folder; name the picture files in it", path)
        if not stat.S_ISREG(mode):
            raise ImageError("{0} is not a regular file; expected a picture file", path)
        return str(path), path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("there is no file {0}; check the path", path) from error
    except (OSError, ValueError) as error:
        raise ImageError("{0} cannot be read: {1}", path, error) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 and turn the picture white.
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise UnknownFormatError(
                "{0} is a grey picture with values from {1} to {2}; expected 16 bits (0 to "
                "65535); convert it to 8 or 16 bits",
                name,
                grey.min(),
                grey.max(),
            )
        return Image.fromarray((grey // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnknownFormatError(
            "{0} holds 32-bit floating point values of unknown range; convert it to 8 bits", name
        )
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    # Converting RGB to RGB would copy it.
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ImageError(
            "the array is {0} {1}; expected uint8 [H, W, 3], RGB", array.dtype, list(array.shape)
        )
    height, width = array.shape[:2]
    if not 0 < height * width <= max_pixels:
        raise ImageError(
            "the array is {0}x{1} = {2} pixels; expected between 1 and {3}",
            width,
            height,
            f"{width * height:,}",
            f"{max_pixels:,}",
        )
    return Image.fromarray(array)
