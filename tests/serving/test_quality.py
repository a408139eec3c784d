"""How well the starter recognises, and that scores are what PyTorch would compute."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanwu import Recognizer
from wanwu.embedded.server import EmbeddedServer
from wanwu.evaluate import measure, read_truth
from wanwu.samples import cat_photo, sample_photos


@pytest.mark.parametrize(
    ("photo", "word"),
    [("chelsea", "猫"), ("coffee", "咖啡"), ("motorcycle_left", "摩托车"), ("china", "宫殿")],
)
def test_the_demo_names_its_photographs_right(
    recognizer: Recognizer, photo: str, word: str
) -> None:
    paths = {path.stem: path for path in sample_photos()}
    assert word in recognizer.recognize(paths[photo]).top.label


def test_labels_that_no_class_has_are_recognised(recognizer: Recognizer) -> None:
    chelsea, coffee, motorcycle, china = sample_photos()
    labels = ["猫", "一杯咖啡", "摩托车", "寺庙", "火锅", "手机"]
    answers = [
        recognizer.recognize(p, labels=labels).top.label
        for p in (chelsea, coffee, motorcycle, china)
    ]
    assert answers == labels[:4]


@pytest.mark.parametrize(
    ("column", "from_truth", "least_top_1", "least_top_5"),
    [("imagenet_index", False, 0.90, 0.96), ("coarse_label", True, 0.95, 0.98)],
)
def test_the_measuring_photographs_are_recognised(
    recognizer: Recognizer,
    shared_photos: Path,
    column: str,
    from_truth: bool,
    least_top_1: float,
    least_top_5: float,
) -> None:
    truth = read_truth(shared_photos / "index.tsv", label_column=column)
    report = measure(recognizer, shared_photos, truth, labels_from_truth=from_truth)
    assert report.failures == ()
    assert report.top_1 >= least_top_1
    assert report.top_5 >= least_top_5


def test_the_18_everyday_categories_fit_the_demo_photographs(recognizer: Recognizer) -> None:
    chelsea, coffee, motorcycle, china = sample_photos()
    wanted = {chelsea: {"动物"}, coffee: {"饮料"}, motorcycle: {"交通工具", "车"}, china: {"建筑"}}
    for photo, labels in wanted.items():
        assert recognizer.recognize(photo, bank="seed18").top.label in labels


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["猫", "饕餮"], "knows no character of 饕餮"),
        (["猫", "熊猫🐼", "熊猫🐻"], "reads 熊猫🐼、熊猫🐻 as one text"),
    ],
)
def test_labels_the_model_cannot_read_or_tell_apart_are_told(
    recognizer: Recognizer, labels: list[str], told: str
) -> None:
    answer = recognizer.recognize(cat_photo(), labels=labels)
    assert any(told in warning for warning in answer.warnings)


def test_ten_thousand_labels_are_encoded_within_a_deadline_for_each_batch(
    server: EmbeddedServer,
) -> None:
    labels = [f"{word}{number}" for word in ("猫", "狗") for number in range(5000)]
    with Recognizer(server.url, timeout_s=3) as client:
        answer = client.recognize(cat_photo(), labels=["猫", *labels[1:5000], *labels[5001:]])
    assert answer.top.label.startswith("猫")
