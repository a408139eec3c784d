"""The manifest of a model repository: what was exported, from what, and the hash of every file.

Export writes it last and atomically, so a repository with a manifest that its files match is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated

import msgspec

from wanwu.contract import Fingerprint, Model, Precision
from wanwu.errors import SetupError

VersionNumber = Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]*$")]

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

_VERSION = re.compile("[1-9][0-9]*")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the manifest's parts."""


class File(_Part, frozen=True):
    """One published file."""

    sha256: str
    bytes: int


# A release from before `device` reads what the CPU has compared.
class TowerParity(_Part, frozen=True, omit_defaults=True):
    """How far a tower's ONNX file is from its original: the least cosine of each kind of input.

    `device` is what the ONNX file ran on: `CPU`, or a GPU's name.
    """

    precision: str
    required_cosine: float
    batches: tuple[int, ...]
    cosines: dict[str, float]
    device: str = "CPU"

    @property
    def least_cosine(self) -> float:
        """The least cosine of any kind of input, at any batch size."""
        return min(self.cosines.values())


class Answers(_Part, frozen=True):
    """How the answers compare: every picture has the original's best label, or a tie with it."""

    pictures: int
    ties: int
    largest_difference: float


class Parity(_Part, frozen=True):
    """The parity gate's report. `towers` holds a check for FP32, and one for a lower precision."""

    pixel_levels: float
    towers: dict[str, tuple[TowerParity, ...]]
    answers: Answers


class BankRelease(_Part, frozen=True):
    """One bank of a release. `templates` is what was asked for, None for the model's own choice."""

    count: int
    digest: str
    templates: str | None = None


class Describe(_Part, frozen=True):
    """How a model's banks are described: its templates, and the weights beside a label's 1."""

    templates: str
    alias: float
    description: float
    broader: float


class Release(_Part, frozen=True):
    """What is served as of one version: the models, their files, and where they came from.

    `files` lists every file that is served, also those an earlier version brought: a new bank
    leaves the towers where they are.
    """

    what: str
    published: str
    fingerprint: Fingerprint
    model: Model
    precision: Precision
    sources: dict[str, str]
    tools: dict[str, str]
    parity: Parity
    describe: Describe
    banks: dict[str, BankRelease]
    files: dict[str, File]

    @property
    def served(self) -> dict[str, int]:
        """The version that each Triton model is served at."""
        return {model: int(version) for model, version, _ in map(_split, self.files)}


class Manifest(_Part, frozen=True):
    """Every kept release of a model repository, by version number."""

    schema_version: int = SCHEMA_VERSION
    releases: dict[VersionNumber, Release] = {}

    @property
    def newest(self) -> int:
        """The newest version's number, 0 when nothing is published."""
        return max(map(int, self.releases), default=0)


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
        raise SetupError(
            "{0} cannot be read: {1}; remove it and export again", path, error
        ) from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise SetupError(
            "{0} has schema version {1} and this release reads {2}; use the release that wrote "
            "it, or export into another folder",
            path,
            manifest.schema_version,
            SCHEMA_VERSION,
        )
    return manifest


def write_manifest(repository: Path, manifest: Manifest) -> None:
    """Put a manifest in place in one step: readers see the old one or the new one."""
    written = msgspec.json.encode(manifest, enc_hook=str, order="sorted")
    encoded = msgspec.json.format(written, indent=2)
    staged = repository / f".{MANIFEST}.{os.getpid()}"
    staged.write_bytes(encoded + b"\n")
    staged.replace(repository / MANIFEST)


def newest_release(repository: Path) -> Release:
    """Give what a repository serves.

    Raises:
        SetupError: the folder or the manifest is missing, or the manifest cannot be read.
    """
    if not repository.is_dir():
        raise SetupError(
            "there is no model repository at {0}; make one by `wanwu export starter --output "
            "{1}`, or name another by --model-repository",
            repository,
            repository,
        )
    manifest = read_manifest(repository)
    if manifest is None or not manifest.releases:
        raise SetupError(
            "{0} holds no exported model (no {1}); run `wanwu export starter --output {2}`",
            repository,
            MANIFEST,
            repository,
        )
    return manifest.releases[str(manifest.newest)]


def check_repository(repository: Path) -> Release:
    """Check that the newest release is whole, and that Triton would serve it and nothing newer.

    Raises:
        SetupError: the folder or the manifest is missing, a file is missing or differs, or an
            interrupted command left a version behind that no manifest lists.
    """
    newest = newest_release(repository)
    for name, published in newest.files.items():
        check_file(repository / name, published)
    for model, version in newest.served.items():
        stray = max(version_folders(repository / model), default=0)
        if stray > version:
            raise SetupError(
                "{0} was left by an interrupted command and Triton would serve it in place of "
                "version {1}; run `wanwu repository prune`, or repeat that command",
                repository / model / str(stray),
                version,
            )
    for folder in sorted(repository.glob("label_bank*")):
        if folder.is_dir() and folder.name not in newest.served:
            raise SetupError(
                "{0} is of no bank that is published and Triton would load it; run `wanwu "
                "repository prune`",
                folder,
            )
    return newest


def version_folders(model: Path) -> list[int]:
    """Give the version numbers that lie in a model's folder, in order."""
    found = model.iterdir() if model.is_dir() else ()
    return sorted(int(path.name) for path in found if _VERSION.fullmatch(path.name))


def describe_file(path: Path) -> File:
    """Give a file's size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
    return File(sha256=digest.hexdigest(), bytes=size)


def check_file(path: Path, published: File) -> None:
    """Check one file's size and SHA-256.

    Raises:
        SetupError: it is missing, or is not what was published.
    """
    again = "the export was cut short or the file changed; export again"
    try:
        found = describe_file(path)
    except FileNotFoundError as error:
        raise SetupError(
            "{0} is missing although {1} lists it; {2}", path, MANIFEST, again
        ) from error
    except OSError as error:
        raise SetupError("{0} cannot be read: {1}; {2}", path, error, again) from error
    if found.bytes != published.bytes:
        raise SetupError(
            "{0} has {1} bytes and {2} says {3}; {4}",
            path,
            found.bytes,
            MANIFEST,
            published.bytes,
            again,
        )
    if found.sha256 != published.sha256:
        raise SetupError(
            "{0} has SHA-256 {1}… and {2} says {3}…; {4}",
            path,
            found.sha256[:12],
            MANIFEST,
            published.sha256[:12],
            again,
        )


def _split(name: str) -> tuple[str, str, str]:
    """Split a published file's name into model, version and file."""
    model, version, file = name.split("/", 2)
    return model, version, file
