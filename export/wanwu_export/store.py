"""The model repository as a store of versions: each is published whole, or not at all.

Files are made in a staging folder beside their final place, moved by renaming, and the manifest
is written last. A version the manifest does not list was never published.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from wanwu.bank import bank_model
from wanwu.errors import ModelError, SetupError
from wanwu.repository import (
    MANIFEST,
    File,
    Manifest,
    Release,
    check_repository,
    describe_file,
    read_manifest,
    version_folders,
    write_manifest,
)
from wanwu_export.chart_values import write_chart_values
from wanwu_export.onnx_bank import read_bank

#: Releases kept by default, and models: the newest of each, and two to go back to.
KEEP = 3
MODEL_FILE = "model.onnx"
#: Locked by the one process that may write to a repository; removed only by its holder.
LOCK = ".lock"

Step = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """What a command did: the version that is served now, and whether it was there already."""

    version: int
    release: Release
    unchanged: bool


class Workshop:
    """A repository that this process alone may write, and its empty staging folder."""

    def __init__(self, repository: Path, staged: Path, manifest: Manifest) -> None:
        self.repository = repository
        self.staged = staged
        self.manifest = manifest

    @property
    def newest(self) -> Release | None:
        """What is served now; None in an empty repository."""
        return self.manifest.releases.get(str(self.manifest.newest))

    @property
    def work(self) -> Path:
        """Where half-made banks are kept, to be resumed."""
        return self.staged.with_name(".work")

    def stage(self, model: str) -> Path:
        """Lay out one model's static configs in the staging folder and give its version folder."""
        folder = self._stage_configs(model)
        shutil.copy(_static(model) / "model.py", folder / "model.py")
        return folder

    def stage_published(self, model: str, release: Release) -> None:
        """Stage a model as a release serves it: its files, and no other, under a second name."""
        folder = self._stage_configs(model)
        for name in release.files:
            owner, _, file = name.split("/", 2)
            if owner == model:
                link_file(self.repository / name, folder / file)

    def commit(self, draft: Release, *, keep: int, without: str | None = None) -> Published:
        """Publish what was staged as the next version, beside the models it leaves as they are.

        Args:
            draft: the release; its files and time are filled in here.
            keep: how many releases to keep, this one included; besides, the newest release of
                each of as many models is kept.
            without: a bank that is neither served any more nor kept in an older release: Triton
                loads every folder it finds.

        Returns:
            The version; the newest one, unchanged, where it holds the same bytes.

        Raises:
            ModelError: a bank is of another export than the towers.
            SetupError: it is published, but an old version cannot be removed.
            OSError: the repository cannot be written.
        """
        version = self.manifest.newest + 1
        staged = sorted(path.name for path in self.staged.iterdir())
        older = {
            number: _without_bank(release, without)
            for number, release in self.manifest.releases.items()
        }
        left = older[str(self.manifest.newest)].files if self.newest else {}
        release = msgspec.structs.replace(
            draft, files=self._files(left, staged, version), published=_now()
        )
        self._check_banks(release, staged)
        if self.newest and contents(release) == contents(self.newest) and self._is_whole():
            self._lay_out_configs()
            return Published(self.manifest.newest, self.newest, unchanged=True)
        try:
            self._lay_out_configs()
            self._move(staged, version)
            self._write({**older, str(version): release}, keep)
        except BaseException:
            self._take_back(staged, version)
            raise
        self._remove_unlisted()
        return Published(version, release, unchanged=False)

    def prune(self, keep: int) -> list[str]:
        """Keep what `commit` would keep and give the names of the folders removed.

        Raises:
            SetupError: a folder cannot be removed.
            OSError: the manifest cannot be written.
        """
        self._write(self.manifest.releases, keep)
        return self._remove_unlisted()

    def _stage_configs(self, model: str) -> Path:
        for config in static_configs_of(model):
            place = self.staged / model / config
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_static(model) / config, place)
        folder = self.staged / model / "version"
        folder.mkdir()
        return folder

    def _files(self, left: dict[str, File], staged: Sequence[str], version: int) -> dict[str, File]:
        """Give the files that will be served: those left as they are, and the staged ones."""
        files = {name: file for name, file in left.items() if name.partition("/")[0] not in staged}
        for model in staged:
            for path in sorted((self.staged / model / "version").iterdir()):
                files[f"{model}/{version}/{path.name}"] = describe_file(path)
        return files

    def _check_banks(self, release: Release, staged: Sequence[str]) -> None:
        """Refuse a bank of another export, which no client could use with these towers."""
        for model in release.served:
            if not model.startswith("label_bank"):
                continue
            if model in staged:
                path = self.staged / model / "version" / MODEL_FILE
                found = read_bank(path).contract.fingerprint
            else:
                assert self.newest is not None  # noqa: S101 - it left this bank
                found = self.newest.fingerprint
            if found != release.fingerprint:
                raise ModelError(
                    "{0} has fingerprint {1} and the towers it would be served with have {2}; "
                    "nothing was published. They are of different exports: build the bank anew "
                    "for this model, or export the model again",
                    model,
                    found,
                    release.fingerprint,
                )

    def _is_whole(self) -> bool:
        try:
            check_repository(self.repository)
        except SetupError:
            return False
        return True

    def _move(self, staged: Sequence[str], version: int) -> None:
        for model in staged:
            target = self.repository / model / str(version)
            # A folder the manifest does not list is what an interrupted command left behind.
            with suppress(FileNotFoundError):
                _delete(target)
            (self.staged / model / "version").replace(target)

    def _take_back(self, staged: Sequence[str], version: int) -> None:
        """Remove what was moved: Triton would serve a version that was never published."""
        if str(version) in (read_manifest(self.repository) or Manifest()).releases:
            return  # interrupted just after the manifest was written
        for model in staged:
            folder = self.repository / model
            shutil.rmtree(folder / str(version), ignore_errors=True)
            if model.startswith("label_bank_") and not version_folders(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _write(self, releases: dict[str, Release], keep: int) -> None:
        """Write the manifest of the releases to keep."""
        kept = _kept(releases, max(1, keep))
        self.manifest = Manifest(releases=kept)
        write_manifest(self.repository, self.manifest)
        newest = self.newest
        if newest is not None:
            version = str(newest.served["label_bank"])
            bank = read_bank(self.repository / "label_bank" / version / MODEL_FILE)
            write_chart_values(self.repository, self.manifest.newest, bank.contract)

    def _remove_unlisted(self) -> list[str]:
        """Remove what no release lists: old versions, and what interrupted commands left."""
        releases = self.manifest.releases.values()
        listed = {tuple(name.split("/")[:2]) for release in releases for name in release.files}
        removed = []
        for model in filter(is_model, sorted(self.repository.iterdir())):
            for version in version_folders(model):
                if (model.name, str(version)) not in listed:
                    self._remove(model / str(version))
                    removed.append(f"{model.name}/{version}")
            if model.name.startswith("label_bank_") and not version_folders(model):
                self._remove(model)  # Triton would report a model without versions
                removed.append(model.name)
        return removed

    def _remove(self, folder: Path) -> None:
        try:
            _delete(folder)
        except OSError as error:
            raise SetupError(
                "version {0} is what {1} serves, but {2}, which no version needs, cannot be "
                "removed: {3}; see to its permissions and run `wanwu repository prune`",
                self.manifest.newest,
                self.repository,
                folder,
                error,
            ) from error

    def _lay_out_configs(self) -> None:
        """Put the static configs in place; those already there, perhaps edited, stay."""
        for model in self.staged.iterdir():
            for path in (model / "config.pbtxt", *(model / "configs").iterdir()):
                place = self.repository / path.relative_to(self.staged)
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    path.replace(place)


@contextmanager
def writing(repository: Path) -> Iterator[Workshop]:
    """Give a repository to this process alone, made where there is none.

    Where there was none and nothing is published, the folders made are removed again, but for
    half-made banks.

    Raises:
        SetupError: another process writes to it, or it is no folder or cannot be written.
    """
    try:
        if repository.is_file():
            raise SetupError(
                "{0} is a file; expected a folder: name another by --output", repository
            )
        made = [folder for folder in (repository, *repository.parents) if not folder.exists()]
        repository.mkdir(parents=True, exist_ok=True)
        was_empty = not any(repository.iterdir())
        with (repository / LOCK).open("w") as lock:
            _lock(lock.fileno(), repository)
            # Triton takes every folder of a repository for a model and skips what is not a number
            # inside one, so the staging folder lies inside a model's.
            staged = repository / "image_encoder" / ".staging"
            shutil.rmtree(staged, ignore_errors=True)  # of an export that was killed
            staged.mkdir(parents=True)
            try:
                yield Workshop(repository, staged, read_manifest(repository) or Manifest())
            finally:
                shutil.rmtree(staged, ignore_errors=True)
                for half in repository.glob(f".{MANIFEST}.*"):  # of a command cut short
                    half.unlink()
                if was_empty and not (repository / MANIFEST).exists():
                    _remove_made(repository, made)
    except OSError as error:
        raise SetupError(
            "{0} cannot be written: {1}; nothing was published. Check its permissions and the "
            "free space, or name another folder",
            repository,
            error,
        ) from error


def static_configs() -> Path:
    """Find the hand-written configs: in the installed package, else in the checkout."""
    package = Path(__file__).parent
    installed = package / "model_repository"
    return installed if installed.is_dir() else package.parents[1] / "model_repository"


def link_file(source: Path, target: Path) -> None:
    """Give a published file a second name; it is never written again."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def contents(release: Release) -> dict[str, dict[str, str]]:
    """Give the SHA-256 of each file of each model that a release serves, whatever the version."""
    hashes: dict[str, dict[str, str]] = {}
    for name, file in release.files.items():
        model, _, rest = name.split("/", 2)
        hashes.setdefault(model, {})[rest] = file.sha256
    return hashes


def is_model(folder: Path) -> bool:
    """Tell whether a folder is one of our models; a Triton may serve others beside them."""
    known = folder.name in ("image_encoder", "text_encoder", "label_bank")
    return (known or folder.name.startswith("label_bank_")) and folder.is_dir()


def static_configs_of(model: str) -> list[str]:
    """Give the names of the configs that Triton needs in a model's folder."""
    source = _static(model)
    return sorted(path.relative_to(source).as_posix() for path in source.rglob("*.pbtxt"))


def _static(model: str) -> Path:
    return static_configs() / ("label_bank" if model.startswith("label_bank") else model)


def _kept(releases: dict[str, Release], keep: int) -> dict[str, Release]:
    """Give the newest releases, and the newest one of each of the newest models.

    So no number of label edits takes away the model before, at most 2 x `keep` releases are left,
    and the towers of at most `keep` models.
    """
    newest = sorted(releases, key=int, reverse=True)
    of_models: dict[int, str] = {}
    for number in newest:
        of_models.setdefault(releases[number].fingerprint, number)
    kept = {*newest[:keep], *list(of_models.values())[:keep]}
    return {number: releases[number] for number in newest if number in kept}


def _delete(path: Path) -> None:
    """Remove a folder, or a file or a link that has a version's number for its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _without_bank(release: Release, bank: str | None) -> Release:
    if bank is None:
        return release
    model = bank_model(bank)
    return msgspec.structs.replace(
        release,
        banks={name: kept for name, kept in release.banks.items() if name != bank},
        files={
            name: file for name, file in release.files.items() if name.partition("/")[0] != model
        },
    )


def _lock(descriptor: int, repository: Path) -> None:
    path = repository / LOCK
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        held = False
    if not held:  # or of a file that its holder has removed: a third process may make it anew
        raise SetupError(
            "another command is writing to {0}; wait for it, or name another folder", repository
        )


def _remove_made(repository: Path, made: Sequence[Path]) -> None:
    """Remove the lock, which is held, and the folders made, as far as they are empty."""
    (repository / LOCK).unlink()
    for folder in (repository / "image_encoder", *made):
        with suppress(OSError):
            folder.rmdir()


def _now() -> str:
    """Give the time in UTC; SOURCE_DATE_EPOCH sets it, for builds that must repeat to the byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = (
        datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
