"""The manifest of a model repository: what was exported, from what, and the hash of every file.

Export writes it last and atomically, so a repository with a manifest that its files match is whole.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

import msgspec

from wanwu.contract import Fingerprint, Model, Precision
from wanwu.errors import SetupError

VersionNumber = Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]*$")]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the manifest's parts."""


class File(_Part, frozen=True):
    """One published file."""

    sha256: str
    bytes: int


class Parity(_Part, frozen=True):
    """How far a tower's ONNX file is from its PyTorch original, over every batch size tried."""

    batches: tuple[int, ...]
    least_cosine: float


class Export(_Part, frozen=True):
    """One published version: every file of it, and where it came from."""

    fingerprint: Fingerprint
    model: Model
    precision: Precision
    sources: dict[str, str]
    tools: dict[str, str]
    parity: dict[str, Parity]
    files: dict[str, File]


class Manifest(_Part, frozen=True):
    """Every published version of a model repository, by version number."""

    schema_version: int = SCHEMA_VERSION
    exports: dict[VersionNumber, Export] = {}

    @property
    def newest(self) -> int:
        """The newest version's number, 0 when nothing is published."""
        return max(map(int, self.exports), default=0)


def read_manifest(repository: Path) -> Manifest | None:
    """Read a repository's manifest, or give None where there is none.

    Raises:
        SetupError: the file is no manifest.
    """
    path = repository / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read: {error}; remove it and export again") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise SetupError(
            f"{path} has schema version {manifest.schema_version} and this release reads "
            f"{SCHEMA_VERSION}; use the release that wrote it, or export into another folder"
        )
    return manifest


def write_manifest(repository: Path, manifest: Manifest) -> None:
    """Put a manifest in place in one step: readers see the old one or the new one."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2)
    staged = repository / f".{MANIFEST}.{os.getpid()}"
    staged.write_bytes(encoded + b"\n")
    staged.replace(repository / MANIFEST)


def check_repository(repository: Path) -> Export:
    """Check that the newest version is whole: every file there, of the size and hash published.

    Raises:
        SetupError: the folder or the manifest is missing, or a file is missing or differs.
    """
    if not repository.is_dir():
        raise SetupError(
            f"there is no model repository at {repository}; make one by "
            f"`wanwu export starter --output {repository}`, or name another by --model-repository"
        )
    manifest = read_manifest(repository)
    if manifest is None or not manifest.exports:
        raise SetupError(
            f"{repository} holds no exported model (no {MANIFEST}); "
            f"run `wanwu export starter --output {repository}`"
        )
    newest = manifest.exports[str(manifest.newest)]
    for name, published in newest.files.items():
        _check_file(repository / name, published)
    return newest


def describe_file(path: Path) -> File:
    """Give a file's size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return File(sha256=digest.hexdigest(), bytes=size)


def _check_file(path: Path, published: File) -> None:
    again = "the export was cut short or the file changed; export again"
    try:
        found = describe_file(path)
    except FileNotFoundError as error:
        raise SetupError(f"{path} is missing although {MANIFEST} lists it; {again}") from error
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error}; {again}") from error
    if found.bytes != published.bytes:
        raise SetupError(
            f"{path} has {found.bytes} bytes and {MANIFEST} says {published.bytes}; {again}"
        )
    if found.sha256 != published.sha256:
        raise SetupError(
            f"{path} has SHA-256 {found.sha256[:12]}… and {MANIFEST} says "
            f"{published.sha256[:12]}…; {again}"
        )
