"""Fixtures of the export tests: the starter in PyTorch, and towers small enough to export often."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from wanwu.rank import Floats
    from wanwu_export.banks import BankPlan
    from wanwu_export.dual_tower import DualTower
    from wanwu_export.store import Published

# As everywhere: a machine without torch leaves these tests out, CI may not.
if importlib.util.find_spec("torch") is None and os.environ.get("CI") != "true":
    collect_ignore_glob = ["test_*.py"]

SIDE, WIDTH, WORDS = 16, 8, 1000

MakeTower = Callable[..., "DualTower"]
MakeBanks = Callable[..., "list[BankPlan]"]
Publish = Callable[..., "Published"]


@pytest.fixture(scope="session", autouse=True)
def _pictures_are_encoded_once() -> Iterator[None]:
    """Every gate tries the same pictures, and encoding them takes longer than a tiny tower."""
    from wanwu_export import parity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "parity_pictures", cache(parity.parity_pictures))
        yield


@pytest.fixture(scope="session")
def make_tower() -> MakeTower:
    """Give a function that makes a real dual tower of a few hundred weights."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from torch import nn

    from wanwu.contract import Image, Model, Precision, Score, Text
    from wanwu_export.describe import Weights
    from wanwu_export.dual_tower import DualTower, Scale
    from wanwu_export.parity_inputs import TEXTS

    class MeanOfWords(nn.Module):
        def forward(self, words: Tensor) -> Tensor:
            return words.sum(1)  # padding is zeros, and the length does not matter

    characters = sorted({char for text in TEXTS.values() for char in text} - {"猫", "狗", "🐱"})
    vocabulary = {word: place for place, word in enumerate(["[UNK]", "猫", "狗", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")

    def make(
        seed: int = 0, *, image_end: nn.Module | None = None, text_end: nn.Module | None = None
    ) -> DualTower:
        torch.manual_seed(seed)
        image = nn.Sequential(
            nn.Conv2d(3, 4, 4, stride=4),
            nn.Flatten(),
            nn.Linear(4 * (SIDE // 4) ** 2, WIDTH),
            image_end or nn.Identity(),
        )
        text = nn.Sequential(
            nn.Embedding(WORDS + 1, WIDTH, padding_idx=WORDS),
            MeanOfWords(),
            text_end or nn.Identity(),
        )
        return DualTower(
            model=Model(name="tiny", revision="1", licence="Apache-2.0"),
            scale=Scale(1 / 255, [0.5] * 3, [0.5] * 3),
            image=image.eval(),
            text=text.eval(),
            embedding_dim=WIDTH,
            image_geometry=Image(height=SIDE, width=SIDE, resize="squash", resample="bilinear"),
            text_spec=Text(max_length=16, pad_id=WORDS, lowercase=False),
            score=Score(kind="softmax", logit_scale=10.0),
            precision=Precision(image="fp32", text="fp32"),
            tokenizer=tokenizer.to_str().encode(),
            sources={"made by": "tests/export/conftest.py"},
            templates="bare",
            weights=Weights(alias=0.5, description=0.5, broader=0.0),
        )

    return make


@pytest.fixture(scope="session")
def make_banks() -> MakeBanks:
    """Give a function that makes banks of two labels."""
    from wanwu_export.banks import BankPlan
    from wanwu_export.concepts import Concept

    concepts = [Concept("猫", category="动物"), Concept("狗", category="动物")]

    def make(*names: str) -> list[BankPlan]:
        return [BankPlan(name, concepts, None, "2026-11-22") for name in names]

    return make


@pytest.fixture(scope="session")
def publish_tiny(make_tower: MakeTower, make_banks: MakeBanks) -> Publish:
    """Give a function that publishes a tiny tower with two banks into a folder."""
    from wanwu_export.publish import publish

    def run(
        folder: Path,
        seed: int = 0,
        *,
        step: Callable[[str], object] = len,
        keep: int = 3,
        **ends: object,
    ) -> Published:
        tower = make_tower(seed, **ends)
        return publish(tower, make_banks("default", "pets"), folder, step=step, keep=keep)

    return run


@pytest.fixture(scope="session")
def plans() -> dict[str, BankPlan]:
    """The plans of the built-in banks, by name."""
    from wanwu_export.banks import built_in_plans

    return {plan.name: plan for plan in built_in_plans()}


@pytest.fixture(scope="session")
def described(starter: DualTower, plans: dict[str, BankPlan]) -> dict[str, Floats]:
    """The rows of the built-in banks as PyTorch makes them, before any conversion."""
    import torch

    from wanwu.tokens import load_tokenizer, token_ids
    from wanwu_export.starter.joining import describe_concepts

    tokenizer = load_tokenizer(starter.tokenizer)

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Tensor:
        parts = [texts[first : first + 256] for first in range(0, len(texts), 256)]
        ids = [token_ids(tokenizer, part, starter.text_spec) for part in parts]
        return torch.cat([starter.text(torch.from_numpy(part)) for part in ids])

    return {name: describe_concepts(plan.concepts, encode).numpy() for name, plan in plans.items()}
