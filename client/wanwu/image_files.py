"""Encoded pictures: opened within limits, and what is wrong with one said in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from wanwu.catalog import Message, byte_size
from wanwu.errors import ImageError
from wanwu.image_metadata import bare, exif_orientation
from wanwu.image_parts import Directory, Stream, check_parts, jpeg_markers

#: A picture of more pixels than this is refused before it is decoded (64 megapixels).
MAX_PIXELS = 64_000_000

#: No side may be longer: Pillow spends as much on a row of one pixel as on one of eight.
MAX_SIDE = 200_000

#: What is decoded, where this Pillow has it, and how people write it. Pillow knows more formats,
#: and hands one of them (EPS) to another program.
_NAMES = {
    **{"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF"},
    **{"AVIF": "AVIF", "JPEG2000": "JPEG 2000"},
}
_FEATURES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
_SUPPORTED = set(features.get_supported())
FORMATS = tuple(name for name in _NAMES if name not in _FEATURES or _FEATURES[name] in _SUPPORTED)

#: Formats whose decoders take twice the memory of the others: they may have half as many pixels.
_LARGE = ("AVIF", "JPEG2000")

_MAGICS = {
    **{b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP"},
    **{b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF"},
    **{b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000"},
}
#: In the first box of a file: what kind of HEIF it is.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
#: What Pillow's errors say where it, and not the file, is at fault.
_LACKING = ("unsupported", "not supported", "not yet supported", "not available", "not installed")
#: Frames of a JPEG that libjpeg does not decode.
_FOREIGN_FRAMES = (b"\xc5", b"\xc6", b"\xc7", b"\xcd", b"\xce", b"\xcf")
_COMPRESSION = 259
#: How a TIFF may be compressed that Pillow's libtiff decodes.
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32_773, 32_946, 34_925, 50_000)


class UnknownFormatError(ImageError):
    """The bytes are no picture of a format, or of a kind, that can be read here."""


class TooLargeError(ImageError):
    """The picture has too many pixels; `width` and `height` tell how many, where its header did."""

    def __init__(
        self, message: str, limit: int, width: int | None = None, height: int | None = None
    ) -> None:
        super().__init__(message)
        self.limit, self.width, self.height = limit, width, height


@dataclass(frozen=True)
class Opened:
    """A picture whose header was read, its bytes without metadata, and its EXIF orientation."""

    image: Image.Image
    data: bytes
    orientation: int


@contextmanager
def opened(data: bytes, name: str, max_pixels: int) -> Iterator[Opened]:
    """Open a picture's header, and tell whatever goes wrong with it by an ImageError."""
    if not data:
        raise ImageError("{0} is empty; expected an encoded picture such as JPEG", name)
    stream = Stream()
    try:
        check_parts(data, name)
        kept, orientation = bare(data)
        stream = Stream(kept)
        with Image.open(stream, formats=FORMATS) as image:
            check_size(image, name, max_pixels)
            if image.format == "AVIF":  # Pillow writes EXIF of what the file says besides
                orientation = exif_orientation(image.info.get("exif", b"")) or 1
            yield Opened(image, kept, orientation)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise TooLargeError(
            Message(
                "{0} has too many pixels, the limit is {1}; make it smaller, or raise max_pixels "
                "and, past 178 million, PIL.Image.MAX_IMAGE_PIXELS",
                name,
                f"{limit:,}",
            ),
            limit,
        ) from error
    except Exception as error:
        # Pillow reports a damaged file by whatever its bytes made it trip over.
        raise _failure(error, data, name, cut=stream.short) from error


def _failure(error: Exception, data: bytes, name: str, *, cut: bool) -> ImageError:
    brands = _brands(data)
    if not brands.isdisjoint(_HEIC_BRANDS) and brands.isdisjoint(_AVIF_BRANDS):
        return UnknownFormatError(
            "{0} is HEIC, which cannot be read here; save it as JPEG (an iPhone does so by "
            "Settings, Camera, Formats, Most Compatible)",
            name,
        )
    kind = _kind(data, brands)
    unidentified = isinstance(error, UnidentifiedImageError)
    if kind is None and unidentified:
        return UnknownFormatError(
            "{0} is not a picture that can be read ({1}); expected one of {2}",
            name,
            byte_size(len(data)),
            ", ".join(_NAMES[each] for each in FORMATS),
        )
    lacking = any(each in str(error).lower() for each in _LACKING) or _is_foreign(data)
    if lacking or (unidentified and not cut and not _boxes_are_cut(data)):
        return UnknownFormatError(
            "{0} is of a kind of {1} that cannot be read here; save it as an ordinary JPEG or PNG",
            name,
            kind or "picture",
        )
    return cut_short(name)


def cut_short(name: str) -> ImageError:
    """Return the error of a picture whose pixels are not all there."""
    return ImageError("{0} is damaged or cut short; send the whole file", name)


def _kind(data: bytes, brands: set[bytes]) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if not brands.isdisjoint(_AVIF_BRANDS):
        return "AVIF"
    return next((kind for magic, kind in _MAGICS.items() if data.startswith(magic)), None)


def _brands(data: bytes) -> set[bytes]:
    """Return the brands that a file of boxes names in its first."""
    if data[4:8] != b"ftyp":
        return set()
    box = data[8 : min(int.from_bytes(data[:4], "big"), 1_000)]
    return {box[place : place + 4] for place in range(0, len(box), 4)}


def _boxes_are_cut(data: bytes) -> bool:
    """Tell whether a file of boxes, such as an AVIF, ends before its last box does."""
    place = 0 if data[4:8] in (b"ftyp", b"jP  ") else len(data)
    for _ in range(100):
        size = int.from_bytes(data[place : place + 4], "big")
        if size < 8 or len(data) - place < 8:
            break
        place += size
    return place != len(data) and place + 8 > len(data)


def _is_foreign(data: bytes) -> bool:
    """Tell whether a picture is compressed in a way that its library does not know."""
    for tag, entry in Directory.first(data).entries():
        if tag == _COMPRESSION:
            return entry.value not in _COMPRESSIONS
    return any(marker in _FOREIGN_FRAMES for marker, _ in jpeg_markers(data))


def check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse a picture of no pixels or of too many."""
    width, height = image.size
    if image.format in _LARGE:
        max_pixels //= 2
    if width < 1 or height < 1:
        raise ImageError("{0} is {1}x{2} pixels; expected at least 1x1", name, width, height)
    if width * height > max_pixels:
        raise TooLargeError(
            Message(
                "{0} is {1}x{2} = {3} pixels and the limit is {4}; make it smaller, or raise "
                "max_pixels",
                name,
                width,
                height,
                f"{width * height:,}",
                f"{max_pixels:,}",
            ),
            max_pixels,
            width,
            height,
        )
    if max(width, height) > MAX_SIDE:
        raise TooLargeError(
            Message(
                "{0} is {1}x{2} pixels and the limit of a side is {3}; cut it",
                name,
                width,
                height,
                f"{MAX_SIDE:,}",
            ),
            max_pixels,
            width,
            height,
        )
    if isinstance(image, TiffImageFile):
        tile = image.tag_v2.get(TILEWIDTH, 0), image.tag_v2.get(TILELENGTH, 0)
        # libtiff holds a whole tile, however small the picture that is cut from it.
        if tile[0] * tile[1] > max_pixels:
            raise TooLargeError(
                Message(
                    "{0} has tiles of {1}x{2} pixels and the limit is {3}; save it with "
                    "smaller ones",
                    name,
                    tile[0],
                    tile[1],
                    f"{max_pixels:,}",
                ),
                max_pixels,
                width,
                height,
            )
