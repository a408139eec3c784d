"""Warnings of an answer: what is doubtful about its labels and its scores."""

from __future__ import annotations

import asyncio
import copy
import pickle

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from wanwu import AsyncRecognizer, Recognizer
from wanwu.catalog import in_chinese
from wanwu.doubts import Doubt, doubts_of_softmax
from wanwu.samples import cat_photo
from wanwu.tokens import doubts, unreadable


@pytest.fixture(scope="module")
def bert() -> Tokenizer:
    """A WordPiece of BERT's kind, whose normalizer drops what is for private use."""
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "猫", "人")
    ids = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106
    made.normalizer, made.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


@pytest.mark.parametrize("label", ["𬌗", "⼈", "🐱", "Ａ"])
def test_a_label_that_bert_does_not_know_is_told(bert: Tokenizer, label: str) -> None:
    rows = [bert.encode(each).ids for each in (label, "猫")]
    (doubt,) = doubts(bert, [label, "猫"], rows)
    assert doubt.code == "labels_unreadable"
    assert f"knows no character of {label};" in doubt
    assert unreadable(bert, [label, "猫"], rows) == [label]
    assert doubts(bert, ["猫"], rows[1:]) == []


def codes(answer) -> list[str]:
    return [doubt.code for doubt in answer.warnings]


def test_an_answer_among_labels_that_fit_has_no_warning(recognizer: Recognizer) -> None:
    answer = recognizer.recognize(cat_photo(), labels=["猫", "狗"])
    assert (answer.warnings, answer.uncertain) == ((), False)
    assert recognizer.recognize(cat_photo()).warnings == ()


def test_one_label_is_uncertain_and_warned_of_each_time(recognizer: Recognizer) -> None:
    for _ in range(2):
        answer = recognizer.recognize(cat_photo(), labels=["高铁站"])
        assert (codes(answer), answer.uncertain) == (["label_single"], True)
        assert answer.top.label == "不确定"
    cosine = recognizer.recognize(cat_photo(), labels=["猫"], score="cosine")
    assert (cosine.warnings, cosine.uncertain) == ((), False)


def test_labels_that_cannot_be_read_are_uncertain_and_warned_of_each_time(
    recognizer: Recognizer,
) -> None:
    for _ in range(2):
        answer = recognizer.recognize(cat_photo(), labels=["饕餮", "鵸鵌"])
        assert codes(answer) == ["labels_unreadable", "labels_alike", "scores_uniform"]
        assert answer.uncertain
    alone = recognizer.recognize(cat_photo(), labels=["饕餮"], score="cosine")
    assert (codes(alone), alone.uncertain) == (["labels_unreadable"], True)


def test_a_readable_best_label_beside_an_unreadable_one_is_certain(recognizer: Recognizer) -> None:
    answer = recognizer.recognize(cat_photo(), labels=["猫", "饕餮"])
    assert (codes(answer), answer.top.label) == (["labels_unreadable"], "猫")


def test_texts_are_doubted_as_labels_are(recognizer: Recognizer) -> None:
    (doubt,) = recognizer.doubts(["猫", "饕餮"])
    assert doubt.code == "labels_unreadable"
    with pytest.warns(UserWarning, match="knows no character of 饕餮"):
        recognizer.embed_texts(["猫", "饕餮"])


def test_the_asynchronous_client_warns_the_same(server) -> None:
    async def ask() -> None:
        async with AsyncRecognizer(server.url) as recognizer:
            answer = await recognizer.recognize(cat_photo(), labels=["猫", "饕餮"])
            assert codes(answer) == ["labels_unreadable"]
            assert await recognizer.doubts(["猫", "饕餮"]) == answer.warnings

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], ["label_single"]),
        ([0.5, 0.5], ["scores_uniform"]),
        ([0.54, 0.46], ["scores_uniform"]),
        ([0.56, 0.44], []),
        ([0.001] * 1000, ["scores_uniform"]),
        ([0.003, *[0.000998] * 999], []),
    ],
)
def test_scores_hardly_above_chance_are_doubtful(values: list[float], expected: list[str]) -> None:
    found = doubts_of_softmax(np.array(values, np.float32))
    assert [each.code for each in found] == expected


def test_a_doubt_keeps_its_code_and_its_chinese() -> None:
    doubt = Doubt("labels_alike", "{0} is empty", "猫")
    for each in (copy.copy(doubt), pickle.loads(pickle.dumps(doubt))):  # noqa: S301
        assert (each, each.code, each.template) == ("猫 is empty", "labels_alike", "{0} is empty")
    (single,) = doubts_of_softmax(np.ones(1, np.float32))
    assert in_chinese(single).startswith("只有一个标签")
