"""A dual-tower model, ready for conversion: two PyTorch towers and what a client must know."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import PIL.Image
import torch
from torch import Tensor, nn
from torch.nn import functional

from wanwu.contract import Image, Model, Precision, Score, Text
from wanwu_export.describe import Weights


class Outputs(NamedTuple):
    """What a model says of pictures and texts.

    `image` is FP32 [N, D] and `text` FP32 [M, D], unit length; `logits` is FP32 [N, M], before
    softmax or sigmoid.
    """

    image: Tensor
    text: Tensor
    logits: Tensor


class Original(Protocol):
    """A model's own whole path, from a picture and a text to an answer."""

    def pixel_values(self, picture: PIL.Image.Image) -> Tensor:
        """Prepare an RGB picture: FP32 [3, H, W], scaled."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts, cut at the maximum, not padded."""

    def run(self, pictures: Sequence[PIL.Image.Image], texts: Sequence[str]) -> Outputs:
        """Run the whole model on RGB pictures and on texts, cut at the maximum."""


@dataclass(frozen=True, eq=False)
class DualTower:
    """Everything an export needs of a model.

    `scale` maps FP32 [N, 3, H, W] in 0..255 to what `image` reads, `image` maps that to [N, D];
    `text` maps INT64 [N, L] to [N, D], of ids from 0 to `vocabulary` - 1. `original` is None where
    these towers are the original.
    `templates` and `weights` say how the model's label banks are described.
    """

    model: Model
    scale: nn.Module
    image: nn.Module
    text: nn.Module
    embedding_dim: int
    image_geometry: Image
    text_spec: Text
    vocabulary: int
    score: Score
    precision: Precision
    tokenizer: bytes
    sources: dict[str, str]
    templates: str
    weights: Weights
    original: Original | None = None

    @cached_property
    def fingerprint(self) -> int:
        """63 bits over both towers' layers and weights, geometry, tokenizer and precision.

        Two exports have the same fingerprint only if their embeddings may be compared.
        """
        digest = hashlib.sha256()
        hashed: set[int] = set()
        for name, tower in (("scale", self.scale), ("image", self.image), ("text", self.text)):
            digest.update(repr(tower).encode())
            for key, tensor in sorted(tower.state_dict().items()):
                digest.update(f"{name}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                if tensor.data_ptr() in hashed:
                    continue  # both towers may hold one whole model
                hashed.add(tensor.data_ptr())
                digest.update(tensor.detach().cpu().contiguous().numpy().data)
        for part in (self.image_geometry, self.text_spec, self.score, self.precision):
            digest.update(repr(part).encode())
        digest.update(self.tokenizer)
        return int.from_bytes(digest.digest()[:8], "big") >> 1


class Scale(nn.Module):
    """Scales pixel values from 0..255 to what a tower was trained on."""

    factor: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, factor: float, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Buffers, so that the fingerprint covers them.
        self.register_buffer("factor", torch.tensor(factor))
        self.register_buffer("mean", torch.tensor(list(mean)).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Scale FP32 [N, 3, H, W] in 0..255."""
        scaled: Tensor = (images * self.factor - self.mean) / self.std
        return scaled


class ImageEncoder(nn.Module):
    """The served image tower.

    Layout, type and scale are changed here, so no client can get them wrong, and a picture
    travels as bytes.
    """

    fingerprint: Tensor

    def __init__(self, tower: DualTower) -> None:
        super().__init__()
        self.scale, self.tower = tower.scale, tower.image
        self.register_buffer("fingerprint", torch.tensor([[tower.fingerprint]], dtype=torch.int64))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode PIXELS UINT8 [N, H, W, 3], RGB: EMBEDDING FP32 [N, D], FINGERPRINT [N, 1]."""
        images = pixels.to(torch.float32).permute(0, 3, 1, 2)
        return _answer(self.tower(self.scale(images)), self.fingerprint)


class TextEncoder(nn.Module):
    """The served text tower."""

    fingerprint: Tensor

    def __init__(self, tower: DualTower) -> None:
        super().__init__()
        self.tower = tower.text
        self.register_buffer("fingerprint", torch.tensor([[tower.fingerprint]], dtype=torch.int64))

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode INPUT_IDS INT64 [N, L]: EMBEDDING FP32 [N, D], FINGERPRINT INT64 [N, 1]."""
        return _answer(self.tower(input_ids), self.fingerprint)


def _answer(embedding: Tensor, fingerprint: Tensor) -> tuple[Tensor, Tensor]:
    unit = functional.normalize(embedding.to(torch.float32), dim=-1)
    return unit, fingerprint.expand(unit.shape[0], 1)
