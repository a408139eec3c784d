"""The fingerprint, shared only by exports whose embeddings may be compared; and the encoders."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import torch
from torch import Tensor, nn

from wanwu.contract import Model, Precision, Score
from wanwu_export.describe import Weights
from wanwu_export.dual_tower import DualTower, ImageEncoder, Scale, TextEncoder

replace_part = msgspec.structs.replace


class Part(nn.Module):
    """One side of a model that holds both."""

    def __init__(self, whole: nn.ModuleList, place: int) -> None:
        super().__init__()
        self.whole, self.place = whole, place

    def forward(self, inputs: Tensor) -> Tensor:
        embedding: Tensor = self.whole[self.place](inputs)
        return embedding

    def extra_repr(self) -> str:
        return str(self.place)


def test_the_same_tower_made_twice_has_the_same_fingerprint(make_tower):
    assert make_tower(7).fingerprint == make_tower(7).fingerprint


def test_a_fingerprint_fits_into_an_int64(make_tower):
    assert all(0 <= make_tower(seed).fingerprint < 2**63 for seed in range(20))


@pytest.mark.parametrize(
    "change",
    [
        lambda tower: {"tokenizer": tower.tokenizer + b" "},
        lambda tower: {"precision": Precision(image="fp16", text="fp32")},
        lambda tower: {"image_geometry": type(tower.image_geometry)(
            height=16, width=16, resize="squash", resample="bicubic")},
        lambda tower: {"text_spec": replace_part(tower.text_spec, pad_side="left")},
        lambda tower: {"text_spec": replace_part(tower.text_spec, padding="max_length")},
        lambda tower: {"score": Score(kind="softmax", logit_scale=10.5)},
        lambda tower: {"scale": Scale(1 / 255, [0.5] * 3, [0.51] * 3)},
        lambda tower: {"scale": Scale(1 / 255, [0.5, 0.51, 0.5], [0.5] * 3)},
        lambda tower: {"scale": Scale(1 / 256, [0.5] * 3, [0.5] * 3)},
        lambda tower: {"image": nn.Sequential(tower.image, nn.Linear(8, 8))},
        lambda tower: {"image": tower.text, "text": tower.image},
    ],
    ids=[
        "tokenizer", "precision", "geometry", "pad side", "padding", "score", "std", "mean",
        "factor", "weights", "towers swapped",
    ],
)  # fmt: skip
def test_whatever_changes_embeddings_changes_the_fingerprint(make_tower, change):
    tower = make_tower()
    assert replace(tower, **change(tower)).fingerprint != tower.fingerprint


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_weight_changed_by_the_least_changes_the_fingerprint(make_tower, side):
    changed = make_tower()
    weight = next(getattr(changed, side).parameters())
    with torch.no_grad():
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
    assert changed.fingerprint != make_tower().fingerprint


def test_what_does_not_change_embeddings_keeps_the_fingerprint(make_tower):
    tower = make_tower()
    renamed = replace(
        tower,
        model=Model(name="other", revision="2", licence="MIT"),
        sources={},
        templates="zh",
        weights=Weights(alias=0.0, description=0.0, broader=0.0),
    )
    assert renamed.fingerprint == tower.fingerprint


def test_the_fingerprint_stays_when_the_weights_are_let_go(make_tower):
    tower = make_tower()
    before = tower.fingerprint
    tower.image.to(torch.device("meta"))
    assert tower.fingerprint == before


def test_towers_that_share_one_whole_model_have_a_fingerprint_over_it(make_tower):
    def shared(seed: int) -> DualTower:
        tower = make_tower(seed)
        whole = nn.ModuleList([tower.image, tower.text])
        return replace(tower, image=Part(whole, 0), text=Part(whole, 1))

    one, other = shared(0), shared(1)
    assert one.fingerprint == shared(0).fingerprint
    assert len({one.fingerprint, other.fingerprint, make_tower(0).fingerprint}) == 3
    with torch.no_grad():
        next(other.text.parameters()).view(-1)[0] += 1
    assert replace(other, sources={}).fingerprint != other.fingerprint


def test_the_same_weights_put_together_otherwise_have_another_fingerprint(make_tower):
    plain, rectified = make_tower(image_end=nn.Identity()), make_tower(image_end=nn.ReLU())
    assert plain.fingerprint != rectified.fingerprint


@torch.no_grad()
def test_encoders_answer_unit_vectors_with_the_fingerprint_on_every_row(make_tower):
    tower = make_tower()
    pixels = torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8)
    ids = torch.randint(1, 1000, (5, 7))
    for encoder, inputs in ((ImageEncoder(tower), pixels), (TextEncoder(tower), ids)):
        embedding, fingerprint = encoder(inputs)
        assert embedding.dtype == torch.float32
        torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(5))
        assert fingerprint.tolist() == [[tower.fingerprint]] * 5


@torch.no_grad()
def test_the_image_encoder_hands_its_tower_rows_of_red_green_blue(make_tower):
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    tower = replace(make_tower(), scale=nn.Identity())
    planes = torch.stack([pixels[..., channel].float() for channel in range(3)], dim=1)
    expected = nn.functional.normalize(tower.image(planes), dim=-1)
    torch.testing.assert_close(ImageEncoder(tower)(pixels)[0], expected)


@torch.no_grad()
def test_the_image_encoder_scales_the_pixels_first(make_tower):
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    tower = replace(make_tower(), scale=Scale(1 / 255, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    planes = ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = nn.functional.normalize(tower.image(planes), dim=-1)
    torch.testing.assert_close(ImageEncoder(tower)(pixels)[0], expected)
