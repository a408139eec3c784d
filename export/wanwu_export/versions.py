"""The versions of a model repository: go back to one, check them, prune them, take a bank out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from wanwu.bank import DEFAULT_BANK, bank_model
from wanwu.catalog import Message, message_of
from wanwu.errors import InputError, SetupError, WanwuError
from wanwu.repository import (
    MANIFEST,
    BankRelease,
    Manifest,
    Release,
    check_file,
    newest_release,
    read_manifest,
    version_folders,
)
from wanwu_export.banks import (
    Progress,
    model_file,
    published_builder,
    published_plan,
)
from wanwu_export.onnx_bank import read_bank
from wanwu_export.store import KEEP, Step, Workshop, contents, is_model, static_configs_of, writing

TOWERS = ("image_encoder", "text_encoder")


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did: the version that serves what version `to` did, `to` itself if it does.

    `unchanged` says that the newest version serves it already and nothing was published.
    """

    version: int
    release: Release
    to: int
    unchanged: bool


def rollback(
    repository: Path,
    to: int | None = None,
    *,
    keep: int = KEEP,
    step: Step = lambda text: None,
    progress: Progress = lambda bank, done, total: None,
) -> RolledBack:
    """Publish what an older version served as the next version.

    Models that served the same files then are left where they are. Banks that are younger than
    that version are kept; if it had another model, they are built anew with that one.

    Args:
        repository: the model repository.
        to: the version; by default the last one that served something else.
        keep: how many releases to keep, and of how many models the newest.
        step: told what is being done, for a progress display.
        progress: told how many labels of a bank are embedded, of how many.

    Raises:
        InputError: there is no such version, or none to go back to.
        SetupError: the repository holds no model, a file of that version is damaged, or the
            repository cannot be written.
    """
    newest_release(repository)  # before `writing`, which makes a folder where there is none
    with writing(repository) as workshop:
        newest = workshop.newest
        assert newest is not None  # noqa: S101 - it was there before the lock
        number = _wanted(workshop.manifest, repository, to)
        target = workshop.manifest.releases[str(number)]
        models = _differing(newest, target)
        if not models:
            return RolledBack(workshop.manifest.newest, newest, number, unchanged=True)
        step(Message("check the files of version {0}", number))
        _check_models(repository, target, models, number)
        for model in models:
            workshop.stage_published(model, target)
        banks = {**target.banks, **_younger_banks(workshop, newest, target, step, progress)}
        step("hash and publish")
        draft = msgspec.structs.replace(
            target, what=Message("rollback to {0}", number), banks=banks
        )
        done = workshop.commit(draft, keep=keep)
        return RolledBack(done.version, done.release, number, unchanged=False)


def remove_bank(repository: Path, name: str, keep: int = KEEP) -> int:
    """Publish a version without a bank, and remove the bank's files from every kept version.

    Triton loads every folder it finds, so a bank's folder cannot stay for a later rollback.

    Returns:
        The version.

    Raises:
        InputError: there is no such bank, or it is the default one.
        SetupError: the repository holds no model, or cannot be written.
    """
    newest_release(repository)  # before `writing`, which makes a folder where there is none
    if name == DEFAULT_BANK:
        raise InputError(
            "the bank {0} cannot be removed, since clients read the model's contract from it; "
            "build another in its place: `wanwu labels build FILE --bank {1}`",
            repr(name),
            name,
        )
    with writing(repository) as workshop:
        newest = workshop.newest
        assert newest is not None  # noqa: S101 - it was there before the lock
        if name not in newest.banks:
            raise InputError(
                "there is no bank {0} in {1}; it has {2}",
                repr(name),
                repository,
                ", ".join(newest.banks),
            )
        left = {bank: released for bank, released in newest.banks.items() if bank != name}
        draft = msgspec.structs.replace(newest, what=Message("without bank {0}", name), banks=left)
        return workshop.commit(draft, keep=keep, without=name).version


def prune(repository: Path, keep: int = KEEP) -> list[str]:
    """Remove older versions, and what interrupted commands left behind.

    The newest `keep` versions stay, and the newest one of each of the newest `keep` models.

    Returns:
        The folders that were removed, such as `label_bank/2`.

    Raises:
        SetupError: the repository holds no model, or cannot be written.
    """
    newest_release(repository)  # without a manifest, everything would be removed
    with writing(repository) as workshop:
        return workshop.prune(keep)


def verify(repository: Path, *, all_versions: bool = False) -> list[str]:
    """Check every file of the newest version, or of all, and that Triton would serve these.

    Returns:
        The problems found: what is wrong with which file, and what to do.

    Raises:
        SetupError: the repository holds no model, or its manifest cannot be read.
    """
    newest = newest_release(repository)
    manifest = read_manifest(repository)
    assert manifest is not None  # noqa: S101 - it holds the newest release
    checked = {str(manifest.newest): newest}
    if all_versions:
        checked = dict(sorted(manifest.releases.items(), key=lambda item: -int(item[0])))
    damaged = _damaged(repository, checked.values())
    return [
        *damaged.values(),
        *_without_configs(repository, newest),
        *_strays(repository, newest),
        *_strangers(repository, checked, damaged),
    ]


def _wanted(manifest: Manifest, repository: Path, to: int | None) -> int:
    """Give the version to go back to."""
    kept = sorted(map(int, manifest.releases), reverse=True)
    names = ", ".join(map(str, kept))
    if to is not None:
        if to not in kept:
            raise InputError(
                "{0} does not keep version {1}; it keeps {2}: name one of these",
                repository,
                to,
                names,
            )
        return to
    newest = manifest.releases[str(kept[0])]
    for number in kept[1:]:
        if _differing(newest, manifest.releases[str(number)]):
            return number
    raise InputError(
        "{0} has nothing to go back to: it keeps version {1}, and none before {2} served another "
        "model or other labels. A younger bank stays when going back; a removed one is gone from "
        "every version: build it again, or export the older model again",
        repository,
        names,
        kept[0],
    )


def _differing(newest: Release, target: Release) -> list[str]:
    """Give the models that served other bytes in a target release than they do now."""
    now, then = contents(newest), contents(target)
    return sorted(model for model in then if then[model] != now.get(model))


def _check_models(repository: Path, release: Release, models: Sequence[str], number: int) -> None:
    for name, file in release.files.items():
        if name.partition("/")[0] not in models:
            continue
        try:
            check_file(repository / name, file)
        except SetupError as error:
            raise SetupError(
                "version {0} cannot be used, nothing was published: {1}, or choose another "
                "version; `wanwu repository verify --all` tells which are whole",
                number,
                error,
            ) from error


def _younger_banks(
    workshop: Workshop, newest: Release, target: Release, step: Step, progress: Progress
) -> dict[str, BankRelease]:
    """Give the banks that the target does not have, built anew where its towers are others."""
    younger = {name: bank for name, bank in newest.banks.items() if name not in target.banks}
    if not younger or newest.fingerprint == target.fingerprint:
        return younger
    models = [bank_model(name) for name in younger]
    _check_models(workshop.repository, newest, models, workshop.manifest.newest)
    builder = published_builder(workshop.repository, target)
    for name in younger:
        step(Message("label bank {0}", name))
        plan = published_plan(workshop.repository, newest, name)
        younger[name] = builder.build(plan, workshop, progress)
    return younger


def _damaged(repository: Path, releases: Iterable[Release]) -> dict[str, str]:
    """Give the published files that are not what was published, with what is wrong of each."""
    damaged = {}
    for name, file in {n: f for release in releases for n, f in release.files.items()}.items():
        try:
            check_file(repository / name, file)
        except SetupError as error:
            damaged[name] = message_of(error)
    return damaged


def _without_configs(repository: Path, newest: Release) -> Iterator[str]:
    for model in newest.served:
        for config in static_configs_of(model):
            if not (repository / model / config).is_file():
                yield (
                    Message(
                        "{0} is missing and Triton could not run the model; repeat the "
                        "export, which puts it back",
                        repository / model / config,
                    )
                )


def _strays(repository: Path, newest: Release) -> Iterator[str]:
    """Name what Triton would serve although the newest release does not."""
    for folder in filter(is_model, sorted(repository.iterdir())):
        if folder.name not in newest.served:
            yield (
                Message(
                    "{0} is of no bank that is published and Triton would load it; run `wanwu "
                    "repository prune`",
                    folder,
                )
            )
            continue
        served = newest.served[folder.name]
        for version in version_folders(folder):
            if version > served:
                yield (
                    Message(
                        "{0} is of no version that is published and Triton would serve it in "
                        "place of version {1}; run `wanwu repository prune`",
                        folder / str(version),
                        served,
                    )
                )


def _strangers(
    repository: Path, releases: dict[str, Release], damaged: dict[str, str]
) -> Iterator[str]:
    """Name the models that are of another export than their release says."""
    seen = set()
    for number, release in releases.items():
        for model in release.served:
            path = model_file(repository, release, model)
            name = path.relative_to(repository).as_posix()
            if name in damaged or (name, release.fingerprint) in seen:
                continue
            seen.add((name, release.fingerprint))
            try:
                found = _fingerprint(path)
            except WanwuError as error:
                yield message_of(error)
                continue
            if found not in (None, release.fingerprint):
                yield (
                    Message(
                        "{0} has fingerprint {1} and {2} says {3} of version {4}: they are of "
                        "different exports; export again",
                        path,
                        found,
                        MANIFEST,
                        release.fingerprint,
                        number,
                    )
                )


def _fingerprint(path: Path) -> int | None:
    """Read the fingerprint inside a model's file; None where a tower does not name it."""
    if path.parts[-3] not in TOWERS:
        return read_bank(path).contract.fingerprint
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise SetupError(
            "{0} is no ONNX file ({1}); export the model again", path, error
        ) from error
    found = [tensor for tensor in graph.initializer if tensor.name == "fingerprint"]
    return int(numpy_helper.to_array(found[0]).item()) if found else None
