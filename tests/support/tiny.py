"""Models so small that a test may export or publish many: in PyTorch, and as ONNX files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from wanwu.contract import (
    SCHEMA_VERSION,
    Bank,
    Calibration,
    Contract,
    Image,
    Model,
    Precision,
    Score,
    Text,
)
from wanwu.repository import Answers, BankRelease, Describe, Parity, Release, TowerParity

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wanwu_export.concepts import Concept
    from wanwu_export.dual_tower import DualTower

SIDE, WIDTH, WORDS = 16, 8, 1000
IMAGE = Image(height=SIDE, width=SIDE, resize="squash", resample="bilinear")
TEXT = Text(max_length=16, pad_id=WORDS, lowercase=False)
SCORE = Score(kind="softmax", logit_scale=10.0)
MODEL = Model(name="tiny", revision="1", licence="Apache-2.0")
FP32 = Precision(image="fp32", text="fp32")
#: What the tokenizer of `publish_files` knows.
CHARACTERS = "猫狗鸟鱼大小红蓝0123456789"

#: Gives the direction of the sum of the tokens' vectors, and serves for an image tower too.
TOWER = """
<ir_version: 8, opset_import: ["" : 18]>
text_encoder (int64[n, l] INPUT_IDS) => (float[n, 8] EMBEDDING, int64[n, 1] FINGERPRINT)
{
  one = Constant <value_ints = [1]> ()
  vectors = Gather (words, INPUT_IDS)
  sums = ReduceSum <keepdims = 0> (vectors, one)
  EMBEDDING = LpNormalization <axis = 1, p = 2> (sums)
  rows = Shape <start = 0, end = 1> (INPUT_IDS)
  shape = Concat <axis = 0> (rows, one)
  FINGERPRINT = Expand (fingerprint, shape)
}
"""


def character_tokenizer(characters: str) -> bytes:
    """Give a tokenizer of one token a character, 0 for any other."""
    vocabulary = {word: place for place, word in enumerate(["[UNK]", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return tokenizer.to_str().encode()


def tiny_tower(
    seed: int = 0,
    *,
    image_end: nn.Module | None = None,
    text_end: nn.Module | None = None,
    side: int = SIDE,
    width: int = WIDTH,
    words: int = WORDS,
    longest: int = TEXT.max_length,
    precision: Precision = FP32,
) -> DualTower:
    """Make a real dual tower of random weights and of any sizes, with a last layer of the caller's.

    `words` is the size of the vocabulary, and the id of the padding.
    """
    import torch
    from torch import nn

    from wanwu_export.describe import Weights
    from wanwu_export.dual_tower import DualTower, Scale
    from wanwu_export.parity_inputs import TEXTS

    class SumOfWords(nn.Module):
        def forward(self, words: Tensor) -> Tensor:
            return words.sum(1)  # padding is zeros, and the length does not matter

    torch.manual_seed(seed)
    image = nn.Sequential(
        nn.Conv2d(3, 4, 4, stride=4),
        nn.Flatten(),
        nn.Linear(4 * (side // 4) ** 2, width),
        image_end or nn.Identity(),
    )
    text = nn.Sequential(
        nn.Embedding(words + 1, width, padding_idx=words),
        SumOfWords(),
        text_end or nn.Identity(),
    )
    others = {character for words in TEXTS.values() for character in words} - set("猫狗🐱")
    return DualTower(
        model=MODEL,
        scale=Scale(1 / 255, [0.5] * 3, [0.5] * 3),
        image=image.eval(),
        text=text.eval(),
        embedding_dim=width,
        image_geometry=msgspec.structs.replace(IMAGE, height=side, width=side),
        text_spec=msgspec.structs.replace(TEXT, max_length=longest, pad_id=words),
        vocabulary=words + 1,
        score=SCORE,
        precision=precision,
        tokenizer=character_tokenizer("猫狗" + "".join(sorted(others))),
        sources={"made by": "tests/support/tiny.py"},
        templates="bare",
        weights=Weights(alias=0.5, description=0.5, broader=0.0),
    )


def publish_files(
    folder: Path,
    fingerprint: int,
    banks: Mapping[str, Sequence[Concept]],
    *,
    model: Model = MODEL,
    precision: Precision = FP32,
) -> None:
    """Publish towers that are made without PyTorch, and banks, as an export does."""
    from wanwu_export.banks import MODEL_FILE, BankBuilder, BankPlan
    from wanwu_export.store import writing
    from wanwu_export.text_tower import TextTower

    contract = Contract(
        schema_version=SCHEMA_VERSION,
        fingerprint=fingerprint,
        embedding_dim=WIDTH,
        model=model,
        image=IMAGE,
        text=TEXT,
        score=SCORE,
        calibration=Calibration(),
        bank=Bank(name="default", count=1, created="", digest=""),
        precision=precision,
    )
    describe = Describe(templates="bare", alias=0.5, description=0.5, broader=0.5)
    tokenizer = character_tokenizer(CHARACTERS)
    with writing(folder) as workshop:
        for side in ("image", "text"):
            path = workshop.stage(f"{side}_encoder") / MODEL_FILE
            _write_tower(path, fingerprint)
        builder = BankBuilder(contract, tokenizer, describe, TextTower(path, tokenizer, contract))
        plans = [BankPlan(name, banks[name], None, "2026-11-22") for name in banks]
        built = {plan.name: builder.build(plan, workshop, lambda *told: None) for plan in plans}
        workshop.commit(_release(contract, describe, built), keep=3)


def _write_tower(path: Path, fingerprint: int) -> None:
    import onnx
    from onnx import numpy_helper

    words = np.random.default_rng(0).standard_normal((WORDS + 1, WIDTH)).astype(np.float32)
    words[WORDS] = 0
    model = onnx.parser.parse_model(TOWER)
    for array, name in ((words, "words"), (np.array([[fingerprint]]), "fingerprint")):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _release(contract: Contract, describe: Describe, banks: dict[str, BankRelease]) -> Release:
    check = TowerParity(precision="fp32", required_cosine=0.9, batches=(1,), cosines={"noise": 1.0})
    return Release(
        what="export",
        published="",
        fingerprint=contract.fingerprint,
        model=contract.model,
        precision=contract.precision,
        sources={},
        tools={},
        parity=Parity(
            pixel_levels=0.0,
            towers={"image": (check,), "text": (check,)},
            answers=Answers(pictures=1, ties=0, largest_difference=0.0),
        ),
        describe=describe,
        banks=banks,
        files={},
    )
