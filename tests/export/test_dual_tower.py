"""The fingerprint: two exports share it only if their embeddings may be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from wanwu.contract import Model, Precision
from wanwu_export.dual_tower import ImageEncoder, TextEncoder


def test_the_same_tower_made_twice_has_the_same_fingerprint(make_tower):
    assert make_tower(7).fingerprint() == make_tower(7).fingerprint()


def test_a_fingerprint_fits_into_an_int64(make_tower):
    assert all(0 <= make_tower(seed).fingerprint() < 2**63 for seed in range(20))


@pytest.mark.parametrize(
    "change",
    [
        lambda tower: {"tokenizer": tower.tokenizer + b" "},
        lambda tower: {"precision": Precision(image="fp16", text="fp32")},
        lambda tower: {"image_geometry": type(tower.image_geometry)(
            height=16, width=16, resize="squash", resample="bicubic")},
        lambda tower: {"image": nn.Sequential(tower.image, nn.Linear(8, 8))},
        lambda tower: {"image": tower.text, "text": tower.image},
    ],
    ids=["tokenizer", "precision", "geometry", "weights", "towers swapped"],
)  # fmt: skip
def test_whatever_changes_embeddings_changes_the_fingerprint(make_tower, change):
    tower = make_tower()
    assert replace(tower, **change(tower)).fingerprint() != tower.fingerprint()


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_weight_changed_by_the_least_changes_the_fingerprint(make_tower, side):
    tower = make_tower()
    before = tower.fingerprint()
    weight = next(getattr(tower, side).parameters())
    with torch.no_grad():
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
    assert tower.fingerprint() != before


def test_what_does_not_change_embeddings_keeps_the_fingerprint(make_tower):
    tower = make_tower()
    renamed = replace(tower, model=Model(name="other", revision="2", licence="MIT"), sources={})
    assert renamed.fingerprint() == tower.fingerprint()


def test_the_same_weights_put_together_otherwise_have_another_fingerprint(make_tower):
    plain, rectified = make_tower(image_end=nn.Identity()), make_tower(image_end=nn.ReLU())
    assert plain.fingerprint() != rectified.fingerprint()


@torch.no_grad()
def test_encoders_answer_unit_vectors_with_the_fingerprint_on_every_row(make_tower):
    tower = make_tower()
    pixels = torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8)
    ids = torch.randint(1, 1000, (5, 7))
    encoders = ((ImageEncoder(tower.image, 42), pixels), (TextEncoder(tower.text, 42), ids))
    for encoder, inputs in encoders:
        embedding, fingerprint = encoder(inputs)
        assert embedding.dtype == torch.float32
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(5))
        assert fingerprint.tolist() == [[42]] * 5


@torch.no_grad()
def test_the_image_encoder_hands_its_tower_rows_of_red_green_blue(make_tower):
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    tower = make_tower()
    planes = torch.stack([pixels[..., channel].float() for channel in range(3)], dim=1)
    expected = nn.functional.normalize(tower.image(planes), dim=-1)
    torch.testing.assert_close(ImageEncoder(tower.image, 1)(pixels)[0], expected)
