"""The cosines of an embedding with every label of a bank.

The FP32 product over 50,000 labels reads 100 MB for each picture, which takes longer than all the
rest of scoring. With the extra `large-banks` a large bank is read as int8 first, a quarter of the
bytes, and only labels that can be among the best are computed in FP32.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from wanwu.rank import Floats, Places, kth_largest, top

Bytes = npt.NDArray[np.int8]

#: Banks of fewer labels than this are multiplied in FP32, which is as fast.
LARGE_BANK = 8192


class LabelRows:
    """Embeddings of labels, FP32 [labels, D] of unit length, ready to be compared with pictures."""

    def __init__(self, embeddings: Floats) -> None:
        self.embeddings = embeddings

    def __len__(self) -> int:
        """Give the number of labels."""
        return len(self.embeddings)

    def compare(self, vector: Floats, top_k: int) -> tuple[Floats, Places]:
        """Compare one embedding with every label.

        Args:
            vector: FP32 [D], unit length.
            top_k: how many of the best labels to find.

        Returns:
            The cosines, FP32 [labels], and the places of the `top_k` largest, largest first. The
            best labels and their cosines are those of the FP32 product; the other cosines of a
            large bank may be off by a few thousandths, which moves no probability by 0.001.
        """
        if self._quantised is not None:
            cosines, error = self._quantised.product(vector)
            # `top_k` labels reach this value to within the error; two errors below, none can win.
            near = np.flatnonzero(cosines >= kth_largest(cosines, top_k) - 2 * error)
            if near.size <= len(self) // 8:  # of more, gathering their rows would take longer
                cosines[near] = _product(self.embeddings[near], vector)
                return cosines, near[top(cosines[near], top_k)]
        cosines = _product(self.embeddings, vector)
        return cosines, top(cosines, top_k)

    @cached_property
    def _quantised(self) -> _Quantised | None:
        if len(self) < LARGE_BANK:
            return None
        try:
            import numkong
        except ImportError:  # the extra `large-banks` is not installed
            return None
        return _Quantised(self.embeddings, numkong.cdist)


class _Quantised:
    """Rows as int8, each with a scale of its own, around their mean.

    The texts of a CLIP lie in a narrow cone, so without their mean they are shorter and the int8
    steps finer.
    """

    def __init__(self, embeddings: Floats, cdist: Callable[..., Any]) -> None:
        self._cdist = cdist
        # Kept, since to start a thread takes a fifth of the time that it saves.
        self._helpers = ThreadPoolExecutor(thread_name_prefix="wanwu-bank")
        self._mean: Floats = embeddings.mean(axis=0)
        rows = embeddings - self._mean
        self._rows, self._scales = _quantise(rows)
        rounded = self._rows * self._scales[:, np.newaxis]
        self._error = float(np.linalg.norm(rows - rounded, axis=1).max())
        self._longest = float(np.linalg.norm(rounded, axis=1).max())

    def product(self, vector: Floats) -> tuple[Floats, float]:
        """Give the approximate products, FP32 [labels], and the most that one can be off.

        By Cauchy and Schwarz: |a.v - a'.v'| <= |a - a'| |v| + |a'| |v - v'|.
        """
        row, scale = _quantise(vector[np.newaxis])
        lost = float(np.linalg.norm(vector - row[0] * scale[0]))
        error = self._error * float(np.linalg.norm(vector)) + self._longest * lost
        products = np.empty(len(self._rows), np.float32)

        def multiply(part: slice) -> None:
            products[part] = np.asarray(self._cdist(row, self._rows[part], "dot"))[0]

        # One core cannot read as fast as the memory can give, so another reads half.
        half = len(self._rows) // 2
        other = self._helpers.submit(multiply, slice(half))
        multiply(slice(half, None))
        other.result()
        products *= self._scales
        products *= scale[0]
        products += self._mean @ vector
        return products, error


def _product(rows: Floats, vector: Floats) -> Floats:
    """Multiply FP32 [labels, D] by FP32 [D]."""
    if len(rows) >= LARGE_BANK:
        return rows @ vector
    # BLAS would wake a thread for each product, which then spins: 20 ms of a core for 0.2 of work.
    products: Floats = np.einsum("ld,d->l", rows, vector)
    return products


def _quantise(vectors: Floats) -> tuple[Bytes, Floats]:
    """Round FP32 [N, D] to int8 [N, D] and give the scale of each row, FP32 [N]."""
    scales = np.abs(vectors).max(axis=1) / np.float32(127)
    # A row of zeros has no scale; any other than zero will do.
    scales[scales == 0] = 1
    return np.rint(vectors / scales[:, np.newaxis]).astype(np.int8), scales
