"""Which graphs the accelerators of a serving profile can take: a table of operators and types.

ONNX Runtime gives what an accelerator lacks to the CPU, so most gaps cost speed alone. The table
holds those that stop a server from starting, or that put a tower's products on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir
from onnx_ir import DataType

from wanwu.errors import ModelError


@dataclass(frozen=True)
class Accelerator:
    """What an accelerator of ONNX Runtime cannot take.

    `readers` names the operators that may read an input of the graph of some type; `missing`
    names operators that it has for no type.
    """

    name: str
    readers: Mapping[DataType, frozenset[str]] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()


_INTEGER_PRODUCTS = frozenset({"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"})
#: UINT8 that goes elsewhere than into a Cast (NVIDIA/TensorRT#3985) leaves PIXELS to CUDA. The
#: shapes that the chart names for PIXELS then fit no engine, which ends the session.
TENSORRT = Accelerator("TensorRT", {DataType.UINT8: frozenset({"Cast"})}, _INTEGER_PRODUCTS)
CUDA = Accelerator("CUDA", missing=frozenset({"DynamicQuantizeLinear", "ConvInteger"}))

#: What may run each tower on the gpu profile. Dynamic int8 is for CPU nodes alone.
GPU = {"image": (TENSORRT, CUDA), "text": (CUDA,)}
GPU_PRECISIONS = ("fp32", "fp16")


def check_accelerators(path: Path, side: str, precision: str) -> None:
    """Check that what may serve a tower in a precision can take its graph.

    Args:
        path: the tower's ONNX file.
        side: `image` or `text`.
        precision: fp32, fp16 or int8.

    Raises:
        ModelError: an accelerator cannot, with the node that it stops at.
    """
    if precision not in GPU_PRECISIONS:
        return
    graph = onnx_ir.load(path).graph
    for accelerator in GPU[side]:
        for reason in _refusals(graph, accelerator):
            raise ModelError(
                f"{accelerator.name}, which may run the {side} tower in {precision} on GPU nodes, "
                f"cannot take its graph: {reason}; nothing was published. Export the tower in "
                "int8 for CPU nodes, or report the model: the export should have avoided this node"
            )


def _refusals(graph: onnx_ir.Graph, accelerator: Accelerator) -> Iterator[str]:
    for value in graph.inputs:
        allowed = accelerator.readers.get(value.dtype or DataType.UNDEFINED)
        for node in value.consumers() if allowed else ():
            if node.op_type not in (allowed or ()):
                yield (
                    f"node {node.name!r} ({node.op_type}) reads {value.name} as "
                    f"{value.dtype}, which only {', '.join(sorted(allowed or ()))} may"
                )
    for node in graph.all_nodes():
        if node.op_type in accelerator.missing:
            yield f"node {node.name!r} is a {node.op_type}, which it does not have"
