"""Copies of an exported repository that a test may change."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from support.serving import profile


def with_queue(repository: Path, folder: Path, size: int, model: str = "image_encoder") -> Path:
    """Copy a repository, with a tower whose queue holds `size` requests."""
    shutil.copytree(repository, folder)
    config = folder / model / "configs" / f"{profile()}.pbtxt"
    text, changed = re.subn(r"max_queue_size: \d+", f"max_queue_size: {size}", config.read_text())
    assert changed == 1
    config.write_text(text)
    return folder
