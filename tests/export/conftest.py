"""Fixtures of the export tests: the starter in PyTorch, and towers small enough to export often."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wanwu_export.dual_tower import BankSource, DualTower

# As everywhere: a machine without torch leaves these tests out, CI may not.
if importlib.util.find_spec("torch") is None and os.environ.get("CI") != "true":
    collect_ignore_glob = ["test_*.py"]

SIDE, WIDTH, WORDS = 16, 8, 1000

MakeTower = Callable[..., "DualTower"]
MakeBanks = Callable[..., "list[BankSource]"]
Publish = Callable[..., "object"]


@pytest.fixture(scope="session")
def make_tower() -> MakeTower:
    """Give a function that makes a real dual tower of a few hundred weights."""
    import torch
    from tokenizers import Tokenizer, models
    from torch import nn

    from wanwu.contract import Image, Model, Precision, Score, Text
    from wanwu_export.dual_tower import DualTower

    vocabulary = {"[UNK]": 0, "猫": 1, "狗": 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106

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
            nn.AdaptiveAvgPool2d((1, WIDTH)),
            nn.Flatten(),
            text_end or nn.Identity(),
        )
        return DualTower(
            model=Model(name="tiny", revision="1", licence="Apache-2.0"),
            image=image.eval(),
            text=text.eval(),
            embedding_dim=WIDTH,
            image_geometry=Image(height=SIDE, width=SIDE, resize="squash", resample="bilinear"),
            text_spec=Text(max_length=16, pad_id=WORDS, lowercase=False),
            score=Score(kind="softmax", logit_scale=10.0),
            precision=Precision(image="fp32", text="fp32"),
            tokenizer=tokenizer.to_str().encode(),
            sources={"made by": "tests/export/conftest.py"},
        )

    return make


@pytest.fixture(scope="session")
def make_banks() -> MakeBanks:
    """Give a function that makes banks of two labels for such a tower."""
    import torch

    from wanwu_export.concepts import Concept
    from wanwu_export.dual_tower import BankSource

    concepts = [Concept("猫", category="动物"), Concept("狗", category="动物")]

    def make(*names: str) -> list[BankSource]:
        return [BankSource(name, concepts, torch.eye(2, WIDTH), "2026-11-22") for name in names]

    return make


@pytest.fixture(scope="session")
def publish_tiny(make_tower: MakeTower, make_banks: MakeBanks) -> Publish:
    """Give a function that publishes a tiny tower with two banks into a folder."""
    from wanwu_export.publish import Published, publish

    def run(folder: Path, seed: int = 0, *, step: Callable[[str], None] = len, **ends: object):
        tower = make_tower(seed, **ends)
        published: Published = publish(tower, make_banks("default", "pets"), folder, step=step)
        return published

    return run
