"""Passes over an exported graph that make its input safe to serve.

They run after `torch.onnx.export`, which reads sizes from the raw input and cannot express a text
without a token.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx_ir
from onnx_ir.tape import Tape

from wanwu.contract import Text

Value: TypeAlias = onnx_ir.Value

_END = int(np.iinfo(np.int64).max)


def cast_pixels_first(model: onnx_ir.Model) -> None:
    """Make the Cast of PIXELS to FP32 their only reader.

    TensorRT takes UINT8 only straight into a Cast, and has no UINT8 Shape.
    """
    (pixels,) = model.graph.inputs
    (cast,) = (use.node for use in pixels.uses() if use.node.op_type == "Cast")
    for use in list(pixels.uses()):
        if use.node is not cast:
            use.node.replace_input_with(use.idx, cast.outputs[0])
    model.graph.sort()


def accept_any_ids(model: onnx_ir.Model, text: Text, vocabulary: int) -> None:
    """Make a text graph answer INPUT_IDS of any values and any length.

    Ids are clipped to the vocabulary and rows are cut to the contract's maximum, so that one bad
    request cannot fail the others of its batch. A row that lost anything but padding gets
    FINGERPRINT 0, which no client accepts.

    Args:
        model: the exported graph, with the outputs EMBEDDING and FINGERPRINT.
        text: the contract's text part.
        vocabulary: how many ids the tower knows, from 0.
    """
    (ids,) = model.graph.inputs
    readers = list(ids.uses())
    nodes = _Nodes(model)
    read, whole = _read(nodes, ids, text, vocabulary)
    for use in readers:
        use.node.replace_input_with(use.idx, read)
    fingerprint = model.graph.outputs[1]
    checked = onnx_ir.Value(name="FINGERPRINT", shape=fingerprint.shape, type=fingerprint.type)
    fingerprint.name = "fingerprint_of_export"
    model.graph.outputs[1] = nodes.add("Where", whole, fingerprint, nodes.ints(0), output=checked)
    assert ids.shape is not None  # noqa: S101 - the exporter declares it
    ids.shape = onnx_ir.Shape([ids.shape[0], "length"])
    model.graph.extend(nodes.tape.nodes)
    model.graph.sort()


def _read(nodes: _Nodes, ids: Value, text: Text, vocabulary: int) -> tuple[Value, Value]:
    """Return the ids that the tower reads, and for each row whether nothing was lost."""
    spare, axis, pad = text.max_length + 1, nodes.ints([1]), nodes.ints(text.pad_id)
    rows = nodes.add("Shape", ids, start=0, end=1)
    padding = nodes.add("Expand", pad, nodes.add("Concat", rows, nodes.ints([spare]), axis=0))
    # With padding the empty row has a token, a row for a tower of fixed length is full, and there
    # is always a column to compare.
    left = text.pad_side == "left"
    long = nodes.add("Concat", *([padding, ids] if left else [ids, padding]), axis=1)
    known = nodes.add("Clip", long, nodes.ints(0), nodes.ints(vocabulary - 1))
    size = nodes.ints([text.max_length])
    if text.padding == "longest":
        length = nodes.add("Shape", ids, start=1, end=2)
        size = nodes.add("Min", nodes.add("Max", length, nodes.ints([1])), size)
    edge = nodes.add("Neg", size) if left else size
    head, tail = (nodes.ints([0]), edge), (edge, nodes.ints([_END]))
    read = nodes.add("Slice", known, *(tail if left else head), axis)
    cut = nodes.add("Slice", long, *(head if left else tail), axis)
    faults = nodes.add("Add", nodes.differ(long, known, axis), nodes.differ(cut, pad, axis))
    return read, nodes.add("Equal", faults, nodes.ints(0))


class _Nodes:
    """New nodes and constants of a graph."""

    def __init__(self, model: onnx_ir.Model) -> None:
        self.tape = Tape()
        self._graph = model.graph

    def add(
        self, operator: str, *inputs: Value, output: Value | None = None, **attributes: int
    ) -> Value:
        return self.tape.op(operator, inputs, attributes, output=output)

    def ints(self, value: int | list[int]) -> Value:
        """Add a constant, INT64."""
        name = f"any_ids_{len(self.tape.initializers)}"
        constant = self.tape.initializer(onnx_ir.tensor(np.array(value, np.int64), name=name))
        self._graph.register_initializer(constant)
        return constant

    def differ(self, one: Value, other: Value, axis: Value) -> Value:
        """Return INT64 [N, 1]: 1 where a row's elements differ, else 0."""
        unlike = self.add("Not", self.add("Equal", one, other))
        return self.add("ReduceMax", self.add("Cast", unlike, to=onnx_ir.DataType.INT64), axis)
