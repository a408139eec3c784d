"""Publish an export as the next version of a model repository: whole, or not at all.

Files are made in a staging folder beside their final place, moved by renaming, and the manifest
is written last. A version the manifest does not list was never published.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

from wanwu.bank import bank_model
from wanwu.errors import SetupError
from wanwu.repository import (
    Export,
    Manifest,
    Parity,
    check_repository,
    describe_file,
    read_manifest,
    write_manifest,
)
from wanwu_export.dual_tower import BankSource, DualTower
from wanwu_export.onnx_bank import write_bank
from wanwu_export.onnx_towers import (
    MAX_BATCH,
    image_example,
    text_example,
    write_image_encoder,
    write_text_encoder,
)
from wanwu_export.parity import check_parity

TOOLS = ("wanwu", "torch", "onnx", "onnxruntime", "onnxscript", "tokenizers")

Step = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """What an export did: the version it is served as, and whether it was there already."""

    version: int
    export: Export
    unchanged: bool


def publish(
    tower: DualTower, banks: Sequence[BankSource], repository: Path, *, step: Step
) -> Published:
    """Convert a model, check it, and publish it as the next version.

    An export of the same bytes as the newest version is not published again.

    Args:
        tower: the model.
        banks: its label banks; one is called `default`.
        repository: the model repository, made where there is none.
        step: told what is being done, for a progress display.

    Raises:
        SetupError: the repository cannot be written.
        ModelError: the ONNX files do not answer as the PyTorch towers do.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with _staging(repository) as staged:
            manifest = read_manifest(repository) or Manifest()
            version = manifest.newest + 1
            parity = _convert(tower, banks, staged, step)
            step("hash and publish")
            export = _describe(tower, staged, version, parity)
            _lay_out_configs(staged, repository)
            if _is_published(manifest, export, repository):
                return Published(manifest.newest, manifest.exports[str(manifest.newest)], True)
            _move(staged, repository, version)
            exports = {**manifest.exports, str(version): export}
            write_manifest(repository, Manifest(exports=exports))
    except OSError as error:
        raise SetupError(
            f"{repository} cannot be written: {error}; nothing was published. "
            "Check its permissions and the free space, or choose another --output"
        ) from error
    return Published(version, export, False)


def _convert(
    tower: DualTower, banks: Sequence[BankSource], staged: Path, step: Step
) -> dict[str, Parity]:
    step("image tower to ONNX")
    image_path = _model_file(staged, "image_encoder")
    image = write_image_encoder(tower, image_path)
    step("image tower against PyTorch")
    parity = {
        "image": check_parity(
            "image", image, image_path, lambda batch: image_example(tower, batch), MAX_BATCH
        )
    }
    step("text tower to ONNX")
    text_path = _model_file(staged, "text_encoder")
    text = write_text_encoder(tower, text_path)
    step("text tower against PyTorch")
    parity["text"] = check_parity(
        "text", text, text_path, lambda batch: text_example(tower, batch), MAX_BATCH
    )
    for bank in banks:
        step(f"label bank {bank.name}")
        write_bank(tower, bank, _model_file(staged, bank_model(bank.name)))
    return parity


def _model_file(staged: Path, model: str) -> Path:
    """Lay out one model's static configs in the staging folder and give its ONNX file's path."""
    source = static_configs() / ("label_bank" if model.startswith("label_bank") else model)
    folder = staged / model
    shutil.copytree(source / "configs", folder / "configs")
    shutil.copy(source / "config.pbtxt", folder / "config.pbtxt")
    (folder / "version").mkdir()
    shutil.copy(source / "model.py", folder / "version" / "model.py")
    return folder / "version" / "model.onnx"


def static_configs() -> Path:
    """Find the hand-written configs: in the installed package, else in the checkout."""
    package = Path(__file__).parent
    installed = package / "model_repository"
    return installed if installed.is_dir() else package.parents[1] / "model_repository"


def _describe(tower: DualTower, staged: Path, version: int, parity: dict[str, Parity]) -> Export:
    published = {}
    for model in sorted(path for path in staged.iterdir() if path.is_dir()):
        for path in sorted((model / "version").iterdir()):
            published[f"{model.name}/{version}/{path.name}"] = describe_file(path)
    return Export(
        fingerprint=tower.fingerprint(),
        model=tower.model,
        precision=tower.precision,
        sources=tower.sources,
        tools={tool: package_version(tool) for tool in TOOLS},
        parity=parity,
        files=published,
    )


def _is_published(manifest: Manifest, export: Export, repository: Path) -> bool:
    """Tell whether the newest version holds the same bytes, and is whole."""
    newest = manifest.exports.get(str(manifest.newest))
    if newest is None or _hashes(newest) != _hashes(export):
        return False
    try:
        check_repository(repository)
    except SetupError:
        return False
    return True


def _hashes(export: Export) -> dict[tuple[str, str], str]:
    hashes = {}
    for name, file in export.files.items():
        model, _, rest = name.partition("/")
        hashes[model, rest.partition("/")[2]] = file.sha256
    return hashes


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """Give an empty folder on the repository's own file system, to this export alone.

    Triton takes every folder of a repository for a model and skips what is not a number inside
    one, so the folder lies inside a model's.
    """
    with (repository / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupError(
                f"another export is writing to {repository}; wait for it, "
                "or choose another --output"
            ) from error
        staged = repository / "image_encoder" / ".staging"
        shutil.rmtree(staged, ignore_errors=True)  # of an export that was killed
        staged.mkdir(parents=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _lay_out_configs(staged: Path, repository: Path) -> None:
    """Put the static configs in place; those already there, perhaps edited, stay."""
    for model in staged.iterdir():
        for path in (model / "config.pbtxt", *(model / "configs").iterdir()):
            place = repository / path.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copyfile(path, place)


def _move(staged: Path, repository: Path, version: int) -> None:
    for model in sorted(staged.iterdir()):
        target = repository / model.name / str(version)
        # A folder the manifest does not list is what an interrupted export left behind.
        shutil.rmtree(target, ignore_errors=True)
        (model / "version").replace(target)
