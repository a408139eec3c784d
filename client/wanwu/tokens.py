"""Labels to token ids, by the tokenizer that the server sends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from wanwu.catalog import Message
from wanwu.contract import Text
from wanwu.doubts import Doubt
from wanwu.errors import LabelError, ModelError

#: Two characters each that no vocabulary has: a model that reads them as one reads neither. Some
#: tokenizers drop those for private use, so Old Persian and a hieroglyph stand beside them.
_UNKNOWN = (("\ue000", "\uf8ff"), ("\U000103a0", "\U00013000"))


def load_tokenizer(data: bytes) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        ModelError: the bytes are no tokenizer this client can run.
    """
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(
            "the server's TOKENIZER ({0} bytes) cannot be read: {1}; export the model again, or "
            "install a newer `tokenizers`",
            len(data),
            error,
        ) from error


def token_ids(tokenizer: Tokenizer, labels: Sequence[str], text: Text) -> npt.NDArray[np.int64]:
    """Tokenize labels and pad them: `pad(tokenize(...))`."""
    return pad(tokenize(tokenizer, labels, text), text)


def tokenize(tokenizer: Tokenizer, labels: Sequence[str], text: Text) -> list[list[int]]:
    """Give each label's token ids.

    Raises:
        LabelError: a label has more tokens than the model reads, or none.
    """
    texts = [label.lower() for label in labels] if text.lowercase else list(labels)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    empty = len(tokenizer.encode("").ids)
    for label, row in zip(labels, rows, strict=True):
        if len(row) > text.max_length:
            raise LabelError(
                "label {0}… is {1} tokens and the model reads {2}; shorten it",
                repr(label[:20]),
                len(row),
                text.max_length,
            )
        if len(row) <= empty:
            raise LabelError(
                "label {0} has no character the model can read; change it", repr(label)
            )
    return rows


def pad(rows: Sequence[Sequence[int]], text: Text) -> npt.NDArray[np.int64]:
    """Pad token ids to the longest row, or to the maximum, as the contract says.

    Returns:
        INT64 [N, L], padded with the contract's pad id.
    """
    length = text.max_length if text.padding == "max_length" else max(map(len, rows))
    ids = np.full((len(rows), length), text.pad_id, dtype=np.int64)
    for index, row in enumerate(rows):
        first = length - len(row) if text.pad_side == "left" else 0
        ids[index, first : first + len(row)] = row
    return ids


def unreadable(
    tokenizer: Tokenizer, labels: Sequence[str], rows: Sequence[Sequence[int]]
) -> list[str]:
    """Return the labels of which the model knows no character."""
    unknown = _ids_of_unknown(tokenizer)
    return [label for label, row in zip(labels, rows, strict=True) if unknown.issuperset(row)]


def doubts(
    tokenizer: Tokenizer, labels: Sequence[str], rows: Sequence[Sequence[int]]
) -> list[Doubt]:
    """Tell which labels the model cannot read, or cannot tell apart: a sentence for each kind."""
    unread = unreadable(tokenizer, labels, rows)
    alike: dict[tuple[int, ...], list[str]] = {}
    for label, row in zip(labels, rows, strict=True):
        alike.setdefault(tuple(row), []).append(label)
    sentences: list[Doubt] = []
    if unread:
        sentences.append(
            Doubt(
                "labels_unreadable",
                "the model knows no character of {0}; such a label's score means little: use "
                "another word for it",
                _some(unread),
            )
        )
    sentences += [
        Doubt(
            "labels_alike",
            "the model reads {0} as one text and scores them alike; keep one of them",
            _some(group),
        )
        for group in alike.values()
        if len(group) > 1
    ]
    return sentences


def _ids_of_unknown(tokenizer: Tokenizer) -> set[int]:
    """Give the ids of texts of one unknown character; none where every byte is known."""
    pairs = [[tokenizer.encode(each).ids for each in pair] for pair in _UNKNOWN]
    return {token for one, other in pairs if one == other for token in one}


def _some(labels: Sequence[str]) -> str:
    shown = "、".join(labels[:10])
    return shown if len(labels) <= 10 else Message("{0} and {1} more", shown, len(labels) - 10)
