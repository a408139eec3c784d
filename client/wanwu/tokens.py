"""Labels to token ids, by the tokenizer that the server sends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from wanwu.contract import Text
from wanwu.errors import LabelError, ModelError


def load_tokenizer(data: bytes) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        ModelError: the bytes are no tokenizer this client can run.
    """
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(
            f"the server's TOKENIZER ({len(data)} bytes) cannot be read: {error}; "
            "export the model again, or install a newer `tokenizers`"
        ) from error


def token_ids(tokenizer: Tokenizer, labels: Sequence[str], text: Text) -> npt.NDArray[np.int64]:
    """Tokenize labels and pad them to the longest.

    Returns:
        INT64 [N, L], padded with the contract's pad id; L is at most `text.max_length`.

    Raises:
        LabelError: a label has more tokens than the model reads, or none.
    """
    texts = [label.lower() for label in labels] if text.lowercase else list(labels)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    empty = len(tokenizer.encode("").ids)
    for label, row in zip(labels, rows, strict=True):
        if len(row) > text.max_length:
            raise LabelError(
                f"label {label[:20]!r}… is {len(row)} tokens and the model reads "
                f"{text.max_length}; shorten it"
            )
        if len(row) <= empty:
            raise LabelError(f"label {label!r} has no character the model can read; change it")
    ids = np.full((len(rows), max(map(len, rows))), text.pad_id, dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids
