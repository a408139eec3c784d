"""SentencePiece models by `tokenizers`; test_tokenizer.py compares ids with the starter's own."""

from __future__ import annotations

import json
import struct

import pytest
from tokenizers import Tokenizer, normalizers

from wanwu_export.sentencepiece import read_sentencepiece, unigram_tokenizer
from wanwu_export.starter.sentence_encoder import load_sentencepiece


@pytest.fixture(scope="module")
def charsmap() -> bytes:
    """A real character map: NFKC as SentencePiece writes it."""
    return read_sentencepiece(load_sentencepiece())[1]


@pytest.fixture(scope="module")
def tokenizer(charsmap: bytes) -> Tokenizer:
    pieces = [
        ("<pad>", 0.0),
        ("<unk>", -9.0),
        ("▁", -2.0),
        ("猫", -3.0),
        ("▁狗", -1.0),
        ("a", -2.0),
    ]
    return unigram_tokenizer(pieces, charsmap, unk_id=1)


def _field(number: int, data: bytes) -> bytes:
    """Encode a protobuf field of bytes, shorter than 128."""
    return bytes([number << 3 | 2, len(data)]) + data


def _model(*pieces: bytes) -> bytes:
    normalizer = _field(3, _field(1, b"nmt_nfkc") + _field(2, b"map"))
    return b"".join(_field(1, piece) for piece in pieces) + normalizer


def test_pieces_scores_and_character_map_are_read():
    scored = _field(1, "▁猫".encode()) + b"\x15" + struct.pack("<f", -1.5)
    pieces, charsmap = read_sentencepiece(_model(_field(1, b"<unk>"), scored))
    assert pieces == [("<unk>", 0.0), ("▁猫", -1.5)]
    assert charsmap == b"map"


def test_the_starters_model_is_read_whole():
    pieces, charsmap = read_sentencepiece(load_sentencepiece())
    assert len(pieces) == 128_000
    assert [piece for piece, _ in pieces[:3]] == ["<unk>", "<s>", "</s>"]
    assert len(charsmap) > 100_000


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("猫", ["▁", "猫"]),
        ("狗", ["▁狗"]),
        ("猫 狗", ["▁", "猫", "▁狗"]),
        ("  猫   狗 ", ["▁", "猫", "▁狗"]),
        ("ａ", ["▁", "a"]),  # full-width
    ],
)
def test_spaces_become_one_mark_before_a_word(tokenizer, text, tokens):
    assert tokenizer.encode(text).tokens == tokens


@pytest.mark.parametrize("count", [1, 2, 5])
def test_neighbouring_unknown_characters_are_one_token_as_in_sentencepiece(tokenizer, count):
    assert tokenizer.encode("猫" + "🐱" * count + "猫").ids == [2, 3, 1, 3]


def test_a_normaliser_may_come_before_the_models_own(charsmap):
    pieces = [("<unk>", -9.0), ("▁", -2.0), ("a", -2.0)]
    lower = unigram_tokenizer(pieces, charsmap, before=[normalizers.Lowercase()])
    plain = unigram_tokenizer(pieces, charsmap)
    assert (lower.encode("A").ids, plain.encode("A").ids) == ([1, 2], [1, 0])


def test_a_tokenizer_survives_being_written(tokenizer):
    again = Tokenizer.from_str(tokenizer.to_str())
    assert json.loads(again.to_str()) == json.loads(tokenizer.to_str())
    assert again.encode("猫🐱🐱狗").ids == tokenizer.encode("猫🐱🐱狗").ids
