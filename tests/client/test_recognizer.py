from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wanwu import Contract, ImageError, InputError, LabelError, Recognizer, ServerError
from wanwu.answers import Candidates, question, recognition
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.evaluate import measure, read_truth
from wanwu.images import open_rgb
from wanwu.samples import cat_photo
from wanwu.similarity import LabelRows

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


def test_labels_may_have_aliases(recognizer: Recognizer) -> None:
    plain = recognizer.recognize(cat_photo(), labels=["猫", "狗", "摩托车"])
    named = recognizer.recognize(
        cat_photo(), labels={"喵星人": ["猫", "小猫"], "狗": [], "摩托车": ["机车"]}
    )
    assert named.top.label == "喵星人"
    assert named.top.score > 0.5
    # Labels without aliases are encoded as ever.
    dog, same = (
        next(item for item in answer.predictions if item.label == "狗") for answer in (plain, named)
    )
    assert same.cosine == pytest.approx(dog.cosine, abs=1e-6)


def test_an_alias_is_the_mean_of_the_directions(recognizer: Recognizer) -> None:
    vectors = recognizer.embed_texts(["猫", "狗"])
    mean = vectors.sum(axis=0) / np.linalg.norm(vectors.sum(axis=0))
    answer = recognizer.recognize(cat_photo(), labels={"猫": ["狗"]}, score="cosine")
    expected = float(mean @ recognizer.embed_image(cat_photo()))
    assert answer.top.score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "labels", [{"猫": ["猫"]}, {"猫": ["狗"], "狗": []}, {"猫": [""]}, {"猫": "狗狗"}, {}]
)
def test_aliases_that_cannot_be_told_apart_are_refused(recognizer: Recognizer, labels) -> None:
    with pytest.raises(LabelError):
        recognizer.recognize(cat_photo(), labels=labels)


def test_several_banks_are_compared_at_once(recognizer: Recognizer) -> None:
    both = recognizer.recognize(cat_photo(), bank=["seed18", "default"], top_k=2000)
    assert both.banks == ("seed18", "default")
    labels = [item.label for item in both.predictions]
    assert set(labels) == set(recognizer.labels("seed18")) | set(recognizer.labels())
    assert len(labels) == len(set(labels))
    assert sum(item.score for item in both.predictions) == pytest.approx(1.0, abs=1e-3)
    alone = recognizer.recognize(cat_photo(), bank="default")
    assert both.top.label in (alone.top.label, *recognizer.labels("seed18"))
    again = recognizer.recognize(cat_photo(), bank=["seed18", "default", "seed18"])
    assert again.banks == both.banks


def test_a_bank_given_twice_changes_nothing(recognizer: Recognizer) -> None:
    once = recognizer.recognize(cat_photo(), bank="seed18").predictions
    assert recognizer.recognize(cat_photo(), bank=["seed18", "seed18"]).predictions == once


def test_a_threshold_leaves_labels_out_until_the_answer_is_uncertain(recognizer) -> None:
    whole = recognizer.recognize(cat_photo(), labels=PETS)
    second = whole.predictions[1].score
    some = recognizer.recognize(cat_photo(), labels=PETS, threshold=second)
    assert some.predictions == whole.predictions[:2]
    assert not some.uncertain
    none = recognizer.recognize(cat_photo(), labels=PETS, threshold=1.0)
    assert none.predictions == ()
    assert none.uncertain
    assert (none.top.label, none.top.score) == ("不确定", 0.0)
    assert none.best_cosine == pytest.approx(whole.top.cosine)


def test_the_bare_cosine_is_a_score(recognizer: Recognizer) -> None:
    answer = recognizer.recognize(cat_photo(), labels=PETS, score="cosine", threshold=-1.0)
    assert [item.score for item in answer.predictions] == [
        item.cosine for item in answer.predictions
    ]
    assert len(answer.predictions) == len(PETS)


def test_a_sigmoid_is_refused_where_the_model_has_none(recognizer: Recognizer) -> None:
    with pytest.raises(InputError, match="trained with a softmax"):
        recognizer.recognize(cat_photo(), labels=PETS, score="sigmoid")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"threshold": 1.5}, r"threshold is 1\.5"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"score": "logit"}, "score is 'logit'; expected softmax, sigmoid or cosine"),
        ({"bank": ["default", "No Such"]}, "cannot be a bank's name"),
        ({"in_flight": 0}, "in_flight is 0"),
    ],
)
def test_what_cannot_be_asked_of_many_is_refused_before_any_picture_is_read(
    recognizer: Recognizer, options: dict[str, Any], reason: str
) -> None:
    def never() -> Any:
        raise AssertionError("a picture was read")
        yield

    with pytest.raises(InputError, match=reason):
        recognizer.recognize_many(never(), **options)


def test_many_pictures_of_every_kind_are_answered_in_order(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    (tmp_path / "猫.jpg").write_bytes(cat_photo())
    picture = open_rgb(cat_photo())
    sources = [tmp_path / "猫.jpg", cat_photo(), picture, np.asarray(picture), b"bad"] * 8
    for ordered in (True, False):
        answers = list(
            recognizer.recognize_many(sources, labels=PETS, in_flight=16, ordered=ordered)
        )
        answers.sort(key=lambda answer: answer.index)
        assert [answer.index for answer in answers] == list(range(40))
        for source, answer in zip(sources, answers, strict=True):
            assert answer.source is source
            if isinstance(source, bytes) and source == b"bad":
                assert isinstance(answer.error, ImageError)
            else:
                assert answer.recognition is not None
                assert answer.recognition.top.label == "猫"


def test_embeddings_of_many_are_those_of_each(recognizer: Recognizer) -> None:
    expected = recognizer.embed_image(cat_photo())
    for answer in recognizer.embed_many([cat_photo()] * 20):
        assert answer.error is None
        np.testing.assert_allclose(answer.embedding, expected, atol=1e-4)


def test_a_server_that_is_gone_is_told_in_every_answer() -> None:
    with Recognizer(f"127.0.0.1:{free_port()}", timeout_s=2) as recognizer:
        answers = list(recognizer.recognize_many([cat_photo()] * 9, in_flight=32))
    assert [answer.index for answer in answers] == list(range(9))
    assert all(isinstance(answer.error, ServerError) for answer in answers)


def test_a_contracts_reject_cosine_makes_an_answer_uncertain() -> None:
    rows = LabelRows(np.eye(3, 4, dtype=np.float32))
    contract = Contract.from_json(
        b'{"schema_version":1,"fingerprint":7,"embedding_dim":4,'
        b'"model":{"name":"m","revision":"1","licence":"l"},'
        b'"image":{"height":2,"width":2,"resize":"squash","resample":"bicubic"},'
        b'"text":{"max_length":9,"pad_id":0,"lowercase":false},'
        b'"score":{"kind":"softmax","logit_scale":10.0},'
        b'"calibration":{"temperature":1.0,"reject_cosine":0.5},'
        b'"bank":{"name":"default","count":3,"created":"","digest":""},'
        b'"precision":{"image":"fp32","text":"fp32"}}'
    )
    labels = ("猫", "狗", "车")
    candidates = Candidates(contract, ("default",), labels, ("", "", ""), rows)
    asked = question(None, None, 2, None, None)
    for cosine, uncertain in ((0.6, False), (0.4, True)):
        vector = np.array([cosine, 0.1, 0.0, np.sqrt(1 - cosine**2 - 0.01)], np.float32)
        answer = recognition(vector, candidates, asked, 0.0)
        assert answer.uncertain is uncertain
        assert answer.top.label == ("不确定" if uncertain else "猫")
        assert answer.predictions[0].label == "猫"
