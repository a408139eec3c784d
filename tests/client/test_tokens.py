"""Labels to token ids: refused when the model cannot read them, padded as the contract says."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from wanwu import LabelError, ModelError
from wanwu.contract import Text
from wanwu.tokens import doubts, load_tokenizer, pad, token_ids, tokenize

PAD = 9
VOCABULARY = {"?": 0, "<s>": 1, "</s>": 2, "猫": 3, "狗": 4, "a": 5, "A": 6}
LABELS = ["猫", "狗猫狗", "Aa"]
ROWS = [[3], [4, 3, 4], [6, 5]]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A token for each character, without special tokens."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return tokenizer


def spec(**fields: object) -> Text:
    return Text(**{"max_length": 5, "pad_id": PAD, "lowercase": False, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("padding", "side", "expected"),
    [
        ("longest", "right", [[3, 9, 9], [4, 3, 4], [6, 5, 9]]),
        ("longest", "left", [[9, 9, 3], [4, 3, 4], [9, 6, 5]]),
        ("max_length", "right", [[3, 9, 9, 9, 9], [4, 3, 4, 9, 9], [6, 5, 9, 9, 9]]),
        ("max_length", "left", [[9, 9, 9, 9, 3], [9, 9, 4, 3, 4], [9, 9, 9, 6, 5]]),
    ],
)
def test_rows_are_padded_as_the_contract_says(
    padding: str, side: str, expected: list[list[int]]
) -> None:
    ids = pad(ROWS, spec(padding=padding, pad_side=side))
    assert ids.tolist() == expected
    assert ids.dtype == np.int64


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_of_the_largest_length_is_not_padded(padding: str, side: str) -> None:
    row = [3, 4, 3, 4, 5]
    assert pad([row], spec(padding=padding, pad_side=side)).tolist() == [row]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_padded_to_the_maximum_looks_alike_alone_and_in_a_batch(side: str) -> None:
    fixed = spec(padding="max_length", pad_side=side)
    alone = [pad([row], fixed)[0].tolist() for row in ROWS]
    assert pad(ROWS, fixed).tolist() == alone


def test_token_ids_are_the_padded_rows_of_the_labels(tokenizer: Tokenizer) -> None:
    assert tokenize(tokenizer, LABELS, spec()) == ROWS
    for fields in ({}, {"padding": "max_length"}, {"pad_side": "left"}):
        found = token_ids(tokenizer, LABELS, spec(**fields))
        assert found.tolist() == pad(ROWS, spec(**fields)).tolist()


def test_labels_are_lowercased_where_the_model_reads_no_capitals(tokenizer: Tokenizer) -> None:
    assert tokenize(tokenizer, ["Aa"], spec(lowercase=True)) == [[5, 5]]
    assert tokenize(tokenizer, ["Aa"], spec(lowercase=False)) == [[6, 5]]


def test_a_label_may_be_as_long_as_the_model_reads_and_no_longer(tokenizer: Tokenizer) -> None:
    assert tokenize(tokenizer, ["猫" * 5], spec()) == [[3] * 5]
    with pytest.raises(LabelError, match="is 6 tokens and the model reads 5; shorten it"):
        tokenize(tokenizer, ["狗", "猫" * 6], spec())


@pytest.mark.parametrize("special", [False, True])
def test_a_label_of_no_token_is_refused(tokenizer: Tokenizer, special: bool) -> None:
    own = Tokenizer.from_str(tokenizer.to_str())
    if special:
        own.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    with pytest.raises(LabelError, match="has no character the model can read"):
        tokenize(own, ["猫", ""], spec())


def test_labels_that_the_model_cannot_read_or_tell_apart_are_told(tokenizer: Tokenizer) -> None:
    labels = ["猫", "🐱🐱", "狗", "🐶🐶"]
    rows = tokenize(tokenizer, labels, spec())
    unread, alike = doubts(tokenizer, labels, rows)
    assert "knows no character of 🐱🐱、🐶🐶" in unread
    assert "reads 🐱🐱、🐶🐶 as one text" in alike
    assert doubts(tokenizer, labels[::2], rows[::2]) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe"])
def test_what_is_no_tokenizer_is_a_model_error(data: bytes) -> None:
    with pytest.raises(ModelError, match=rf"TOKENIZER \({len(data)} bytes\) cannot be read"):
        load_tokenizer(data)
