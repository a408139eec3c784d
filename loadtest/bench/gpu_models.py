"""Chinese-CLIP of the real sizes with random weights, exported and laid out to be served.

    python gpu_models.py ViT-B/16 FOLDER

Speed does not depend on what weights mean, so nothing is fetched. The parity gate is left out: it
is for a model that somebody will use. Banks hold random unit vectors.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wanwu.bank import normalise

PRECISIONS = ("fp32", "fp16")
DIM = {"ViT-B/16": 512, "ViT-L/14": 768, "small": 16}
SIDE = {"ViT-B/16": 224, "ViT-L/14": 224, "small": 32}
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_VISION = {
    "ViT-B/16": {"patch_size": 16},
    "ViT-L/14": {
        "patch_size": 14,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "small": {**_SMALL, "patch_size": 8},
}
WORDS = 21128


@dataclass(frozen=True)
class RandomTower:
    """Stands for a text tower while banks are built."""

    dim: int

    def check(self, texts: Sequence[str]) -> None:
        """Take every text."""

    def encode(self, texts: Sequence[str]) -> Any:
        """Return a random unit vector for each text."""
        drawn = np.random.default_rng(len(texts)).standard_normal((len(texts), self.dim))
        return normalise(drawn.astype(np.float32))


def make_model(size: str, attention: str = "eager") -> Any:
    """Return a Chinese-CLIP of a size; the same random weights every time."""
    import torch
    import transformers

    torch.manual_seed(0)
    text = {"vocab_size": WORDS, "max_position_embeddings": 512}
    config = transformers.ChineseCLIPConfig(
        text_config=text if size != "small" else {**text, **_SMALL},
        vision_config={"image_size": SIDE[size], **_VISION[size]},
        projection_dim=DIM[size],
        logit_scale_init_value=4.6052,
    )
    model = transformers.ChineseCLIPModel(config)
    model.set_attn_implementation(attention)
    return model.eval().requires_grad_(False)


def export(size: str, folder: Path, banks: Sequence[int]) -> None:
    """Write a model repository for each precision: towers, and a bank `lN` for each N labels."""
    tower = _dual_tower(size)
    for precision in PRECISIONS:
        _publish(tower, folder / precision, folder / PRECISIONS[0], precision, banks)


def image_file(folder: Path, precision: str) -> Path:
    """Return the image tower's ONNX file."""
    return folder / precision / "image_encoder" / "1" / "model.onnx"


def _dual_tower(size: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    from wanwu.contract import Image, Model, Precision, Score, Text
    from wanwu_export.checkpoint.model import TEMPLATES, WEIGHTS, ImageFeatures, TextFeatures
    from wanwu_export.dual_tower import DualTower, Scale

    @dataclass(frozen=True)
    class Named:
        pad_token_id: int = 0
        eos_token_id: int = 102
        model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")

    model = make_model(size)
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 100}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return DualTower(
        model=Model(name=f"Chinese-CLIP {size}, random", revision="0", licence="none"),
        scale=Scale(1 / 255, [0.481, 0.458, 0.408], [0.269, 0.261, 0.276]),
        image=ImageFeatures(model).eval(),
        text=TextFeatures(model, Named(), model.config.text_config).eval(),
        embedding_dim=DIM[size],
        vocabulary=WORDS,
        image_geometry=Image(
            height=SIDE[size], width=SIDE[size], resize="squash", resample="bicubic"
        ),
        text_spec=Text(max_length=52, pad_id=0, lowercase=True),
        score=Score(kind="softmax", logit_scale=100.0),
        precision=Precision(image="fp32", text="fp32"),
        tokenizer=tokenizer.to_str().encode(),
        sources={"made by": "loadtest/bench/gpu_models.py"},
        templates=TEMPLATES,
        weights=WEIGHTS,
    )


def _publish(tower: Any, folder: Path, fp32: Path, precision: str, banks: Sequence[int]) -> None:
    from wanwu.contract import SCHEMA_VERSION, Bank, Calibration, Contract
    from wanwu.repository import Describe
    from wanwu_export.banks import BankBuilder, BankPlan
    from wanwu_export.concepts import Concept
    from wanwu_export.store import writing
    from wanwu_export.templates import load_templates

    contract = Contract(
        schema_version=SCHEMA_VERSION,
        fingerprint=tower.fingerprint,
        embedding_dim=tower.embedding_dim,
        model=tower.model,
        image=tower.image_geometry,
        text=tower.text_spec,
        score=tower.score,
        calibration=Calibration(),
        bank=Bank(name="default", count=1, created="", digest=""),
        precision=tower.precision,
    )
    describe = Describe(templates="bare", alias=0.5, description=0.5, broader=0.0)
    random: Any = RandomTower(tower.embedding_dim)
    builder = BankBuilder(contract, tower.tokenizer, describe, random)
    lists = {"default": banks[0], **{f"l{count}": count for count in banks}}
    with writing(folder) as workshop:
        for side in ("image", "text"):
            _write(tower, side, workshop.stage(f"{side}_encoder"), fp32, precision)
        built = {}
        for name, count in lists.items():
            concepts = [Concept(f"标签{number}") for number in range(count)]
            plan = BankPlan(name, concepts, load_templates("bare"), "2026-11-27")
            built[name] = builder.build(plan, workshop, lambda *done: None)
        workshop.commit(_release(contract, describe, built), keep=1)


def _write(tower: Any, side: str, folder: Path, fp32: Path, precision: str) -> None:
    """Write a tower; texts stay in FP32, since images alone are measured."""
    from wanwu_export.onnx_towers import write_image_encoder, write_text_encoder
    from wanwu_export.precision import convert

    written = fp32 / f"{side}_encoder" / "1"
    if precision == "fp32":
        write = write_image_encoder if side == "image" else write_text_encoder
        write(tower, folder / "model.onnx")
    elif side == "image":
        convert(written / "model.onnx", precision, folder / "model.onnx")
    else:
        for path in written.glob("model.onnx*"):
            shutil.copy(path, folder)


def _release(contract: Any, describe: Any, banks: Any) -> Any:
    from wanwu.repository import Answers, Parity, Release

    return Release(
        what="benchmark",
        published="",
        fingerprint=contract.fingerprint,
        model=contract.model,
        precision=contract.precision,
        sources={},
        tools={},
        parity=Parity(
            pixel_levels=0.0,
            towers={},
            answers=Answers(pictures=0, ties=0, largest_difference=0.0),
        ),
        describe=describe,
        banks=banks,
        files={},
    )


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]), tuple(map(int, sys.argv[3:])))
