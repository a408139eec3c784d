"""Copies of an exported repository that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path


def with_queue(repository: Path, folder: Path, size: int) -> Path:
    """Copy a repository, with one image tower whose queue holds `size` requests.

    One, so that on two cores the callers do not take from it what they measure.
    """
    shutil.copytree(repository, folder)
    config = folder / "image_encoder" / "configs" / "embedded.pbtxt"
    text = config.read_text()
    for before, after in (
        ("max_queue_size: 512", f"max_queue_size: {size}"),
        ("kind: KIND_CPU count: 2", "kind: KIND_CPU count: 1"),
    ):
        assert before in text
        text = text.replace(before, after)
    config.write_text(text)
    return folder
