"""Descriptions: label, other names, broader words and description, weighed into one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanwu.bank import normalise
from wanwu.errors import ModelError
from wanwu.rank import Floats
from wanwu_export.concepts import Concept, imagenet_concepts
from wanwu_export.describe import Weights, describe, vocabulary
from wanwu_export.templates import Templates, load_templates

BARE = load_templates("bare")
WEIGHTS = Weights(alias=0.3, description=0.5, broader=0.6)
#: Each text has an axis of its own, so that the weights can be read off a description.
WORDS = ("猫", "猫咪", "家猫", "猫科", "哺乳动物", "动物", "狗", "桌子", "一只猫", "猫的照片")


class Encoder:
    """Gives the axis of each word, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Floats:
        self.asked.append(list(texts))
        return np.eye(len(WORDS), dtype=np.float32)[[WORDS.index(text) for text in texts]]


@pytest.fixture
def encode() -> Encoder:
    return Encoder()


def random_encode(texts: Sequence[str]) -> Floats:
    """Give each text a direction of its own."""
    seeds = [int.from_bytes(text.encode()[-6:], "big") for text in texts]
    rows = [np.random.default_rng(seed).standard_normal(16) for seed in seeds]
    return normalise(np.array(rows, dtype=np.float32))


def unit(**weights: float) -> Floats:
    axes = Encoder()(list(weights))
    return normalise(np.array(list(weights.values()), dtype=np.float32) @ axes)


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        (Concept("猫"), unit(猫=1)),
        (Concept("猫", aliases=("猫咪",)), unit(猫=1, 猫咪=0.3)),
        (
            Concept("猫", aliases=("猫咪", "家猫")),
            unit(猫=1, 猫咪=0.3 / 2**0.5, 家猫=0.3 / 2**0.5),
        ),
        (Concept("猫", category="动物"), unit(猫=1, 动物=0.6)),
        (Concept("猫", broader=("动物",), category="动物"), unit(猫=1, 动物=0.6)),
        (Concept("猫", description="哺乳动物"), unit(猫=1, 哺乳动物=0.5)),
        (
            Concept("猫", ("猫咪",), "动物", ("猫科",), "哺乳动物"),
            unit(猫=1, 猫咪=0.3, 猫科=0.6 / 2**0.5, 动物=0.6 / 2**0.5, 哺乳动物=0.5),
        ),
    ],
)
def test_a_description_weighs_label_aliases_broader_words_and_description(
    encode, concept, expected
):
    found = describe([concept], encode, BARE, WEIGHTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_descriptions_keep_the_order_of_the_concepts(encode):
    found = describe([Concept(word) for word in WORDS], encode, BARE, WEIGHTS)
    np.testing.assert_array_equal(found, np.eye(len(WORDS)))


def test_broader_words_bring_a_class_nearer_to_them(encode):
    concepts = [Concept("猫"), Concept("猫", broader=("哺乳动物",))]
    plain, described = describe(concepts, encode, BARE, WEIGHTS)
    animal, table = encode(["哺乳动物", "桌子"])
    assert described @ animal > plain @ animal + 0.3
    assert described @ table == plain @ table


def test_a_text_is_the_mean_of_its_templates(encode):
    templates = Templates("two", ("一只{}", "{}的照片"))
    found = describe([Concept("猫")], encode, templates, WEIGHTS)
    np.testing.assert_allclose(found[0], unit(一只猫=1, 猫的照片=1), atol=1e-6)


def test_aliases_stand_in_templates_and_the_description_as_it_is(encode):
    concept = Concept("猫", aliases=("猫",), description="猫")
    describe([concept], encode, Templates("one", ("一只{}",)), WEIGHTS)
    assert encode.asked == [["一只猫", "猫"]]


def test_a_label_may_hold_braces():
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> Floats:
        asked.extend(texts)
        return np.ones((len(texts), 1), dtype=np.float32)

    describe([Concept("{}{0}")], encode, Templates("one", ("一只{}",)), WEIGHTS)
    assert asked == ["一只{}{0}"]


@pytest.mark.parametrize(
    ("weights", "asked"),
    [
        (Weights(alias=0, description=0, broader=0), {"猫"}),
        (Weights(alias=1, description=0, broader=0), {"猫", "猫咪"}),
        (Weights(alias=0, description=1, broader=0), {"猫", "哺乳动物"}),
        (Weights(alias=0, description=0, broader=1), {"猫", "猫科", "动物"}),
    ],
)
def test_texts_that_weigh_nothing_are_not_encoded(encode, weights, asked):
    describe([Concept("猫", ("猫咪",), "动物", ("猫科",), "哺乳动物")], encode, BARE, weights)
    assert set(encode.asked[0]) == asked


def test_every_distinct_text_is_encoded_once_and_all_in_one_call(encode):
    concepts = [
        Concept("猫", ("猫咪",), "动物", ("猫科", "动物"), "猫咪"),
        Concept("狗", ("猫咪",), "动物"),
    ]
    describe(concepts, encode, BARE, WEIGHTS)
    assert [sorted(texts) for texts in encode.asked] == [
        sorted(["猫", "猫咪", "动物", "猫科", "狗"])
    ]


def test_descriptions_are_the_formula_worked_out_by_hand():
    templates = load_templates("zh")

    def v(*texts: str) -> Floats:
        means = [random_encode([t.replace("{}", x) for t in templates.texts]) for x in texts]
        return normalise(np.mean([normalise(mean.mean(0)) for mean in means], axis=0))

    concept = Concept("猫", ("猫咪", "家猫"), "动物", ("猫科",), "抓老鼠")
    total = v("猫") + 0.3 * v("猫咪", "家猫") + 0.6 * v("猫科", "动物")
    expected = normalise(total + 0.5 * random_encode(["抓老鼠"])[0])
    (found,) = describe([concept], random_encode, templates, WEIGHTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(st.lists(st.sampled_from(imagenet_concepts()), min_size=1, max_size=8))
def test_a_concept_is_described_alike_in_any_company_and_with_unit_length(concepts):
    together = describe(concepts, random_encode, BARE, WEIGHTS)
    alone = [describe([concept], random_encode, BARE, WEIGHTS)[0] for concept in concepts]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("bad", ["狗", "桌子", "家猫"])
def test_an_embedding_that_is_not_finite_is_refused_by_its_label(encode, value, bad):
    def broken(texts: Sequence[str]) -> Floats:
        rows = encode(texts)
        rows[texts.index(bad)] = value
        return rows

    concepts = [Concept("猫"), Concept("狗", aliases=("桌子",), category="家猫")]
    with pytest.raises(ModelError, match="no finite embedding for label '狗'"):
        describe(concepts, broken, BARE, WEIGHTS)


def test_the_vocabulary_holds_every_word_once_and_no_blank():
    concepts = [Concept("猫", ("猫咪",), "动物", ("猫科", "动物"), "抓老鼠"), Concept("狗")]
    assert vocabulary(concepts) == sorted(["猫", "猫咪", "动物", "猫科", "狗"])
    assert vocabulary([Concept("猫")]) == ["猫"]
