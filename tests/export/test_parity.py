"""The exported towers answer as PyTorch does, on real pictures and texts; and the parity gate."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from wanwu.bank import normalise
from wanwu.contract import Calibration, Contract
from wanwu.errors import ModelError
from wanwu.images import to_pixels
from wanwu.rank import scores
from wanwu.samples import cat_photo, sample_photos
from wanwu.tokens import load_tokenizer, token_ids
from wanwu_export.dual_tower import ImageEncoder, TextEncoder
from wanwu_export.onnx_towers import (
    image_example,
    text_example,
    write_image_encoder,
    write_text_encoder,
)
from wanwu_export.parity import check_parity

BANKS = ("label_bank", "label_bank_seed18", "label_bank_luxury")
BATCHES = (1, 3, 64)
TEMPLATES = ("{}", "一张{}的照片", "桌上放着{}，旁边是{}。", "{} XL 2024 款")


@pytest.fixture(scope="module")
def run(repository: Path):
    """Give a function that runs an exported model."""
    sessions = {}

    def infer(model: str, inputs: np.ndarray) -> list[np.ndarray]:
        if model not in sessions:
            path = repository / model / "1" / "model.onnx"
            sessions[model] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return sessions[model].run(None, {sessions[model].get_inputs()[0].name: inputs})

    return infer


@pytest.fixture(scope="module")
def pictures(starter) -> np.ndarray:
    """Real photographs, then crops of the cat with more and more noise: UINT8 [64, H, W, 3]."""
    geometry = starter[0].image_geometry
    photos = [to_pixels(photo, geometry) for photo in (cat_photo(), *sample_photos())]
    cat, rng = Image.open(io.BytesIO(cat_photo())).convert("RGB"), np.random.default_rng(0)
    width, height = cat.size
    while len(photos) < 64:
        left, top = rng.integers(0, width // 2), rng.integers(0, height // 2)
        crop = np.asarray(cat.crop((left, top, left + width // 2, top + height // 2)), np.float64)
        noisy = crop + rng.normal(0, len(photos), crop.shape)
        photos.append(to_pixels(noisy.clip(0, 255).astype(np.uint8), geometry))
    return np.stack(photos)


@pytest.fixture(scope="module")
def ids(starter) -> np.ndarray:
    """Real texts, padded: INT64 [64, L]."""
    tower, banks = starter
    labels = [concept.label for concept in banks[0].concepts]
    texts = [TEMPLATES[n % 4].format(labels[7 * n], labels[7 * n + 1]) for n in range(64)]
    return token_ids(load_tokenizer(tower.tokenizer), texts, tower.text_spec)


@pytest.fixture(scope="module")
def image_embeddings(starter, pictures) -> Tensor:
    """What PyTorch says of the pictures."""
    tower, _ = starter
    with torch.no_grad():
        return ImageEncoder(tower.image, tower.fingerprint())(torch.from_numpy(pictures))[0]


@pytest.fixture(scope="module")
def text_embeddings(starter, ids) -> Tensor:
    """What PyTorch says of the texts."""
    tower, _ = starter
    with torch.no_grad():
        return TextEncoder(tower.text, tower.fingerprint())(torch.from_numpy(ids))[0]


def _least_cosine(found: np.ndarray, expected: Tensor) -> float:
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(found), expected, dim=-1)
    assert torch.isfinite(cosines).all()
    return float(cosines.min())


@pytest.mark.parametrize("batch", BATCHES)
def test_the_image_encoder_answers_as_pytorch_does(run, pictures, image_embeddings, batch):
    found, _ = run("image_encoder", pictures[:batch])
    assert found.shape == (batch, 512)
    assert _least_cosine(found, image_embeddings[:batch]) >= 0.99999


@pytest.mark.parametrize("batch", BATCHES)
def test_the_text_encoder_answers_as_pytorch_does(run, ids, text_embeddings, batch):
    found, _ = run("text_encoder", ids[:batch])
    assert found.shape == (batch, 512)
    assert _least_cosine(found, text_embeddings[:batch]) >= 0.9999


def test_different_pictures_have_different_embeddings(image_embeddings):
    # Otherwise the cosines above would say nothing.
    samples = image_embeddings[1:5]
    assert float((samples @ samples.T - torch.eye(4)).max()) < 0.9


@pytest.mark.parametrize("batch", BATCHES)
def test_both_towers_and_every_bank_name_one_fingerprint(run, starter, pictures, ids, batch):
    expected = starter[0].fingerprint()
    for model, inputs in (("image_encoder", pictures), ("text_encoder", ids)):
        _, found = run(model, inputs[:batch])
        assert found.tolist() == [[expected]] * batch
    rows = np.array([0, 0], dtype=np.int64)
    contracts = [Contract.from_json(run(bank, rows)[3][0].encode()) for bank in BANKS]
    assert {contract.fingerprint for contract in contracts} == {expected}


@pytest.mark.parametrize(("place", "model"), [(0, "label_bank"), (1, ""), (2, "")])
def test_scores_over_a_bank_are_those_of_pytorch(
    run, starter, pictures, image_embeddings, place, model
):
    tower, banks = starter
    source = banks[place]
    rows = run(model or f"label_bank_{source.name}", np.array([0, 20], dtype=np.int64))
    stored = normalise(rows[2].astype(np.float32))
    vectors, _ = run("image_encoder", pictures[:8])
    found = scores(vectors @ stored.T, tower.score, Calibration())
    cosines = image_embeddings[:8] @ source.embeddings[:20].T
    expected = torch.softmax(tower.score.logit_scale * cosines.double(), dim=-1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-3)


def test_scores_over_labels_of_the_callers_own_are_those_of_pytorch(
    run, starter, pictures, ids, image_embeddings, text_embeddings
):
    score = starter[0].score
    vectors, _ = run("image_encoder", pictures[:8])
    labels, _ = run("text_encoder", ids[:20])
    found = scores(vectors @ labels.T, score, Calibration())
    cosines = (image_embeddings[:8] @ text_embeddings[:20].T).double()
    expected = torch.softmax(score.logit_scale * cosines, dim=-1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-3)


def test_a_label_of_a_class_has_its_bank_row_near_its_text(run, starter):
    tower, banks = starter
    labels = [concept.label for concept in banks[1].concepts]
    ids = token_ids(load_tokenizer(tower.tokenizer), labels, tower.text_spec)
    texts, _ = run("text_encoder", ids)
    cosines = texts @ banks[1].embeddings.numpy().T
    assert (cosines.argmax(-1) == np.arange(len(labels))).mean() > 0.9


class Shifted(nn.Module):
    """A tower with its mean shifted."""

    def __init__(self, tower: nn.Module, by: float) -> None:
        super().__init__()
        self.tower, self.by = tower, by

    def forward(self, inputs: Tensor) -> Tensor:
        return self.tower(inputs) + self.by


@pytest.fixture(scope="module")
def written(make_tower, tmp_path_factory: pytest.TempPathFactory):
    """A tiny tower, and the ONNX file of each side."""
    tower, folder = make_tower(), tmp_path_factory.mktemp("written")
    write_image_encoder(tower, folder / "image.onnx")
    write_text_encoder(tower, folder / "text.onnx")
    return tower, folder


SIDES = [("image", ImageEncoder, image_example), ("text", TextEncoder, text_example)]


@pytest.mark.parametrize(("side", "encoder", "example"), SIDES)
def test_the_gate_lets_a_true_conversion_through(written, side, encoder, example):
    tower, folder = written
    original = encoder(getattr(tower, side), tower.fingerprint())
    parity = check_parity(
        side, original, folder / f"{side}.onnx", lambda batch: example(tower, batch), 64
    )
    assert parity.batches == BATCHES
    assert 0.99999 <= parity.least_cosine <= 1.0


@pytest.mark.parametrize("by", [100.0, float("nan")])
@pytest.mark.parametrize(("side", "encoder", "example"), SIDES)
def test_the_gate_refuses_a_tower_that_answers_otherwise(written, side, encoder, example, by):
    tower, folder = written
    wrong = encoder(Shifted(getattr(tower, side), by), tower.fingerprint())
    with pytest.raises(ModelError, match=f"the {side} tower's ONNX file is too far from PyTorch"):
        check_parity(side, wrong, folder / f"{side}.onnx", lambda batch: example(tower, batch), 64)


@pytest.mark.parametrize(("side", "encoder", "example"), SIDES)
def test_the_gate_refuses_another_fingerprint(written, side, encoder, example):
    tower, folder = written
    other = encoder(getattr(tower, side), tower.fingerprint() + 1)
    with pytest.raises(ModelError, match=rf"answers fingerprint \[{tower.fingerprint()}\]"):
        check_parity(side, other, folder / f"{side}.onnx", lambda batch: example(tower, batch), 64)
