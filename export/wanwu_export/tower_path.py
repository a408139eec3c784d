"""The whole path of towers that are the original themselves, in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
import torch
from torch import Tensor
from torch.nn import functional

from wanwu.images import to_pixels
from wanwu.tokens import load_tokenizer, pad
from wanwu_export.dual_tower import DualTower, Outputs


class TowerPath:
    """A picture and a text to an answer, with nothing but a `DualTower`."""

    def __init__(self, tower: DualTower) -> None:
        self._tower = tower

    def pixel_values(self, picture: PIL.Image.Image) -> Tensor:
        """Prepare an RGB picture: FP32 [3, H, W], scaled."""
        pixels = torch.tensor(to_pixels(picture, self._tower.image_geometry, exact=True))
        scaled: Tensor = self._tower.scale(pixels.permute(2, 0, 1).to(torch.float32))
        return scaled

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts, cut at the maximum, not padded."""
        return tokenize_cut(self._tower, texts)

    @torch.no_grad()
    def run(self, pictures: Sequence[PIL.Image.Image], texts: Sequence[str]) -> Outputs:
        """Run both towers on RGB pictures and on texts, cut at the maximum."""
        tower, score = self._tower, self._tower.score
        pixels = torch.stack([self.pixel_values(picture) for picture in pictures])
        ids = torch.from_numpy(pad(self.token_ids(texts), tower.text_spec))
        image = functional.normalize(tower.image(pixels), dim=-1)
        text = functional.normalize(tower.text(ids), dim=-1)
        return Outputs(image, text, score.logit_scale * image @ text.T + score.logit_bias)


def tokenize_cut(tower: DualTower, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize texts by a tower's `tokenizer.json`, cut at the maximum, not padded."""
    tokenizer = load_tokenizer(tower.tokenizer)
    tokenizer.enable_truncation(tower.text_spec.max_length)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
