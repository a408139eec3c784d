"""The starter's SentencePiece model as a `tokenizer.json` that `tokenizers` runs.

Ids equal those of the package's own tokenizer. Two things need care:

* `tokenizers` fuses neighbouring unknown characters into one token, the package does not. So every
  character outside the vocabulary is split off first; no piece can reach across it.
* `tokenizers` looks half-width Hangul up one character at a time, where the package takes the
  longest match; composing (NFC) afterwards gives the same text.
"""

from __future__ import annotations

from itertools import groupby

from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

_SPACE = "▁"


def build_tokenizer(sentencepiece: bytes) -> bytes:
    """Convert a SentencePiece unigram model to a `tokenizer.json`, as UTF-8 bytes."""
    model = ModelProto.FromString(sentencepiece)
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap),
            normalizers.NFC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Replace(Regex("^ | $"), ""),
            normalizers.Replace(" ", _SPACE),
            normalizers.Prepend(_SPACE),
        ]
    )
    alphabet = {character for piece, _ in pieces for character in piece}
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_outside(alphabet)), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer.to_str().encode()


def _outside(alphabet: set[str]) -> str:
    """Give a regular expression for one character that is not in the alphabet."""
    points = sorted(map(ord, alphabet))
    ranges = []
    for _, run in groupby(enumerate(points), key=lambda item: item[1] - item[0]):
        run_points = [point for _, point in run]
        ranges.append(rf"\x{{{run_points[0]:X}}}-\x{{{run_points[-1]:X}}}")
    return f"[^{''.join(ranges)}]"
