"""Copies of an exported repository that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path


def with_queue(repository: Path, folder: Path, size: int) -> Path:
    """Copy a repository, with an image tower whose queue holds `size` requests."""
    shutil.copytree(repository, folder)
    config = folder / "image_encoder" / "configs" / "embedded.pbtxt"
    text = config.read_text()
    assert "max_queue_size: 512" in text
    config.write_text(text.replace("max_queue_size: 512", f"max_queue_size: {size}"))
    return folder
