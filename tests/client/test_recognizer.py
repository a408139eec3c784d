from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wanwu import ImageError, InputError, LabelError, Recognizer, ServerError
from wanwu.embedded.server import EmbeddedServer
from wanwu.evaluate import measure, read_truth
from wanwu.images import open_rgb
from wanwu.samples import cat_photo

PETS = ("一杯咖啡", "狗", "猫", "摩托车")


def test_a_cat_is_a_cat(recognizer: Recognizer) -> None:
    answer = recognizer.recognize(cat_photo(), labels=PETS)
    assert answer.top.label == "猫"
    assert answer.banks == ()
    assert answer.fingerprint == recognizer.contract().fingerprint
    assert sum(item.score for item in answer.predictions) == pytest.approx(1.0, abs=1e-4)
    assert 0 < answer.seconds < recognizer.timeout_s


def test_a_bank_gives_its_labels_in_falling_order(recognizer: Recognizer) -> None:
    answer = recognizer.recognize(cat_photo(), top_k=7)
    scores = [item.score for item in answer.predictions]
    assert len(scores) == 7
    assert scores == sorted(scores, reverse=True)
    assert {item.label for item in answer.predictions} <= set(recognizer.labels())
    assert answer.banks == (recognizer.contract().bank.name,)


def test_top_k_beyond_the_labels_gives_all_of_them(recognizer: Recognizer) -> None:
    answer = recognizer.recognize(cat_photo(), labels=PETS, top_k=100)
    assert {item.label for item in answer.predictions} == set(PETS)


def test_every_kind_of_source_gives_the_same_answer(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "猫.jpg").write_bytes(cat_photo())
    picture = open_rgb(cat_photo())
    sources: list[Any] = [tmp_path / "猫.jpg", cat_photo(), picture, np.asarray(picture)]
    answers = [recognizer.recognize(source, labels=PETS) for source in sources]
    for answer in answers:
        assert answer.top.cosine == pytest.approx(answers[0].top.cosine, abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_a_picture_of_any_mode_is_answered(recognizer: Recognizer, mode: str) -> None:
    with Image.open(io.BytesIO(cat_photo())) as photo:
        picture = photo.convert("I").point(lambda value: value * 257) if mode == "I;16" else photo
        answer = recognizer.recognize(picture.convert(mode), labels=PETS)
    assert len(answer.predictions) == len(PETS)
    if mode != "1":
        assert answer.top.label == "猫"


def test_the_list_of_banks_starts_with_the_default(recognizer: Recognizer) -> None:
    banks = recognizer.banks()
    assert banks[0] == "default"
    assert len(banks) == len(set(banks)) > 1
    for bank in banks:
        assert len(recognizer.labels(bank)) == recognizer.contract(bank).bank.count


def test_texts_are_encoded_to_unit_length_whatever_their_number(recognizer: Recognizer) -> None:
    texts = [f"第{number}只猫" for number in range(70)]
    vectors = recognizer.embed_texts(texts)
    assert vectors.shape == (70, recognizer.contract().embedding_dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    alone = recognizer.embed_texts([texts[69]])[0]
    np.testing.assert_allclose(vectors[69], alone, atol=1e-4)


def test_a_picture_is_encoded_to_unit_length(recognizer: Recognizer) -> None:
    vector = recognizer.embed_image(cat_photo())
    assert vector.shape == (recognizer.contract().embedding_dim,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)


def test_many_threads_may_share_a_recognizer(server: EmbeddedServer) -> None:
    with Recognizer(server.url) as recognizer, ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda k: recognizer.recognize(cat_photo(), labels=PETS, top_k=k), [1, 2] * 8)
        )
    assert [len(answer.predictions) for answer in answers] == [1, 2] * 8
    assert {answer.top.label for answer in answers} == {"猫"}


@pytest.mark.parametrize(
    ("options", "kind", "reason"),
    [
        ({"top_k": 0}, InputError, "top_k is 0"),
        ({"labels": PETS, "bank": "default"}, InputError, "both labels and a bank"),
        ({"labels": []}, LabelError, "empty"),
        ({"labels": "猫"}, LabelError, "one text"),
        ({"labels": ["猫", "\ud800"]}, LabelError, "label"),
        ({"bank": "Seed 18"}, InputError, "cannot be a bank's name"),
        ({"bank": "nosuch"}, ServerError, r"anks served: default, "),
    ],
    ids=["top_k", "both", "empty", "text", "surrogate", "bank-name", "bank-missing"],
)
def test_what_cannot_be_asked_is_refused(
    recognizer: Recognizer, options: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        recognizer.recognize(cat_photo(), **options)


def test_a_limit_of_pixels_holds(server: EmbeddedServer) -> None:
    with (
        Recognizer(server.url, max_pixels=1000) as recognizer,
        pytest.raises(ImageError, match="the limit is 1,000"),
    ):
        recognizer.recognize(cat_photo())


def test_measuring_counts_hits_misses_and_failures(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "猫.jpg").write_bytes(cat_photo())
    (tmp_path / "坏.jpg").write_bytes(b"x")
    truth = tmp_path / "truth.tsv"
    truth.write_text("file\tlabel\n猫.jpg\t猫\n猫.jpg\t1\n坏.jpg\t狗\nx\t\n", encoding="utf-8")
    report = measure(recognizer, tmp_path, read_truth(truth), labels=PETS)
    assert (report.pictures, report.labels, report.unlabelled) == (2, 4, 1)
    assert (report.top_1, report.top_5) == (0.5, 1.0)
    assert report.confusions == (("狗", "猫", 1),)
    assert len(report.failures) == 1
    assert "坏.jpg" in report.failures[0]


def test_measuring_refuses_a_true_label_that_is_not_offered(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.tsv"
    truth.write_text("file\tlabel\na.jpg\t猫\nb.jpg\t大象\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"truth\.tsv line 3: '大象' is not one of the 4 labels"):
        measure(recognizer, tmp_path, read_truth(truth), labels=PETS)
