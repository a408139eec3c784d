"""Environments of the peers: each has its own, made from the pins in `peers/NAME`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).with_name("peers")


def requirements(name: str) -> Path:
    """Give the file of a peer's pins."""
    return PEERS / name / "requirements.txt"


def pins(name: str) -> list[str]:
    """Give what a peer's environment holds."""
    return requirements(name).read_text().split()


def interpreter(name: str, folder: Path) -> Path:
    """Give the Python of a peer's environment, made first if it is not there or its pins changed.

    The folder ignores itself in git.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    home = folder / name
    python, mark = home / "bin" / "python", home / "pins.sha256"
    digest = hashlib.sha256(requirements(name).read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text() == digest:
        return python
    print(f"{name}: making {home}", file=sys.stderr, flush=True)
    venv.create(home, with_pip=True, clear=True)
    # Every package is pinned, so nothing is resolved anew, and nothing else comes in.
    install = ["install", "--quiet", "--no-deps", "--requirement", str(requirements(name))]
    command = [str(python), "-m", "pip", *install]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"the environment of {name} could not be made; `{' '.join(command)}` said:\n"
            f"{done.stderr[-2000:]}\nmake it possible, or leave the system out by --only"
        )
    mark.write_text(digest)
    return python
