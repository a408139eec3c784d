"""A checkpoint's image processor as the geometry a client applies and the scaling of the graph."""

from __future__ import annotations

from typing import Any

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
        raise _unsupported(f"resample is {settings.get('resample')!r}; expected 0 to 5")
    cropped = settings.get("do_center_crop", False)
    if "shortest_edge" in size and len(size) == 1:
        if not cropped or crop.keys() != {"height", "width"}:
            raise _unsupported(f"size is {size} without a crop to one height and width")
        return _image(
            height=crop["height"],
            width=crop["width"],
            resize="shortest_edge",
            shortest_edge=size["shortest_edge"],
            resample=resample,
        )
    if size.keys() != {"height", "width"}:
        raise _unsupported(f"size is {size}; expected height and width, or shortest_edge")
    if cropped and crop != size:
        raise _unsupported(f"pictures are squashed to {size} and then cropped to {crop}")
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
            raise _unsupported(f"{name} is {values!r}; expected three numbers, red green blue")
    if min(std) <= 0:
        raise _unsupported(f"image_std is {std}; expected three numbers above 0")
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
        raise _unsupported(str(error)) from error


def _unsupported(what: str) -> InputError:
    return InputError(
        f"the checkpoint's image processor cannot be served: {what}. A client resizes to one size "
        "(squash), or resizes the short edge and crops the centre"
    )
