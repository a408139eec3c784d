"""An exported text tower: texts to embeddings by its ONNX file, as Triton will give them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from wanwu.contract import Contract
from wanwu.doubts import Doubt
from wanwu.errors import ModelError
from wanwu.rank import Floats
from wanwu.tokens import doubts, load_tokenizer, pad, tokenize

#: Texts encoded at a time.
BATCH = 64
#: Texts tokenized at a time: a token takes more memory than its id.
CHECKED = 4096


class TextTower:
    """Encodes texts with `text_encoder`'s ONNX file.

    Args:
        path: the ONNX file.
        tokenizer: the `tokenizer.json` that goes with it.
        contract: any contract of the same export.

    Raises:
        ModelError: the file is another export's.
    """

    def __init__(self, path: Path, tokenizer: bytes, contract: Contract) -> None:
        options = onnxruntime.SessionOptions()
        # Threads that wait would spin, and take the processor from whatever else runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = load_tokenizer(tokenizer)
        self._spec = contract.text
        self._fingerprint = contract.fingerprint
        self._path = path

    def check(self, texts: Sequence[str]) -> None:
        """Check that the model can read texts, which takes a hundredth of encoding them.

        Raises:
            LabelError: a text has more tokens than the model reads, or none it can read.
        """
        for first in range(0, len(texts), CHECKED):
            tokenize(self._tokenizer, texts[first : first + CHECKED], self._spec)

    def doubts(self, labels: Sequence[str]) -> list[Doubt]:
        """Tell which labels the model cannot read, or cannot tell apart: a sentence for each kind.

        Raises:
            LabelError: as `check`.
        """
        return doubts(self._tokenizer, labels, tokenize(self._tokenizer, labels, self._spec))

    def encode(self, texts: Sequence[str]) -> Floats:
        """Encode texts.

        Returns:
            FP32 [len(texts), D], unit length.

        Raises:
            LabelError: a text has more tokens than the model reads, or none it can read.
        """
        rows = tokenize(self._tokenizer, texts, self._spec)
        # Texts of one length share a batch, so that little is spent on padding.
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        embeddings: Floats | None = None
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            ids = pad([rows[place] for place in places], self._spec)
            found, fingerprints = self._session.run(None, {"INPUT_IDS": ids})
            if (fingerprints != self._fingerprint).any():
                raise ModelError(
                    "{0} has fingerprint {1} and the bank {2}; they are of different exports: "
                    "export again",
                    self._path,
                    fingerprints[0, 0],
                    self._fingerprint,
                )
            if embeddings is None:
                embeddings = np.empty((len(rows), found.shape[1]), dtype=np.float32)
            embeddings[places] = found
        assert embeddings is not None  # noqa: S101 - there is always a text
        return embeddings
