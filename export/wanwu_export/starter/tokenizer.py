"""The starter's SentencePiece model as a `tokenizer.json` that `tokenizers` runs.

Ids equal those of the package's own tokenizer. Two things need care:

* `tokenizers` fuses neighbouring unknown characters into one token, the package does not. So every
  character outside the vocabulary is split off first; no piece can reach across it.
* `tokenizers` looks half-width Hangul up one character at a time, where the package takes the
  longest match; composing (NFC) afterwards gives the same text.
"""

from __future__ import annotations

import struct
from itertools import groupby
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

_SPACE = "▁"


def build_tokenizer(sentencepiece: bytes) -> bytes:
    """Convert a SentencePiece unigram model to a `tokenizer.json`, as UTF-8 bytes."""
    pieces, charsmap = _read_model(sentencepiece)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(charsmap),
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


def _read_model(sentencepiece: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Read the pieces with their scores, and the character map, of a SentencePiece ModelProto.

    By the numbers of the protobuf's fields: importing the package sentencepiece for its message
    classes ends the interpreter in a segmentation fault (0.2.1), or needs protobuf 7 (0.2.2).
    """
    model = _fields(sentencepiece)
    (normalizer,) = model[3]
    pieces = []
    for piece in model[1]:
        fields = _fields(piece)
        (score,) = struct.unpack("<f", struct.pack("<I", fields.get(2, [0])[0]))
        pieces.append((fields[1][0].decode(), score))
    return pieces, _fields(normalizer)[2][0]


def _fields(message: bytes) -> dict[int, list[Any]]:
    fields: dict[int, list[Any]] = {}
    for field in UnknownFieldSet(Empty.FromString(message)):
        fields.setdefault(field.field_number, []).append(field.data)
    return fields


def _outside(alphabet: set[str]) -> str:
    """Give a regular expression for one character that is not in the alphabet."""
    points = sorted(map(ord, alphabet))
    ranges = []
    for _, run in groupby(enumerate(points), key=lambda item: item[1] - item[0]):
        run_points = [point for _, point in run]
        ranges.append(rf"\x{{{run_points[0]:X}}}-\x{{{run_points[-1]:X}}}")
    return f"[^{''.join(ranges)}]"
