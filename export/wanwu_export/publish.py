"""Export a model: convert its towers, compare them with the original, build its banks, publish."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as package_version
from pathlib import Path

import onnxruntime

from wanwu.catalog import Message
from wanwu.contract import SCHEMA_VERSION as CONTRACT_VERSION
from wanwu.contract import Bank, Calibration, Contract
from wanwu.repository import Describe, Parity, Release, TowerParity
from wanwu_export.banks import BankBuilder, BankPlan, Progress, published_plan
from wanwu_export.dual_tower import DualTower
from wanwu_export.memory import give_back
from wanwu_export.onnx_towers import write_image_encoder, write_text_encoder
from wanwu_export.parity import Gate
from wanwu_export.precision import convert
from wanwu_export.store import KEEP, MODEL_FILE, Published, Step, Workshop, writing
from wanwu_export.text_tower import TextTower

TOOLS = ("wanwu", "torch", "transformers", "onnx", "onnxruntime", "onnxscript", "tokenizers")


def publish(
    tower: DualTower,
    banks: Sequence[BankPlan],
    repository: Path,
    *,
    step: Step,
    progress: Progress = lambda bank, done, total: None,
    keep: int = KEEP,
    gpu: str | None = None,
) -> Published:
    """Convert a model, check it, and publish it as the next version.

    Banks that the repository has and `banks` does not name are built anew for this model, so that
    none is left behind. An export of the same bytes as the newest version is not published again.

    Args:
        tower: the model.
        banks: its label banks; without one called `default` the repository's is kept.
        repository: the model repository, made where there is none.
        step: told what is being done, for a progress display.
        progress: told of each bank how many labels are embedded, of how many.
        keep: how many releases to keep, and of how many models the newest.
        gpu: the name of the GPU that the ONNX files are compared on, None for the CPU. What is
            published is the same.

    Raises:
        SetupError: the repository cannot be written.
        ModelError: the ONNX files do not answer as the original does.
        LabelError: a label is too long for the model.
    """
    with writing(repository) as workshop:
        parity = _convert(tower, workshop, step, gpu)
        builder = _builder(tower, workshop)
        plans = [*banks, *_left_behind(banks, workshop)]
        for plan in plans:
            builder.check(plan)
        released = {}
        for plan in plans:
            step(Message("label bank {0}", plan.name))
            released[plan.name] = builder.build(plan, workshop, progress)
        step("hash and publish")
        draft = Release(
            what="export",
            published="",
            fingerprint=tower.fingerprint,
            model=tower.model,
            precision=tower.precision,
            sources=tower.sources,
            tools={tool: _version(tool) for tool in TOOLS},
            parity=parity,
            describe=builder.describe,
            banks=released,
            files={},
        )
        return workshop.commit(draft, keep=keep)


def _version(tool: str) -> str:
    # Its package has another name where it brings CUDA.
    return onnxruntime.__version__ if tool == "onnxruntime" else package_version(tool)


def _convert(tower: DualTower, workshop: Workshop, step: Step, gpu: str | None) -> Parity:
    """Stage both towers' ONNX files, each compared with the original first."""
    step("the original's own answers")
    gate = Gate(tower, gpu=gpu)
    levels = gate.check_preparation()
    gate.run_original()
    give_back(tower)
    towers = {
        "image": (write_image_encoder, gate.check_image, tower.precision.image),
        "text": (write_text_encoder, gate.check_text, tower.precision.text),
    }
    folders = {side: workshop.stage(f"{side}_encoder") for side in towers}
    checks: dict[str, tuple[TowerParity, ...]] = {}
    for side, (write, check, _) in towers.items():
        step(Message("{0} tower to ONNX", side))
        write(tower, folders[side] / MODEL_FILE)
        give_back(tower)
        step(Message("{0} tower against the original", side))
        checks[side] = (check(folders[side] / MODEL_FILE, "fp32"),)
        give_back(tower)
    for side, (_, check, precision) in towers.items():
        if precision != "fp32":
            step(Message("{0} tower to {1}", side, precision))
            _lower(folders[side], precision)
            give_back(tower)
            step(Message("{0} tower in {1} against the original", side, precision))
            checks[side] += (check(folders[side] / MODEL_FILE, precision),)
            give_back(tower)
    return Parity(pixel_levels=levels, towers=checks, answers=gate.check_answers())


def _lower(folder: Path, precision: str) -> None:
    """Replace a staged FP32 file, and the weights beside it, by one of a lower precision."""
    lowered = folder / "lowered"
    lowered.mkdir()
    convert(folder / MODEL_FILE, precision, lowered / MODEL_FILE)
    for path in folder.glob(f"{MODEL_FILE}*"):
        path.unlink()
    for path in lowered.iterdir():
        path.replace(folder / path.name)
    lowered.rmdir()


def _builder(tower: DualTower, workshop: Workshop) -> BankBuilder:
    contract = Contract(
        schema_version=CONTRACT_VERSION,
        fingerprint=tower.fingerprint,
        embedding_dim=tower.embedding_dim,
        model=tower.model,
        image=tower.image_geometry,
        text=tower.text_spec,
        score=tower.score,
        calibration=Calibration(),
        bank=Bank(name="default", count=1, created="", digest=""),  # each bank puts its own here
        precision=tower.precision,
    )
    path = workshop.staged / "text_encoder" / "version" / MODEL_FILE
    describe = Describe(
        templates=tower.templates,
        alias=tower.weights.alias,
        description=tower.weights.description,
        broader=tower.weights.broader,
    )
    return BankBuilder(
        contract, tower.tokenizer, describe, TextTower(path, tower.tokenizer, contract)
    )


def _left_behind(banks: Sequence[BankPlan], workshop: Workshop) -> list[BankPlan]:
    """Give the plans of the banks that are served now and would not fit the new model."""
    newest = workshop.newest
    if newest is None:
        return []
    given = {plan.name for plan in banks}
    left = [name for name in newest.banks if name not in given]
    return [published_plan(workshop.repository, newest, name) for name in left]
