"""The exported towers answer as PyTorch does, on real pictures and texts; and the parity gate."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

from wanwu.bank import normalise
from wanwu.contract import Calibration, Contract, Precision, Score
from wanwu.embedded.cuda import CUDA
from wanwu.errors import ModelError
from wanwu.images import to_pixels
from wanwu.rank import scores
from wanwu.repository import Answers, Parity, TowerParity
from wanwu.samples import cat_photo, sample_photos
from wanwu.tokens import load_tokenizer, token_ids
from wanwu_export import parity
from wanwu_export.dual_tower import DualTower, ImageEncoder, Outputs, Scale, TextEncoder
from wanwu_export.onnx_towers import write_image_encoder, write_text_encoder
from wanwu_export.parity import MAX_BATCH, Gate, TowerPath, report
from wanwu_export.parity_inputs import TEXTS, parity_pictures

BANKS = ("label_bank", "label_bank_seed18", "label_bank_luxury")
BATCHES = (1, 3, 64)
SIDES = ("image", "text")
SIDE = 16
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
    geometry = starter.image_geometry
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
def ids(starter, plans) -> np.ndarray:
    """Real texts, padded: INT64 [64, L]."""
    labels = [concept.label for concept in plans["default"].concepts]
    texts = [TEMPLATES[n % 4].format(labels[7 * n], labels[7 * n + 1]) for n in range(64)]
    return token_ids(load_tokenizer(starter.tokenizer), texts, starter.text_spec)


@pytest.fixture(scope="module")
def image_embeddings(starter, pictures) -> Tensor:
    """What PyTorch says of the pictures."""
    with torch.no_grad():
        return ImageEncoder(starter)(torch.from_numpy(pictures))[0]


@pytest.fixture(scope="module")
def text_embeddings(starter, ids) -> Tensor:
    """What PyTorch says of the texts."""
    with torch.no_grad():
        return TextEncoder(starter)(torch.from_numpy(ids))[0]


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
    expected = starter.fingerprint
    for model, inputs in (("image_encoder", pictures), ("text_encoder", ids)):
        _, found = run(model, inputs[:batch])
        assert found.tolist() == [[expected]] * batch
    rows = np.array([0, 0], dtype=np.int64)
    contracts = [Contract.from_json(run(bank, rows)[3][0].encode()) for bank in BANKS]
    assert {contract.fingerprint for contract in contracts} == {expected}


@pytest.mark.parametrize(
    ("bank", "model"), [("default", BANKS[0]), ("seed18", BANKS[1]), ("luxury", BANKS[2])]
)
def test_scores_over_a_bank_are_those_of_pytorch(
    run, starter, pictures, image_embeddings, described, bank, model
):
    rows = run(model, np.array([0, 20], dtype=np.int64))
    stored = normalise(rows[2].astype(np.float32))
    vectors, _ = run("image_encoder", pictures[:8])
    found = scores(vectors @ stored.T, starter.score, Calibration())
    cosines = image_embeddings[:8] @ torch.from_numpy(described[bank][:20]).T
    expected = torch.softmax(starter.score.logit_scale * cosines.double(), dim=-1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-3)


def test_scores_over_labels_of_the_callers_own_are_those_of_pytorch(
    run, starter, pictures, ids, image_embeddings, text_embeddings
):
    vectors, _ = run("image_encoder", pictures[:8])
    labels, _ = run("text_encoder", ids[:20])
    found = scores(vectors @ labels.T, starter.score, Calibration())
    cosines = (image_embeddings[:8] @ text_embeddings[:20].T).double()
    expected = torch.softmax(starter.score.logit_scale * cosines, dim=-1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-3)


def test_a_label_of_a_class_has_its_bank_row_near_its_text(run, starter, plans, described):
    labels = [concept.label for concept in plans["seed18"].concepts]
    ids = token_ids(load_tokenizer(starter.tokenizer), labels, starter.text_spec)
    texts, _ = run("text_encoder", ids)
    cosines = texts @ described["seed18"].T
    assert (cosines.argmax(-1) == np.arange(len(labels))).mean() > 0.9


class Otherwise(TowerPath):
    """An original whose pixels, tokens or answers are not those of its towers."""

    def __init__(
        self,
        tower: DualTower,
        *,
        pixels: Callable[[Tensor], Tensor] = lambda values: values,
        tokens: Callable[[list[list[int]]], list[list[int]]] = lambda rows: rows,
        answers: Callable[[Outputs], Outputs] = lambda outputs: outputs,
    ) -> None:
        super().__init__(tower)
        self._pixels, self._tokens, self._answers = pixels, tokens, answers

    def pixel_values(self, picture: Image.Image) -> Tensor:
        return self._pixels(super().pixel_values(picture))

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokens(super().token_ids(texts))

    def run(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Outputs:
        honest = replace(self._tower, original=None)
        return self._answers(TowerPath(honest).run(pictures, texts))


class Altered:
    """An ONNX session whose embeddings are changed, given the batch."""

    def __init__(self, session: Any, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self._session, self._change = session, change
        self.get_inputs = session.get_inputs

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        embeddings, fingerprints = self._session.run(outputs, inputs)
        return [self._change(embeddings.copy()), fingerprints]


@pytest.fixture(scope="module")
def written(make_tower, tmp_path_factory: pytest.TempPathFactory) -> tuple[DualTower, Path]:
    """A tiny tower, and a folder with the ONNX file of each side."""
    tower, folder = make_tower(), tmp_path_factory.mktemp("written")
    write_image_encoder(tower, folder / "image.onnx")
    write_text_encoder(tower, folder / "text.onnx")
    return tower, folder


def _check(gate: Gate, side: str, folder: Path, precision: str = "fp32") -> TowerParity:
    check = {"image": gate.check_image, "text": gate.check_text}[side]
    return check(folder / f"{side}.onnx", precision)


def _answers(written: tuple[DualTower, Path], **changed: Any) -> Answers:
    """Check both towers and the answers, of a tower with some parts changed."""
    tower, folder = written
    gate = Gate(replace(tower, **changed))
    for side in SIDES:
        _check(gate, side, folder)
    return gate.check_answers()


@pytest.mark.parametrize("side", SIDES)
def test_the_gate_accepts_a_sound_tower_and_names_every_kind_it_tried(written, side):
    tower, folder = written
    found = _check(Gate(tower), side, folder)
    assert found.batches == BATCHES == (1, 3, MAX_BATCH)
    assert (found.precision, found.required_cosine) == ("fp32", 0.9999)
    assert set(found.cosines) == set(TEXTS if side == "text" else parity_pictures())
    assert 0.99999 <= found.least_cosine <= 1.0


def test_the_gate_accepts_sound_answers(written):
    answers = _answers(written)
    assert (answers.pictures, answers.ties) == (len(parity_pictures()), 0)
    assert answers.largest_difference < 1e-5


@pytest.mark.parametrize("by", [100.0, float("nan")])
@pytest.mark.parametrize("side", SIDES)
def test_the_gate_refuses_a_tower_that_answers_otherwise(written, side, by):
    tower, folder = written

    def shift(outputs: Outputs) -> Outputs:
        shifted = torch.nn.functional.normalize(getattr(outputs, side) + by, dim=-1)
        return outputs._replace(**{side: shifted})

    gate = Gate(replace(tower, original=Otherwise(tower, answers=shift)))
    with pytest.raises(ModelError, match=f"the {side} tower in fp32 is too far from the original"):
        _check(gate, side, folder)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("side", SIDES)
def test_the_gate_sees_one_wrong_row_at_any_batch_size(written, monkeypatch, side, batch):
    tower, folder = written
    session = parity._session

    def last_row_turned(embeddings: np.ndarray) -> np.ndarray:
        if len(embeddings) == batch:
            embeddings[-1] *= -1
        return embeddings

    monkeypatch.setattr(
        parity, "_session", lambda *opened: Altered(session(*opened), last_row_turned)
    )
    with pytest.raises(ModelError, match=r"too far from the original: least cosine -1\.0"):
        _check(Gate(tower), side, folder)


@pytest.mark.parametrize("side", SIDES)
def test_the_gate_names_the_kind_that_is_worst(written, side):
    tower, folder = written
    worst = "tiny" if side == "image" else "emoji"

    def turn(outputs: Outputs) -> Outputs:
        rows = getattr(outputs, side).clone()
        rows[list(parity_pictures() if side == "image" else TEXTS).index(worst)] *= -1
        return outputs._replace(**{side: rows})

    gate = Gate(replace(tower, original=Otherwise(tower, answers=turn)))
    with pytest.raises(ModelError, match=f"worst on '{worst}'; nothing was published"):
        _check(gate, side, folder)


@pytest.mark.parametrize(
    ("precision", "cosine", "fits"),
    [("fp32", 0.99985, False), ("fp32", 0.99995, True), ("fp16", 0.9985, False),
     ("fp16", 0.9995, True), ("int8", 0.9985, False), ("int8", 0.9995, True)],
)  # fmt: skip
def test_a_lower_precision_may_be_a_little_further_away(
    written, monkeypatch, precision, cosine, fits
):
    tower, folder = written
    session = parity._session

    def turn(rows: np.ndarray) -> np.ndarray:
        across = np.roll(rows, 1, axis=1)
        across = normalise(across - (across * rows).sum(1, keepdims=True) * rows)
        return (cosine * rows + np.sqrt(1 - cosine**2) * across).astype(np.float32)

    monkeypatch.setattr(parity, "_session", lambda *opened: Altered(session(*opened), turn))
    if fits:
        found = _check(Gate(tower), "image", folder, precision)
        assert found.least_cosine == pytest.approx(cosine, abs=1e-5)
    else:
        with pytest.raises(ModelError, match=f"the image tower in {precision} is too far"):
            _check(Gate(tower), "image", folder, precision)


def test_the_gate_names_the_device_that_it_ran_on(written, monkeypatch):
    tower, folder = written
    on_cpu = parity._session
    monkeypatch.setattr(parity, "cuda_session", lambda path: on_cpu(path, False))  # stands for it
    gate = Gate(tower, gpu="NVIDIA H100")
    assert _check(gate, "image", folder, "fp16").device == "NVIDIA H100"
    assert _check(Gate(tower), "image", folder).device == "CPU"


def test_a_gpu_rounds_fp16_by_itself(written, monkeypatch):
    tower, folder = written
    on_cpu = parity._session
    monkeypatch.setattr(parity, "cuda_session", lambda path: on_cpu(path, False))
    monkeypatch.setattr(parity, "write_rounded", lambda *paths: pytest.fail("rounded on the CPU"))
    assert _check(Gate(tower, gpu="NVIDIA H100"), "image", folder, "fp16").least_cosine > 0.999


def test_int8_is_compared_on_the_cpu_that_it_is_for(written):
    tower, folder = written
    assert _check(Gate(tower, gpu="NVIDIA H100"), "image", folder, "int8").device == "CPU"


@pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_a_gate_on_a_gpu_never_falls_back_to_the_cpu(written):
    tower, folder = written
    with pytest.raises(RuntimeError, match="has no CUDA provider"):
        _check(Gate(tower, gpu="NVIDIA H100"), "image", folder)


@pytest.mark.parametrize("side", SIDES)
def test_the_gate_refuses_embeddings_that_are_not_of_unit_length(written, monkeypatch, side):
    tower, folder = written
    session = parity._session
    monkeypatch.setattr(
        parity, "_session", lambda *opened: Altered(session(*opened), lambda rows: rows * 2)
    )
    with pytest.raises(ModelError, match=r"embeddings of length 2\.0000 to 2\.0000"):
        _check(Gate(tower), side, folder)


@pytest.mark.parametrize("side", SIDES)
def test_the_gate_refuses_an_original_of_another_width(written, side):
    tower, folder = written

    def narrow(outputs: Outputs) -> Outputs:
        return outputs._replace(**{side: getattr(outputs, side)[:, :4]})

    gate = Gate(replace(tower, original=Otherwise(tower, answers=narrow)))
    with pytest.raises(ModelError, match=f"the {side} tower gives 8 numbers and the original 4"):
        _check(gate, side, folder)


@pytest.mark.parametrize("side", SIDES)
def test_the_gate_refuses_another_fingerprint(written, side):
    tower, folder = written
    other = replace(tower, tokenizer=tower.tokenizer + b" ")
    with pytest.raises(ModelError, match=rf"answers fingerprint \[{tower.fingerprint}\]"):
        _check(Gate(other), side, folder)


def test_pictures_prepared_alike_are_accepted(written):
    assert Gate(written[0]).check_preparation() == 0.0


@pytest.mark.parametrize(("by", "fits"), [(1.9, True), (2.1, False), (float("nan"), False)])
def test_pixels_may_differ_by_rounding_alone(written, by, fits):
    tower, _ = written
    level = 1 / 255 / 0.5

    def shift(values: Tensor) -> Tensor:
        values = values.clone()
        values[1, 2, 3] += by * level
        return values

    gate = Gate(replace(tower, original=Otherwise(tower, pixels=shift)))
    if fits:
        assert gate.check_preparation() == pytest.approx(by, abs=0.001)
    else:
        with pytest.raises(ModelError, match=r"picture '16:9' is prepared .* of 255 levels away"):
            gate.check_preparation()


@pytest.mark.parametrize(
    "changed",
    [
        {"image_geometry": {"resample": "nearest"}},
        {"image_geometry": {"resize": "shortest_edge", "shortest_edge": SIDE}},
        {"scale": Scale(1 / 255, [0.5] * 3, [0.6] * 3)},
        {"scale": Scale(1 / 255, [0.5, 0.5, 0.4], [0.5] * 3)},
    ],
    ids=["resample", "resize", "std", "mean"],
)
def test_another_way_to_prepare_pictures_is_refused(written, changed):
    tower, _ = written
    if "image_geometry" in changed:
        geometry = msgspec.structs.replace(tower.image_geometry, **changed["image_geometry"])
        changed = {"image_geometry": geometry}
    gate = Gate(replace(tower, original=TowerPath(tower), **changed))
    with pytest.raises(ModelError, match="resample filter, mean or std is read wrongly"):
        gate.check_preparation()


def test_another_size_of_pictures_is_refused(written):
    tower, _ = written
    gate = Gate(replace(tower, original=Otherwise(tower, pixels=lambda values: values[:, :8])))
    with pytest.raises(ModelError, match=r"as \[3, 16, 16\] and .* makes \[3, 8, 16\]"):
        gate.check_preparation()


@pytest.mark.parametrize(
    "change",
    [lambda row: row[:-1], lambda row: [*row, 2], lambda row: row[::-1]],
    ids=["cut", "longer", "reversed"],
)
def test_other_token_ids_are_refused_by_the_text_they_belong_to(written, change):
    tower, _ = written
    place = list(TEXTS).index("digits")

    def tokens(rows: list[list[int]]) -> list[list[int]]:
        return [change(row) if n == place else row for n, row in enumerate(rows)]

    gate = Gate(replace(tower, original=Otherwise(tower, tokens=tokens)))
    with pytest.raises(ModelError, match=r"text 'digits' becomes tokens .* tokenizer gives"):
        gate.check_preparation()


def test_texts_over_the_maximum_are_cut_alike(written):
    tower, _ = written
    rows = TowerPath(tower).token_ids(list(TEXTS.values()))
    assert max(map(len, rows)) == tower.text_spec.max_length
    assert min(map(len, rows)) == 1


def _logits(change: Callable[[Tensor], Tensor]) -> Callable[[Outputs], Outputs]:
    return lambda outputs: outputs._replace(logits=change(outputs.logits))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("change", "fits"),
    [(lambda logits: logits, True), (lambda logits: logits * 1.1, False)],
    ids=["as read", "another scale"],
)
def test_a_logit_scale_that_is_read_wrongly_is_refused(
    written, fingerprint_of, kind, precision, change, fits
):
    tower, _ = written
    scored = replace(
        tower,
        score=Score(kind=kind, logit_scale=10.0, logit_bias=-2.0 if kind == "sigmoid" else 0.0),
        precision=Precision(image="fp32", text=precision),
    )
    original = Otherwise(scored, answers=_logits(change))
    with fingerprint_of(tower):
        if fits:
            _answers(written, score=scored.score, precision=scored.precision, original=original)
            return
        with pytest.raises(ModelError, match="the logit scale or bias is read wrongly"):
            _answers(written, score=scored.score, precision=scored.precision, original=original)


@pytest.fixture
def fingerprint_of(monkeypatch):
    """Give a context in which every tower has one tower's fingerprint, to reuse its files."""

    @contextmanager
    def use(tower: DualTower) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(DualTower, "fingerprint", tower.fingerprint)
            yield

    return use


@pytest.fixture
def turned_image_tower(monkeypatch):
    """The image tower's file answers the opposite, and no cosine is too low for the gate."""
    session = parity._session

    def open_turned(path: Path, rounded: bool) -> Any:
        opened = session(path, rounded)
        return Altered(opened, np.negative) if path.stem == "image" else opened

    monkeypatch.setattr(parity, "_session", open_turned)
    monkeypatch.setattr(parity, "LEAST_COSINE", {"fp32": -1.1})


def test_another_best_label_is_refused_by_the_picture(written, turned_image_tower):
    with pytest.raises(ModelError, match=r"comes first for 10 of 10 pictures \(16:9, 9:16, "):
        _answers(written)


def test_another_best_label_that_is_as_good_is_a_tie(
    written, turned_image_tower, fingerprint_of, monkeypatch
):
    monkeypatch.setattr(parity, "TIE_COSINE", 2.1)
    with fingerprint_of(written[0]):
        answers = _answers(written, precision=Precision(image="int8", text="int8"))
    assert (answers.pictures, answers.ties) == (10, 10)
    assert answers.largest_difference > 0.01


def test_a_report_says_what_was_compared_and_the_worst_kind():
    def checked(precision: str, device: str = "CPU", **cosines: float) -> TowerParity:
        return TowerParity(
            precision=precision,
            required_cosine=0.9,
            batches=BATCHES,
            cosines=cosines,
            device=device,
        )

    towers = {
        "image": (checked("fp32", tiny=0.999999, noise=0.999998), checked("int8", tiny=0.9995)),
        "text": (checked("fp32", "NVIDIA H100", emoji=1.0),),
    }
    answers = Answers(pictures=10, ties=2, largest_difference=0.00012)
    rows = report(Parity(pixel_levels=0.25, towers=towers, answers=answers))
    assert rows == [
        ("pixels, at most", "0.25 of 255 levels apart"),
        ("image tower, fp32", "cosine at least 0.999998 ('noise')"),
        ("image tower, int8", "cosine at least 0.999500 ('tiny')"),
        ("text tower, fp32", "cosine at least 1.000000 ('emoji')"),
        ("compared on", "CPU, NVIDIA H100"),
        ("best label", "the same for 10 pictures, 2 of them ties"),
        ("probabilities", "at most 0.000120 apart"),
    ]
