"""A dual-tower model, ready for conversion: two PyTorch towers and what a client must know."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wanwu.contract import Image, Model, Precision, Score, Text
from wanwu_export.concepts import Concept


@dataclass(frozen=True)
class DualTower:
    """Everything an export needs of a model.

    `image` maps FP32 [N, 3, H, W] in 0..255 to [N, D]; `text` maps INT64 [N, L] to [N, D].
    """

    model: Model
    image: nn.Module
    text: nn.Module
    embedding_dim: int
    image_geometry: Image
    text_spec: Text
    score: Score
    precision: Precision
    tokenizer: bytes
    sources: dict[str, str]

    def fingerprint(self) -> int:
        """Give 63 bits over both towers' layers and weights, geometry, tokenizer and precision.

        Two exports have the same fingerprint only if their embeddings may be compared.
        """
        digest = hashlib.sha256()
        for name, tower in (("image", self.image), ("text", self.text)):
            digest.update(repr(tower).encode())
            for key, tensor in sorted(tower.state_dict().items()):
                digest.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        for part in (self.image_geometry, self.text_spec, self.score, self.precision):
            digest.update(repr(part).encode())
        digest.update(self.tokenizer)
        return int.from_bytes(digest.digest()[:8], "big") >> 1


@dataclass(frozen=True)
class BankSource:
    """A label bank to be: its concepts and their embeddings, FP32 [n, D], unit length."""

    name: str
    concepts: Sequence[Concept]
    embeddings: Tensor
    created: str


class ImageEncoder(nn.Module):
    """The served image tower.

    Layout and type are changed here, and scaling is the tower's own, so no client can get
    either wrong, and a picture travels as bytes.
    """

    fingerprint: Tensor

    def __init__(self, tower: nn.Module, fingerprint: int) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("fingerprint", torch.tensor([[fingerprint]], dtype=torch.int64))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode PIXELS UINT8 [N, H, W, 3], RGB: EMBEDDING FP32 [N, D], FINGERPRINT [N, 1]."""
        embedding = self.tower(pixels.permute(0, 3, 1, 2).to(torch.float32))
        return _answer(embedding, self.fingerprint)


class TextEncoder(nn.Module):
    """The served text tower."""

    fingerprint: Tensor

    def __init__(self, tower: nn.Module, fingerprint: int) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("fingerprint", torch.tensor([[fingerprint]], dtype=torch.int64))

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode INPUT_IDS INT64 [N, L]: EMBEDDING FP32 [N, D], FINGERPRINT INT64 [N, 1]."""
        return _answer(self.tower(input_ids), self.fingerprint)


def _answer(embedding: Tensor, fingerprint: Tensor) -> tuple[Tensor, Tensor]:
    unit = functional.normalize(embedding.to(torch.float32), dim=-1)
    return unit, fingerprint.expand(unit.shape[0], 1)
