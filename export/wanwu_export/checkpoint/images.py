"""A checkpoint's image processor as the geometry a client applies and the scaling of the graph."""

from __future__ import annotations

from typing import Any

from wanwu.catalog import Message, message_of
from wanwu.contract import Image
from wanwu.errors import InputError
from wanwu_export.dual_tower import Scale

#: Pillow's numbers, which preprocessor_config.json uses.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def read_geometry(settings: dict[str, Any]) -> Image:
    """Read an image processor's settings (its `to_dict()`) as a contract's geometry.

    Raises:
        InputError: the processor does something a contract cannot say.
    """
    size, crop = _size(settings.get("size")), _size(settings.get("crop_size"))
    if not settings.get("do_resize", True):
        raise _unsupported("do_resize is false, so pictures of every size reach the tower")
    if settings.get("do_pad"):
        raise _unsupported("do_pad is true")
    resample = _RESAMPLE.get(settings.get("resample", -1))
    if resample is None:
        raise _unsupported(
            Message("resample is {0}; expected 0 to 5", repr(settings.get("resample")))
        )
    cropped = settings.get("do_center_crop", False)
    if "shortest_edge" in size and len(size) == 1:
        if not cropped or crop.keys() != {"height", "width"}:
            raise _unsupported(Message("size is {0} without a crop to one height and width", size))
        return _image(
            height=crop["height"],
            width=crop["width"],
            resize="shortest_edge",
            shortest_edge=size["shortest_edge"],
            resample=resample,
        )
    if size.keys() != {"height", "width"}:
        raise _unsupported(
            Message("size is {0}; expected height and width, or shortest_edge", size)
        )
    if cropped and crop != size:
        raise _unsupported(
            Message("pictures are squashed to {0} and then cropped to {1}", size, crop)
        )
    return _image(height=size["height"], width=size["width"], resize="squash", resample=resample)


def read_scale(settings: dict[str, Any]) -> Scale:
    """Read an image processor's settings as the scaling that goes into the graph.

    Raises:
        InputError: mean and std are not three numbers each.
    """
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    mean: Any = [0.0] * 3
    std: Any = [1.0] * 3
    if settings.get("do_normalize", True):
        mean, std = settings.get("image_mean"), settings.get("image_std")
    for name, values in (("image_mean", mean), ("image_std", std)):
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise _unsupported(
                Message("{0} is {1}; expected three numbers, red green blue", name, repr(values))
            )
    if min(std) <= 0:
        raise _unsupported(Message("image_std is {0}; expected three numbers above 0", std))
    return Scale(float(factor), [float(value) for value in mean], [float(value) for value in std])


def _size(size: Any) -> dict[str, int]:
    """Give a size as a dictionary of the numbers it holds; an int is a square."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    return {key: int(value) for key, value in dict(size or {}).items() if value is not None}


def _image(**fields: Any) -> Image:
    try:
        return Image(**fields)
    except ValueError as error:
        raise _unsupported(message_of(error)) from error


def _unsupported(what: str) -> InputError:
    return InputError(
        "the checkpoint's image processor cannot be served: {0}. A client resizes to one size "
        "(squash), or resizes the short edge and crops the centre",
        what,
    )
