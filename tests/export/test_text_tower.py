"""The exported text tower: each text's own embedding, whatever stands beside it in a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from wanwu.contract import Bank, Calibration, Contract
from wanwu.errors import LabelError, ModelError
from wanwu.rank import Floats
from wanwu.tokens import load_tokenizer, token_ids
from wanwu_export.dual_tower import DualTower, TextEncoder
from wanwu_export.onnx_towers import write_text_encoder
from wanwu_export.text_tower import BATCH, TextTower

#: More than two batches, of every length from 1 to the maximum, and not in the order of lengths.
TEXTS = [("猫狗" * 8)[: 1 + 7 * n % 16] + "照片"[: n % 3 // 2] for n in range(2 * BATCH + 9)]
TEXTS = [text[:16] for text in TEXTS]


class Written(NamedTuple):
    tower: DualTower
    contract: Contract
    path: Path


def _contract(tower: DualTower) -> Contract:
    return Contract(
        schema_version=1,
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


class PlaceMatters(nn.Module):
    """Weighs the words of a text by their place, so that padding on the wrong side is seen."""

    def __init__(self, words: nn.Module) -> None:
        super().__init__()
        self.words = words
        self.register_buffer("weights", torch.linspace(0.1, 2.0, 16).reshape(1, 16, 1))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        weighed: torch.Tensor = (self.words(input_ids) * self.weights).sum(1)
        return weighed


def _write(tower: DualTower, folder: Path) -> Written:
    write_text_encoder(tower, folder / "model.onnx")
    return Written(tower, _contract(tower), folder / "model.onnx")


@pytest.fixture(scope="module")
def free(make_tower, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A tower that reads texts of any length."""
    return _write(make_tower(), tmp_path_factory.mktemp("free"))


@pytest.fixture(scope="module", params=["right", "left"])
def fixed(make_tower, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Written:
    """A tower that reads texts padded to the maximum."""
    tower = make_tower()
    spec = msgspec.structs.replace(tower.text_spec, padding="max_length", pad_side=request.param)
    text = PlaceMatters(tower.text[0]).eval()
    return _write(replace(tower, text=text, text_spec=spec), tmp_path_factory.mktemp("fixed"))


def _open(written: Written) -> TextTower:
    return TextTower(written.path, written.tower.tokenizer, written.contract)


@torch.no_grad()
def _by_pytorch(tower: DualTower, texts: list[str]) -> Floats:
    """Encode texts one at a time."""
    encoder, tokenizer = TextEncoder(tower), load_tokenizer(tower.tokenizer)
    rows = [token_ids(tokenizer, [text], tower.text_spec) for text in texts]
    return np.concatenate([encoder(torch.from_numpy(row))[0].numpy() for row in rows])


def test_texts_keep_their_order_whatever_their_lengths(free):
    lengths = [len(text) for text in TEXTS]
    assert set(lengths) == set(range(1, 17))
    assert lengths != sorted(lengths)
    found = _open(free).encode(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), 8), np.float32)
    np.testing.assert_allclose(found, _by_pytorch(free.tower, TEXTS), rtol=0, atol=1e-5)


def test_a_tower_of_a_fixed_length_is_given_that_length(fixed):
    found = _open(fixed).encode(TEXTS)
    np.testing.assert_allclose(found, _by_pytorch(fixed.tower, TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1])
def test_any_number_of_texts_is_encoded(free, count):
    tower = _open(free)
    found = tower.encode(TEXTS[:count])
    assert found.shape == (count, 8)
    np.testing.assert_allclose(found, tower.encode(TEXTS)[:count], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_no_batch_is_larger_than_triton_takes(free, monkeypatch):
    tower, sizes = _open(free), []
    run = tower._session.run

    def count(outputs: None, inputs: dict[str, np.ndarray]) -> Any:
        sizes.append(inputs["INPUT_IDS"].shape)
        return run(outputs, inputs)

    monkeypatch.setattr(tower._session, "run", count)
    tower.encode(TEXTS)
    assert [rows for rows, _ in sizes] == [BATCH, BATCH, 9]
    assert [length for _, length in sizes] == sorted(length for _, length in sizes)


def test_the_same_text_twice_has_one_embedding(free):
    one, other, _ = _open(free).encode(["猫", "猫", "狗"])
    np.testing.assert_array_equal(one, other)


def test_a_tower_of_another_export_is_refused(free):
    other = msgspec.structs.replace(free.contract, fingerprint=free.contract.fingerprint ^ 1)
    tower = TextTower(free.path, free.tower.tokenizer, other)
    with pytest.raises(ModelError, match="are of different exports: export again") as caught:
        tower.encode(["猫"])
    assert str(free.contract.fingerprint) in str(caught.value)
    assert str(other.fingerprint) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"), [("猫" * 17, "is 17 tokens and the model reads 16"), ("", "no character")]
)
def test_a_text_that_the_model_cannot_read_is_named(free, text, reason):
    with pytest.raises(LabelError, match=reason):
        _open(free).encode(["猫", text, "狗"])
