"""Label banks of an exported model, built with its own text tower and without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from wanwu.bank import bank_digest, bank_model
from wanwu.contract import Bank, Contract
from wanwu.errors import InputError, LabelError
from wanwu.repository import BankRelease, Describe, Release
from wanwu_export.bank_embedding import embed_concepts
from wanwu_export.concepts import (
    Concept,
    built_in_banks,
    imagenet_concepts,
    read_concepts,
    write_concepts,
)
from wanwu_export.describe import Weights
from wanwu_export.onnx_bank import StoredBank, read_bank, write_bank
from wanwu_export.store import MODEL_FILE, Workshop
from wanwu_export.templates import SLOT, Templates, load_templates
from wanwu_export.text_tower import TextTower

#: Where a bank's labels are kept beside its ONNX file, to be embedded anew for another model.
LABELS_FILE = "labels.tsv"
#: When the concepts of the built-in banks were last changed.
CONCEPTS_DATE = "2026-11-22"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BankPlan:
    """A bank to be built. `templates` of None are the model's own choice."""

    name: str
    concepts: Sequence[Concept]
    templates: Templates | None
    created: str


@dataclass(frozen=True)
class BankBuilder:
    """What every bank of one export shares."""

    contract: Contract
    tokenizer: bytes
    describe: Describe
    tower: TextTower

    def check(self, plan: BankPlan) -> None:
        """Refuse a label that is too long under a template now, and not an hour later.

        Raises:
            LabelError: as said; it names the label and the template.
        """
        for template in self.templates(plan).texts:
            try:
                self.tower.check([template.replace(SLOT, c.label) for c in plan.concepts])
            except LabelError as error:
                raise LabelError(
                    "bank {0}, template {1}: {2}, or choose other --templates, such as bare",
                    repr(plan.name),
                    repr(template),
                    error,
                ) from error

    def templates(self, plan: BankPlan) -> Templates:
        """Give a plan's templates: its own, or the model's choice."""
        return plan.templates or load_templates(self.describe.templates)

    def build(self, plan: BankPlan, workshop: Workshop, progress: Progress) -> BankRelease:
        """Embed a bank and stage it.

        Raises:
            LabelError: a label is too long for the model.
            ModelError: the text tower gives no finite embedding.
        """
        templates = self.templates(plan)
        embeddings = embed_concepts(
            plan.concepts,
            self.tower.encode,
            templates,
            Weights(self.describe.alias, self.describe.description, self.describe.broader),
            dim=self.contract.embedding_dim,
            key=str(self.contract.fingerprint),
            work=workshop.work,
            progress=lambda done, total: progress(plan.name, done, total),
        )
        labels = [concept.label for concept in plan.concepts]
        categories = [concept.category for concept in plan.concepts]
        digest = bank_digest(labels, categories, embeddings)
        bank = Bank(
            name=plan.name,
            count=len(labels),
            created=plan.created,
            digest=digest,
            templates=templates.texts,
        )
        contract = msgspec.structs.replace(self.contract, bank=bank)
        folder = workshop.stage(bank_model(plan.name))
        write_bank(
            StoredBank(contract, self.tokenizer, labels, categories, embeddings),
            folder / MODEL_FILE,
        )
        write_concepts(plan.concepts, folder / LABELS_FILE)
        return BankRelease(
            count=len(labels),
            digest=digest,
            templates=plan.templates.name if plan.templates else None,
        )


def published_builder(repository: Path, release: Release) -> BankBuilder:
    """Give a builder of banks for what a repository serves."""
    stored = read_bank(model_file(repository, release, bank_model(None)))
    tower = TextTower(
        model_file(repository, release, "text_encoder"), stored.tokenizer, stored.contract
    )
    return BankBuilder(stored.contract, stored.tokenizer, release.describe, tower)


def built_in_plans(templates: Templates | None = None) -> list[BankPlan]:
    """Give the banks that come with Wanwu: 1000 everyday things by default, and the lists.

    Templates of None are the model's own choice.
    """
    banks = {"default": imagenet_concepts(), **built_in_banks()}
    return [BankPlan(name, concepts, templates, CONCEPTS_DATE) for name, concepts in banks.items()]


def file_plan(path: Path, name: str, templates: Templates | None) -> tuple[BankPlan, list[str]]:
    """Give the plan of a label file's bank, and what is to be said of the file.

    Raises:
        LabelError: the file cannot be used.
    """
    read = read_concepts(path)
    changed = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    return BankPlan(name, read.concepts, templates, changed.date().isoformat()), read.notes


def published_plan(repository: Path, release: Release, name: str) -> BankPlan:
    """Give the plan that a published bank was built by.

    Raises:
        InputError: there is no bank of that name.
    """
    known = release.banks.get(name)
    if known is None:
        raise InputError(
            "there is no bank {0} in {1}; it has {2}",
            repr(name),
            repository,
            ", ".join(release.banks),
        )
    path = model_file(repository, release, bank_model(name))
    bank = read_bank(path).contract.bank
    templates = Templates(known.templates, bank.templates) if known.templates else None
    concepts = read_concepts(path.with_name(LABELS_FILE)).concepts
    return BankPlan(name, concepts, templates, bank.created)


def model_file(repository: Path, release: Release, model: str) -> Path:
    """Give the path of a served model's ONNX file."""
    return repository / model / str(release.served[model]) / MODEL_FILE
