"""The parity gate: an ONNX tower must answer as its PyTorch original, or nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from wanwu.errors import ModelError
from wanwu.repository import Parity

#: An fp32 tower further from PyTorch than this was converted wrongly.
LEAST_COSINE = {"image": 0.99999, "text": 0.9999}


@torch.no_grad()
def check_parity(
    side: str, original: nn.Module, path: Path, example: Callable[[int], Tensor], max_batch: int
) -> Parity:
    """Compare a tower's ONNX file with its PyTorch module at batch 1, 3 and the largest.

    Raises:
        ModelError: a cosine is too low, or a fingerprint differs.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batches = (1, 3, max_batch)
    least = 1.0
    for batch in batches:
        inputs = example(batch)
        expected, fingerprint = original(inputs)
        embedding, found = session.run(None, {name: inputs.numpy()})
        if not (torch.from_numpy(found) == fingerprint).all():
            raise ModelError(f"{path} answers fingerprint {found[0]}, expected {fingerprint[0]}")
        cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(embedding), expected)
        # Not min(): it would drop a NaN, and with it a tower that answers NaN.
        least = float(np.minimum(least, cosines.min()))
    if not least >= LEAST_COSINE[side]:
        raise ModelError(
            f"the {side} tower's ONNX file is too far from PyTorch: least cosine {least:.6f}, "
            f"expected {LEAST_COSINE[side]}; nothing was published"
        )
    return Parity(batches=batches, least_cosine=round(least, 7))
