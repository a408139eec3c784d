"""PyTorch towers to ONNX files, with a batch axis of any size."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import onnx_ir
import torch
from torch import Tensor, nn

from wanwu_export.dual_tower import DualTower, ImageEncoder, TextEncoder
from wanwu_export.graph_inputs import accept_any_ids, cast_pixels_first
from wanwu_export.onnx_bank import OPSET

#: A protobuf ends at 2 GiB, and is held twice in memory while it is written. From this many bytes
#: on, weights go into a file beside it, which onnxruntime maps into memory instead of copying.
EXTERNAL_FROM = 1 << 28
EXTERNAL_SUFFIX = ".data"


def write_image_encoder(tower: DualTower, path: Path) -> None:
    """Write the image tower's ONNX file."""
    geometry = tower.image_geometry
    example = torch.zeros(2, geometry.height, geometry.width, 3, dtype=torch.uint8)
    model = _convert(ImageEncoder(tower).eval(), example, "PIXELS", {0: "batch"})
    cast_pixels_first(model)
    _write(model, path)


def write_text_encoder(tower: DualTower, path: Path) -> None:
    """Write the text tower's ONNX file, which reads ids of any values and any length."""
    spec = tower.text_spec
    fixed = spec.padding == "max_length"
    length = spec.max_length if fixed else min(12, spec.max_length)
    example = torch.full((2, length), spec.pad_id, dtype=torch.int64)
    example[:, 0] = 1
    axes = {0: "batch"} if fixed else {0: "batch", 1: "length"}
    model = _convert(TextEncoder(tower).eval(), example, "INPUT_IDS", axes)
    accept_any_ids(model, spec, tower.vocabulary)
    _write(model, path)


def _convert(module: nn.Module, example: Tensor, name: str, axes: dict[int, str]) -> onnx_ir.Model:
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns of its own internals; the parity gate judges the result.
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
    return program.model


def _write(model: onnx_ir.Model, path: Path) -> None:
    _drop_traces(model)
    save(model, path)
    onnx.checker.check_model(path, full_check=True)


def save(model: onnx_ir.Model, path: Path) -> None:
    """Write an ONNX model; weights past a protobuf's limit go into a file beside it."""
    weights = [value.const_value for value in model.graph.initializers.values()]
    size = sum(int(weight.nbytes) for weight in weights if weight is not None)
    if size >= EXTERNAL_FROM:
        onnx_ir.save(model, path, external_data=path.name + EXTERNAL_SUFFIX)
    else:
        onnx_ir.save(model, path)


def _drop_traces(model: onnx_ir.Model) -> None:
    """Drop what the exporter notes of the machine: stack traces, paths, intermediate shapes."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    kept = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in model.graph.inputs:
        value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
        value.shape, value.type = None, None
        if value.const_value is not None:
            value.const_value.metadata_props.clear()
            value.const_value.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) not in kept:
                value.shape, value.type = None, None
    for function in model.functions.values():
        function.metadata_props.clear()
