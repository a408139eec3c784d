"""What the parity gate requires of a text tower beyond right answers: one for any ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from wanwu.catalog import Message
from wanwu.contract import Text
from wanwu.errors import ModelError
from wanwu.rank import Floats

Ids = npt.NDArray[np.int64]
Run = Callable[[Ids], tuple[Floats, Ids]]

_INT64 = np.iinfo(np.int64)


def check_any_ids(
    run: Run, row: Sequence[int], text: Text, vocabulary: int, fingerprint: int
) -> None:
    """Check that ids of any values and any length are answered, and marked where they were changed.

    Args:
        run: runs the tower: INT64 [N, L] to FP32 [N, D] and INT64 [N, 1].
        row: the ids of a text that the tower reads.
        text: the contract's text part.
        vocabulary: how many ids the tower knows, from 0.
        fingerprint: the export's.

    Raises:
        ModelError: a request fails, or a row carries the wrong fingerprint.
    """
    for kind, ids, whole in _requests(row, text, vocabulary):
        try:
            embeddings, found = run(ids)
        except Exception as error:  # onnxruntime raises its own types
            raise _refusal(kind, Message("fails on them: {0}", error)) from error
        # A row of padding alone has no direction, and no client sends one.
        texts = (ids != text.pad_id).any(axis=1) & np.array(whole)
        if not np.isfinite(embeddings[texts]).all():
            raise _refusal(kind, "answers NaN or infinity")
        expected = [fingerprint if is_whole else 0 for is_whole in whole]
        if found.ravel().tolist() != expected:
            raise _refusal(
                kind, Message("answers fingerprints {0}, not {1}", found.ravel().tolist(), expected)
            )


def _requests(
    row: Sequence[int], text: Text, vocabulary: int
) -> Iterator[tuple[str, Ids, list[bool]]]:
    """Yield kinds of requests: a name, INT64 [N, L], and which rows are to be accepted."""
    for id in (-1, vocabulary, _INT64.min, _INT64.max):
        changed = [*row[:-1], id]
        yield (
            Message("id {0} beside good ones", id),
            np.array([row, changed, row]),
            [True, False, True],
        )
    longest = text.max_length
    for length in (0, 1, longest, longest + 1, 8 * longest):
        padding = np.full((2, length), text.pad_id, dtype=np.int64)
        yield Message("{0} ids of padding", length), padding, [True, True]
        words = np.full((2, length), row[0], dtype=np.int64)
        yield Message("{0} ids", length), words, [length <= longest or row[0] == text.pad_id] * 2


def _refusal(kind: str, why: str) -> ModelError:
    return ModelError(
        "the text tower does not take any ids: with {0} it {1}; one bad request would fail the "
        "others of its batch; nothing was published",
        kind,
        why,
    )
