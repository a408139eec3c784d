"""The gate refuses a wrong conversion; each fault is planted in a real small checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from support.checkpoints import make_checkpoint
from wanwu.contract import Precision, Score
from wanwu.errors import ModelError
from wanwu_export.checkpoint.model import CheckpointPath, load_checkpoint
from wanwu_export.checkpoint.source import locate
from wanwu_export.dual_tower import DualTower, Scale
from wanwu_export.onnx_towers import write_image_encoder, write_text_encoder
from wanwu_export.parity import LEAST_COSINE, MAX_BATCH, Gate
from wanwu_export.precision import convert

FP32 = Precision(image="fp32", text="fp32")
Load = Callable[[], DualTower]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("chinese_clip", tmp_path_factory.mktemp("gate") / "checkpoint")


@pytest.fixture(scope="module")
def gentle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gentle") / "checkpoint"
    return make_checkpoint("chinese_clip", folder, spread=0.1)


@pytest.fixture
def load(folder: Path) -> Load:
    """Load it anew: the faults below are planted in place."""
    return lambda: load_checkpoint(locate(str(folder)), FP32)


@pytest.fixture(scope="module")
def converted(gentle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[DualTower, Path]:
    """A right conversion of both towers, in every precision."""
    tower, out = load_checkpoint(locate(str(gentle)), FP32), tmp_path_factory.mktemp("converted")
    for side, write in (("image", write_image_encoder), ("text", write_text_encoder)):
        write(tower, out / f"{side}-fp32.onnx")
        for precision in ("fp16", "int8"):
            convert(out / f"{side}-fp32.onnx", precision, out / f"{side}-{precision}.onnx")
    return tower, out


def _with(tower: DualTower, **changes: Any) -> DualTower:
    """Change what is part of the fingerprint, and keep the one that the files answer."""
    changed = replace(tower, **changes)
    changed.__dict__["fingerprint"] = tower.fingerprint
    return changed


def check(gate: Gate, side: str) -> Callable[[Path, str], Any]:
    return gate.check_image if side == "image" else gate.check_text


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_right_conversion_passes_in_every_precision(converted, precision):
    tower, out = converted
    gate = Gate(_with(tower, precision=Precision(image=precision, text=precision)))
    assert gate.check_preparation() <= 1.0
    for side, kinds in (("image", 10), ("text", 16)):
        parity = check(gate, side)(out / f"{side}-{precision}.onnx", precision)
        assert parity.required_cosine == LEAST_COSINE[precision]
        assert parity.batches == (1, 3, MAX_BATCH)
        assert len(parity.cosines) == kinds
        assert LEAST_COSINE[precision] <= parity.least_cosine <= 1.000001
    answers = gate.check_answers()
    assert answers.pictures == 10
    if precision == "fp32":
        assert answers.largest_difference <= 1e-3


def test_lower_precisions_are_really_lower(converted):
    tower, out = converted
    gate = Gate(tower)
    least = {
        precision: gate.check_text(out / f"text-{precision}.onnx", precision).least_cosine
        for precision in LEAST_COSINE
    }
    assert least["fp32"] > 0.999999 > least["fp16"]
    assert least["int8"] < 0.999999


def test_mean_and_std_in_each_others_place_are_refused(load):
    tower = load()
    right = tower.scale
    assert isinstance(right, Scale)
    wrong = Scale(float(right.factor), right.std.flatten().tolist(), right.mean.flatten().tolist())
    with pytest.raises(ModelError, match="its size, resample filter, mean or std is read wrongly"):
        Gate(replace(tower, scale=wrong)).check_preparation()


def test_red_and_blue_in_each_others_place_are_refused(load):
    tower = load()
    right = tower.scale
    assert isinstance(right, Scale)
    mean, std = right.mean.flatten().tolist()[::-1], right.std.flatten().tolist()[::-1]
    with pytest.raises(ModelError, match="mean or std is read wrongly"):
        Gate(replace(tower, scale=Scale(float(right.factor), mean, std))).check_preparation()


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "lanczos", "box", "hamming"])
def test_another_resample_filter_is_refused(load, resample):
    tower = load()
    geometry = msgspec.structs.replace(tower.image_geometry, resample=resample)
    with pytest.raises(ModelError, match=r"picture '.*' is prepared .* levels away"):
        Gate(replace(tower, image_geometry=geometry)).check_preparation()


def test_a_crop_in_place_of_a_squash_is_refused(load):
    tower = load()
    geometry = msgspec.structs.replace(
        tower.image_geometry, resize="shortest_edge", shortest_edge=tower.image_geometry.height
    )
    with pytest.raises(ModelError, match="levels away from the checkpoint's own processor"):
        Gate(replace(tower, image_geometry=geometry)).check_preparation()


def test_another_size_is_refused(load):
    tower = load()
    geometry = msgspec.structs.replace(tower.image_geometry, height=16)
    with pytest.raises(ModelError, match=r"reaches the tower as \[3, 16, 32\]"):
        Gate(replace(tower, image_geometry=geometry)).check_preparation()


def test_another_tokenizer_is_refused(load):
    tower = load()
    cased = tower.tokenizer.replace(b'"lowercase":true', b'"lowercase":false')
    assert cased != tower.tokenizer
    with pytest.raises(ModelError, match="text 'Latin letters' becomes tokens"):
        Gate(replace(tower, tokenizer=cased)).check_preparation()


def test_another_maximum_length_is_refused(load):
    tower = load()
    shorter = msgspec.structs.replace(tower.text_spec, max_length=20)
    with pytest.raises(ModelError, match=r"text '.*' becomes tokens"):
        Gate(replace(tower, text_spec=shorter)).check_preparation()


def test_a_dropped_attention_mask_is_refused(load, tmp_path):
    tower = load()
    tower.text.masked = False
    write_text_encoder(tower, tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="the text tower in fp32 is too far from the original"):
        Gate(tower).check_text(tmp_path / "text.onnx", "fp32")


def test_a_text_tower_that_overflows_fp16_is_refused(load, tmp_path):
    tower = load()
    layer = tower.text.model.text_model.encoder.layer[0]
    with torch.no_grad():
        # Harmless in FP32, where the next LayerNorm takes it back; past 65,504 in between.
        layer.intermediate.dense.weight.mul_(40_000)
    gate = Gate(tower)
    write_text_encoder(tower, tmp_path / "text.onnx")
    assert gate.check_text(tmp_path / "text.onnx", "fp32").least_cosine >= 0.9999
    convert(tmp_path / "text.onnx", "fp16", tmp_path / "fp16.onnx")
    with pytest.raises(ModelError, match=r"the text tower in fp16 is too far .* cosine nan"):
        gate.check_text(tmp_path / "fp16.onnx", "fp16")


def test_a_wrong_logit_scale_is_refused(converted):
    tower, out = converted
    half = Score(kind="softmax", logit_scale=tower.score.logit_scale / 2)
    gate = Gate(_with(tower, score=half))
    gate.check_image(out / "image-fp32.onnx", "fp32")
    gate.check_text(out / "text-fp32.onnx", "fp32")
    with pytest.raises(ModelError, match="the logit scale or bias is read wrongly"):
        gate.check_answers()


class _Turned(CheckpointPath):
    """An original that sees other labels first."""

    def run(self, pictures, texts):
        outputs = super().run(pictures, texts)
        return outputs._replace(logits=-outputs.logits, text=-outputs.text)


def test_another_best_label_is_refused(converted):
    tower, out = converted
    gate = Gate(tower)
    gate.check_image(out / "image-fp32.onnx", "fp32")
    gate.check_text(out / "text-fp32.onnx", "fp32")
    original = tower.original
    assert isinstance(original, CheckpointPath)
    turned = _Turned.__new__(_Turned)
    turned.__dict__.update(original.__dict__)
    gate._original, gate._expected = turned, None
    with pytest.raises(ModelError, match="another label than the original's comes first for"):
        gate.check_answers()


def test_a_tower_of_another_checkpoint_is_refused(converted, tmp_path):
    _, out = converted
    other = make_checkpoint("chinese_clip", tmp_path / "other", seed=1)
    tower = load_checkpoint(locate(str(other)), FP32)
    with pytest.raises(ModelError, match="answers fingerprint"):
        Gate(tower).check_image(out / "image-fp32.onnx", "fp32")
    tower.__dict__["fingerprint"] = converted[0].fingerprint
    with pytest.raises(ModelError, match="the image tower in fp32 is too far from the original"):
        Gate(tower).check_image(out / "image-fp32.onnx", "fp32")
