"""The label banks of an exported model: add or replace one, list them, compare them; no torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import msgspec

from wanwu.bank import bank_model
from wanwu.catalog import Message
from wanwu.errors import InputError
from wanwu.repository import (
    Release,
    check_file,
    newest_release,
    read_manifest,
)
from wanwu_export.banks import (
    LABELS_FILE,
    BankBuilder,
    BankPlan,
    Progress,
    model_file,
    published_builder,
    published_plan,
)
from wanwu_export.concepts import Concept, ConceptFile, read_concepts
from wanwu_export.onnx_bank import read_bank
from wanwu_export.store import KEEP, Published, Step, writing

#: Between a bank's name and the version of a release that is kept: `pets@3`.
AT = "@"

_LABEL_FILES = (".txt", ".csv", ".tsv")


@dataclass(frozen=True)
class BankSummary:
    """One bank of a release, and the version that its model is served at."""

    name: str
    labels: int
    templates: str
    version: int
    created: str
    bytes: int


@dataclass(frozen=True)
class Change:
    """A label that both lists have and know different things of."""

    before: Concept
    after: Concept

    @property
    def differing(self) -> list[str]:
        """The names of what differs: aliases, category, broader or description."""
        names = [field.name for field in fields(Concept)]
        return [name for name in names if getattr(self.before, name) != getattr(self.after, name)]


@dataclass(frozen=True)
class BankDiff:
    """How one list of concepts differs from another; `same` counts those alike in both."""

    added: list[Concept]
    removed: list[Concept]
    changed: list[Change]
    same: int


def build(
    repository: Path,
    plan: BankPlan,
    *,
    keep: int = KEEP,
    step: Step,
    progress: Progress = lambda bank, done, total: None,
) -> Published:
    """Add a bank to what a repository serves, or replace the bank of that name.

    The towers and the other banks stay the files they are. The same labels, templates and model
    again are not published again, whatever the day the label file was written.

    Args:
        repository: the model repository, with an exported model.
        plan: the bank.
        keep: how many releases to keep, and of how many models the newest.
        step: told what is being done, for a progress display.
        progress: told how many labels are embedded, of how many; at first, how many of them an
            interrupted build left behind.

    A warning tells of labels that the model cannot read or cannot tell apart.

    Raises:
        InputError: the name is not one a bank can have.
        LabelError: a label is too long for the model.
        SetupError: the repository holds no model or a damaged one, or cannot be written.
        ModelError: the text tower gives no finite embedding.
    """
    bank_model(plan.name)
    newest_release(repository)  # before `writing`, which makes a folder where there is none
    with writing(repository) as workshop:
        release = workshop.newest
        assert release is not None  # noqa: S101 - it was there before the lock
        step("check the model")
        _check_model(repository, release)
        builder = published_builder(repository, release)
        plan = _dated(plan, builder, repository, release)
        builder.check(plan)
        _warn_of_unreadable(plan, builder)
        step(Message("label bank {0}", plan.name))
        banks = {**release.banks, plan.name: builder.build(plan, workshop, progress)}
        step("hash and publish")
        draft = msgspec.structs.replace(release, what=Message("bank {0}", plan.name), banks=banks)
        return workshop.commit(draft, keep=keep)


def summaries(repository: Path) -> list[BankSummary]:
    """Give what is to be known of each bank that a repository serves.

    Raises:
        SetupError: the repository holds no model, or a bank cannot be read.
    """
    release = newest_release(repository)
    return [_summary(repository, release, name) for name in release.banks]


def published_concepts(repository: Path, bank: str) -> list[Concept]:
    """Give the concepts of a bank, `NAME`, or of a kept release of it, `NAME@VERSION`.

    Raises:
        InputError: there is no such bank or release.
        SetupError: the repository holds no model, or the bank's labels were changed or lost.
    """
    name, at, version = bank.partition(AT)
    release = _kept_release(repository, bank, version) if at else newest_release(repository)
    if name not in release.banks:
        raise InputError(
            "there is no bank {0} in {1}; it has {2}",
            repr(bank),
            repository,
            ", ".join(f"{known}{at}{version}" for known in release.banks),
        )
    path = model_file(repository, release, bank_model(name)).with_name(LABELS_FILE)
    check_file(path, release.files[path.relative_to(repository).as_posix()])
    return read_concepts(path).concepts


def read_list(repository: Path, bank_or_file: str) -> ConceptFile:
    """Give a list of concepts: of a bank, of a kept release of it, or of a label file.

    What ends in `.txt`, `.csv` or `.tsv` or holds a path separator is a file.

    Raises:
        InputError: there is no such bank, release or file, or the file cannot be used.
        SetupError: the repository holds no model.
    """
    if bank_or_file.lower().endswith(_LABEL_FILES) or os.sep in bank_or_file:
        return read_concepts(bank_or_file)
    return ConceptFile(published_concepts(repository, bank_or_file), [])


def diff(before: Sequence[Concept], after: Sequence[Concept]) -> BankDiff:
    """Compare two lists of concepts by their labels; the order of the labels does not matter."""
    old = {concept.label: concept for concept in before}
    new = {concept.label: concept for concept in after}
    both = [label for label in new if label in old]
    changed = [Change(old[label], new[label]) for label in both if old[label] != new[label]]
    return BankDiff(
        added=[concept for concept in after if concept.label not in old],
        removed=[concept for concept in before if concept.label not in new],
        changed=changed,
        same=len(both) - len(changed),
    )


def _check_model(repository: Path, release: Release) -> None:
    """Check the files that a bank is made with: a damaged tower would give damaged embeddings."""
    for name, file in release.files.items():
        if name.partition("/")[0] in ("text_encoder", bank_model(None)):
            check_file(repository / name, file)


def _dated(plan: BankPlan, builder: BankBuilder, repository: Path, release: Release) -> BankPlan:
    """Keep the published date where nothing else would change."""
    if plan.name not in release.banks:
        return plan
    published = published_plan(repository, release, plan.name)
    same = list(plan.concepts) == list(published.concepts) and (
        builder.templates(plan).texts == builder.templates(published).texts
    )
    return replace(plan, created=published.created) if same else plan


def _warn_of_unreadable(plan: BankPlan, builder: BankBuilder) -> None:
    # Another name or a description may say what the label's own characters cannot.
    alone = [
        concept.label
        for concept in plan.concepts
        if not (concept.aliases or concept.description or concept.broader)
    ]
    for doubt in builder.tower.doubts(alone) if alone else ():
        warnings.warn(doubt, stacklevel=2)


def _summary(repository: Path, release: Release, name: str) -> BankSummary:
    model = bank_model(name)
    files = release.files.items()
    return BankSummary(
        name=name,
        labels=release.banks[name].count,
        templates=release.banks[name].templates or release.describe.templates,
        version=release.served[model],
        created=read_bank(model_file(repository, release, model)).contract.bank.created,
        bytes=sum(file.bytes for path, file in files if path.partition("/")[0] == model),
    )


def _kept_release(repository: Path, bank: str, version: str) -> Release:
    newest_release(repository)  # is there a model at all?
    manifest = read_manifest(repository)
    releases = manifest.releases if manifest else {}
    if version not in releases:
        raise InputError(
            "{0} names version {1}, which {2} does not keep; it has {3}",
            repr(bank),
            repr(version),
            repository,
            ", ".join(sorted(releases, key=int)),
        )
    return releases[version]
