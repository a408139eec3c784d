"""SentencePiece unigram models, run by `tokenizers` with the same ids.

`tokenizers` looks half-width Hangul up one character at a time, where SentencePiece takes the
longest match; composing (NFC) afterwards gives the same text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from tokenizers import Regex, Tokenizer, models, normalizers

_SPACE = "▁"

Pieces = list[tuple[str, float]]


def read_sentencepiece(model: bytes) -> tuple[Pieces, bytes]:
    """Read the pieces with their scores, and the character map, of a SentencePiece ModelProto.

    By the numbers of the protobuf's fields, since the package sentencepiece ends the interpreter
    in a segmentation fault (0.2.1) or needs protobuf 7 (0.2.2), which tritonclient excludes.
    """
    fields = _fields(model)
    (normalizer,) = fields[3]
    pieces = []
    for piece in fields[1]:
        entry = _fields(piece)
        (score,) = struct.unpack("<f", struct.pack("<I", entry.get(2, [0])[0]))
        pieces.append((entry[1][0].decode(), score))
    return pieces, _fields(normalizer)[2][0]


def unigram_tokenizer(
    pieces: Pieces, charsmap: bytes, *, unk_id: int = 0, before: Sequence[Any] = ()
) -> Tokenizer:
    """Make a tokenizer of a SentencePiece unigram model, without special tokens.

    Args:
        pieces: the vocabulary with its scores, by id.
        charsmap: the model's precompiled character map.
        unk_id: the id of unknown characters.
        before: normalisers of `tokenizers` that come before the model's own.
    """
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=unk_id, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *before,
            normalizers.Precompiled(charsmap),
            normalizers.NFC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Replace(Regex("^ | $"), ""),
            normalizers.Replace(" ", _SPACE),
            normalizers.Prepend(_SPACE),
        ]
    )
    return tokenizer


def _fields(message: bytes) -> dict[int, list[Any]]:
    fields: dict[int, list[Any]] = {}
    for field in UnknownFieldSet(Empty.FromString(message)):
        fields.setdefault(field.field_number, []).append(field.data)
    return fields
