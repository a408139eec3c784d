"""Lower precisions of an FP32 ONNX tower: fp16 for GPU nodes, int8 for CPU nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from wanwu.contract import Precision
from wanwu.errors import InputError
from wanwu_export.onnx_towers import save

PRECISIONS = ("fp32", "fp16", "int8")
TOWERS = ("image", "text")

#: Kept in FP32 beside what the converter keeps by itself: sums over many squares or exponentials,
#: which pass FP16's largest number or lose its few digits. ReduceL2 and Div bring the output to
#: unit length.
_KEPT_FP32 = ("LayerNormalization", "Softmax", "ReduceL2", "ReduceMean", "ReduceSum", "Pow", "Exp")


def read_precision(text: str) -> Precision:
    """Read `int8`, for both towers, or `image=fp16,text=fp32`; a tower not named stays fp32.

    Raises:
        InputError: a tower or a precision of that name does not exist, or a tower came twice.
    """
    chosen: dict[str, str] = {}
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and "=" not in text:
        parts = [f"{tower}={text.strip()}" for tower in TOWERS]
    for part in parts:
        tower, _, precision = (piece.strip() for piece in part.partition("="))
        if tower not in TOWERS or precision not in PRECISIONS or tower in chosen:
            raise InputError(
                "--precision {0} cannot be read at {1}; expected one of {2}, or a precision for "
                "each tower such as image=int8,text=fp32",
                repr(text),
                repr(part),
                ", ".join(PRECISIONS),
            )
        chosen[tower] = precision
    return Precision(image=chosen.get("image", "fp32"), text=chosen.get("text", "fp32"))


def convert(source: Path, precision: str, target: Path) -> None:
    """Write an FP32 ONNX file in a lower precision; its inputs and outputs stay as they are."""
    if precision == "fp16":
        _to_fp16(source, target)
    elif precision == "int8":
        _to_int8(source, target)
    else:
        raise ValueError(f"{precision!r} is no lower precision")


def _to_fp16(source: Path, target: Path) -> None:
    # The converter needs every tensor's type; without the weights, inferring them is cheap.
    model = onnx.shape_inference.infer_shapes(onnx.load(source, load_external_data=False))
    onnx.load_external_data_for_model(model, str(source.parent))
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEPT_FP32],
        node_block_list=_ending(model),
    )
    _drop_repeated_nodes(converted)
    del converted.graph.value_info[:]
    sorted_model = onnx_ir.from_proto(converted)
    sorted_model.graph.sort()
    save(sorted_model, target)


def _to_int8(source: Path, target: Path) -> None:
    """Quantize so that no x86-64 processor saturates, as those without VNNI do with signed weights.

    Images are the load: their weights are signed, which is fastest, and have seven bits. Texts are
    encoded once: their weights are unsigned, which may be slower, and keep eight bits.
    """
    (tensor,) = onnx.load(source, load_external_data=False).graph.input
    images = tensor.name == "PIXELS"
    with _quiet(logging.getLogger()):  # it advises by way of the root logger
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            weight_type=QuantType.QInt8 if images else QuantType.QUInt8,
            per_channel=True,
            reduce_range=images,
            extra_options={"MatMulConstBOnly": True},
        )


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _ending(model: onnx.ModelProto) -> list[str]:
    """Give the nodes after the last product with weights, which bring the output to unit length."""
    producers = {output: node for node in model.graph.node for output in node.output}
    names: list[str] = []
    waiting = [model.graph.output[0].name]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.op_type in ("MatMul", "Gemm", "Conv") or node.name in names:
            continue
        names.append(node.name)
        waiting += node.input
    return names


def _drop_repeated_nodes(model: onnx.ModelProto) -> None:
    """Drop all but one of the casts that the converter adds for each reader of one tensor."""
    seen: set[str] = set()
    for node in list(model.graph.node):
        if node.output[0] in seen:
            model.graph.node.remove(node)
        seen.add(node.output[0])


def write_rounded(source: Path, target: Path) -> None:
    """Write an fp16 graph so that onnxruntime on a CPU rounds every value as a GPU does.

    On a CPU it computes in FP32 and drops the casts between two operators, so nothing is rounded
    and nothing overflows. It keeps the casts around two operators in a row that have FP16 kernels,
    so two Identities follow each value; run the graph without optimisation, which would drop them.
    The weights stay where `source` has them.
    """
    model = onnx_ir.from_proto(
        onnx.shape_inference.infer_shapes(onnx.load(source, load_external_data=False))
    )
    for node in list(model.graph):
        for value in node.outputs:
            if value.dtype != onnx_ir.DataType.FLOAT16:
                continue
            readers = list(value.uses())
            first = onnx_ir.node("Identity", [value])
            second = onnx_ir.node("Identity", [first.outputs[0]])
            for reader in readers:
                reader.node.replace_input_with(reader.idx, second.outputs[0])
            model.graph.insert_after(node, [first, second])
    onnx.save(onnx_ir.to_proto(model), target)
