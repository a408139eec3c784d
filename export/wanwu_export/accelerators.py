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

from wanwu.catalog import Message
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
                "{0}, which may run the {1} tower in {2} on GPU nodes, cannot take its graph: "
                "{3}; nothing was published. Export the tower in int8 for CPU nodes, or report "
                "the model: the export should have avoided this node",
                accelerator.name,
                side,
                precision,
                reason,
            )


def _refusals(graph: onnx_ir.Graph, accelerator: Accelerator) -> Iterator[str]:
    for value in graph.inputs:
        allowed = accelerator.readers.get(value.dtype or DataType.UNDEFINED)
        for node in value.consumers() if allowed else ():
            if node.op_type not in (allowed or ()):
                yield (
                    Message(
                        "node {0} ({1}) reads {2} as {3}, which only {4} may",
                        repr(node.name),
                        node.op_type,
                        value.name,
                        value.dtype,
                        ", ".join(sorted(allowed or ())),
                    )
                )
    for node in graph.all_nodes():
        if node.op_type in accelerator.missing:
            yield Message(
                "node {0} is a {1}, which it does not have", repr(node.name), node.op_type
            )
