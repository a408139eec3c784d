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
    from support.tiny import tiny_tower

    return tiny_tower


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
