"""Photographs to try Wanwu on: one of our own, and those of two well-known packages."""

from __future__ import annotations

import importlib.util
from importlib.resources import files
from pathlib import Path

from wanwu.errors import SetupError

INSTALL_DEMO = "pip install 'wanwu[demo]'"

_PHOTOS = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("sklearn", "datasets/images/china.jpg"),
)


def cat_photo() -> bytes:
    """Give the photograph of a cat that comes with Wanwu (CC0, see data/README.md)."""
    return files("wanwu").joinpath("data/cat.jpg").read_bytes()


def sample_photos() -> list[Path]:
    """Find the photographs that scikit-image and scikit-learn carry.

    Raises:
        SetupError: a package, or a photograph in it, is missing.
    """
    photos = []
    for package, name in _PHOTOS:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise SetupError(
                "the demo's photographs need package {0}; run: {1}", package, INSTALL_DEMO
            )
        photo = Path(found.origin).parent / name
        if not photo.is_file():
            raise SetupError(
                "package {0} carries no {1}; install the version in constraints.txt", package, name
            )
        photos.append(photo)
    return photos
