"""Pictures: from what a caller holds to the pixels a contract asks for.

Pure functions. Scaling, mean and std are not here: they are inside the ONNX graph.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from wanwu import contract as _contract
from wanwu.errors import ImageError

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]"
Pixels: TypeAlias = "npt.NDArray[np.uint8]"

#: A picture of more pixels than this is refused before it is decoded (64 megapixels).
MAX_PIXELS = 64_000_000

#: What is decoded. Pillow knows more formats, and hands one of them (EPS) to another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def to_pixels(
    source: ImageSource, geometry: _contract.Image, *, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """Decode a picture and bring it to the contract's geometry.

    Args:
        source: a path, encoded bytes, a PIL picture, or an array [H, W, 3] UINT8, RGB.
        geometry: the `image` part of a contract.
        max_pixels: refuse a picture of more pixels (width x height) before decoding it.

    Returns:
        UINT8 [height, width, 3], RGB.

    Raises:
        ImageError: the picture is missing, unreadable or too large.
    """
    return fit(open_rgb(source, max_pixels=max_pixels), geometry)


def open_rgb(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to RGB, upright (EXIF orientation applied); of an animation, frame one.

    Raises:
        ImageError: the picture is missing, unreadable or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        _check_size(source, "the picture", max_pixels)
        return _upright_rgb(source, "the picture")
    name, data = _read(source)
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); expected an encoded picture such as JPEG")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, name, max_pixels)
            return _upright_rgb(image, name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not a picture that can be read ({len(data)} bytes); "
            "expected JPEG, PNG, WebP, GIF, BMP or TIFF"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageError(
            f"{name} has too many pixels, the limit is {limit:,} ({error}); make it smaller, or "
            "raise max_pixels and, past 178 million, PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:
        # Pillow's decoders report a damaged file by whatever its bytes made them trip over.
        raise ImageError(
            f"{name} is damaged or cut short ({type(error).__name__}: {error}); send the whole file"
        ) from error


def fit(image: Image.Image, geometry: _contract.Image) -> Pixels:
    """Resize and crop an RGB picture to the contract's geometry: UINT8 [height, width, 3]."""
    size = (geometry.width, geometry.height)
    resample = _RESAMPLE[geometry.resample]
    if geometry.resize == "squash":
        return np.asarray(image.resize(size, resample))
    return np.asarray(image.resize(size, resample, box=_centre_box(image.size, geometry)))


def _centre_box(
    size: tuple[int, int], geometry: _contract.Image
) -> tuple[float, float, float, float]:
    """Give the part of the source that survives "resize the short edge, crop the centre".

    Resizing only that part gives the same pixels but for rounding, and a 1 x 10,000 picture
    needs no intermediate picture of hundreds of megapixels.
    """
    width, height = size
    short = geometry.shortest_edge
    assert short is not None  # noqa: S101 - the contract was validated
    if width <= height:
        resized = (short, int(short * height / width))
    else:
        resized = (int(short * width / height), short)
    x_scale, y_scale = width / resized[0], height / resized[1]
    left = (resized[0] - geometry.width) // 2
    top = (resized[1] - geometry.height) // 2
    return (
        left * x_scale,
        top * y_scale,
        (left + geometry.width) * x_scale,
        (top + geometry.height) * y_scale,
    )


def _read(source: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        return f"the picture of {len(source)} bytes", bytes(source)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"a picture cannot be made of {type(source).__name__}; "
            "expected a path, bytes, a PIL picture or an array [H, W, 3] of uint8"
        )
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{path} is a folder; name the picture files in it")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path} is not a regular file; expected a picture file")
        return str(path), path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"there is no file {path}; check the path") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {error}") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width}x{height} pixels; expected at least 1x1")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} is {width}x{height} = {width * height:,} pixels and the limit is "
            f"{max_pixels:,}; make it smaller, or raise max_pixels"
        )


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    # exif_transpose copies, so a PIL picture of the caller's stays as it was.
    return _to_rgb(ImageOps.exif_transpose(image), name)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255 and turn the picture white.
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise ImageError(
                f"{name} is a grey picture with values from {grey.min()} to {grey.max()}; "
                "expected 16 bits (0 to 65535); convert it to 8 or 16 bits"
            )
        return Image.fromarray((grey.astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(
            f"{name} holds 32-bit floating point values of unknown range; convert it to 8 bits"
        )
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ImageError(
            f"the array is {array.dtype} {list(array.shape)}; expected uint8 [H, W, 3], RGB"
        )
    height, width = array.shape[:2]
    if not 0 < height * width <= max_pixels:
        raise ImageError(
            f"the array is {width}x{height} = {width * height:,} pixels; "
            f"expected between 1 and {max_pixels:,}"
        )
    return Image.fromarray(array)
