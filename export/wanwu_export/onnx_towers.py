"""PyTorch towers to ONNX files, with a batch axis of any size."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from wanwu_export.dual_tower import DualTower, ImageEncoder, TextEncoder

#: The newest operator set that Triton's onnxruntime backend reads since 23.10.
OPSET = 18
#: Largest batch the parity check tries: `max_batch_size` of every config.
MAX_BATCH = 64


def image_example(tower: DualTower, batch: int) -> Tensor:
    """Give a batch of pictures of noise: UINT8 [batch, H, W, 3]."""
    geometry = tower.image_geometry
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, geometry.height, geometry.width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def text_example(tower: DualTower, batch: int) -> Tensor:
    """Give a batch of token rows of several lengths: INT64 [batch, L], padded."""
    generator = torch.Generator().manual_seed(batch)
    length = min(12, tower.text_spec.max_length)
    ids = torch.randint(1, 1000, (batch, length), dtype=torch.int64, generator=generator)
    for row in range(batch):
        ids[row, length - row % (length - 1) :] = tower.text_spec.pad_id
    return ids


def write_image_encoder(tower: DualTower, path: Path) -> nn.Module:
    """Write the image tower's ONNX file and give the PyTorch module it was made from."""
    module = ImageEncoder(tower.image, tower.fingerprint()).eval()
    _write(module, image_example(tower, 2), "PIXELS", {0: "batch"}, path)
    return module


def write_text_encoder(tower: DualTower, path: Path) -> nn.Module:
    """Write the text tower's ONNX file and give the PyTorch module it was made from."""
    module = TextEncoder(tower.text, tower.fingerprint()).eval()
    _write(module, text_example(tower, 2), "INPUT_IDS", {0: "batch", 1: "length"}, path)
    return module


def _write(module: nn.Module, example: Tensor, name: str, axes: dict[int, str], path: Path) -> None:
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns of its own internals; the parity check judges the result.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[name],
            output_names=["EMBEDDING", "FINGERPRINT"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - dynamo=True always gives a program
    model = program.model_proto
    _drop_traces(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _drop_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of the machine: stack traces, paths, intermediate shapes."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for function in model.functions:
        del function.metadata_props[:]
