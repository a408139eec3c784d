"""A label bank as an ONNX model made of constants, served by the same backend as the towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from wanwu.contract import Contract
from wanwu.errors import SetupError

#: The newest operator set that Triton's onnxruntime backend reads since 23.10.
OPSET = 18
IR_VERSION = 8


@dataclass(frozen=True)
class StoredBank:
    """What a bank's ONNX file holds. `embeddings` is FP16 [n, D], unit length."""

    contract: Contract
    tokenizer: bytes
    labels: Sequence[str]
    categories: Sequence[str]
    embeddings: npt.NDArray[np.float16]


def write_bank(bank: StoredBank, path: Path) -> None:
    """Write a bank's ONNX file.

    The graph answers ROWS INT64 [2] (first, last+1) with that range of LABELS, CATEGORIES and
    EMBEDDINGS, and with the whole CONTRACT and TOKENIZER whatever the range.
    """
    model = _graph(
        bank.labels, bank.categories, bank.embeddings, bank.contract.to_json(), bank.tokenizer
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def read_bank(path: Path) -> StoredBank:
    """Read a bank's ONNX file back.

    Raises:
        SetupError: the file is no bank.
    """
    try:
        constants = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
        return StoredBank(
            Contract.from_json(constants["contract"].string_data[0]),
            bytes(constants["tokenizer"].string_data[0]),
            [label.decode() for label in constants["labels"].string_data],
            [category.decode() for category in constants["categories"].string_data],
            numpy_helper.to_array(constants["embeddings"]),
        )
    except (OSError, KeyError, IndexError, DecodeError) as error:
        raise SetupError(
            "{0} is no label bank ({1}: {2}); export the model again",
            path,
            type(error).__name__,
            error,
        ) from error


def _graph(
    labels: Sequence[str],
    categories: Sequence[str],
    embeddings: npt.NDArray[np.float16],
    contract: bytes,
    tokenizer: bytes,
) -> onnx.ModelProto:
    constants = [
        _texts("labels", [label.encode() for label in labels]),
        _texts("categories", [category.encode() for category in categories]),
        numpy_helper.from_array(embeddings, "embeddings"),
        _texts("contract", [contract]),
        _texts("tokenizer", [tokenizer]),
        numpy_helper.from_array(np.array([0], dtype=np.int64), "zero"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "one"),
        numpy_helper.from_array(np.array([2], dtype=np.int64), "two"),
    ]
    nodes = [
        helper.make_node("Slice", ["ROWS", "zero", "one"], ["first"]),
        helper.make_node("Slice", ["ROWS", "one", "two"], ["last"]),
        helper.make_node("Slice", ["labels", "first", "last", "zero"], ["LABELS"]),
        helper.make_node("Slice", ["categories", "first", "last", "zero"], ["CATEGORIES"]),
        helper.make_node("Slice", ["embeddings", "first", "last", "zero"], ["EMBEDDINGS"]),
        helper.make_node("Identity", ["contract"], ["CONTRACT"]),
        helper.make_node("Identity", ["tokenizer"], ["TOKENIZER"]),
    ]
    text, half = TensorProto.STRING, TensorProto.FLOAT16
    graph = helper.make_graph(
        nodes,
        "label_bank",
        [helper.make_tensor_value_info("ROWS", TensorProto.INT64, [2])],
        [
            helper.make_tensor_value_info("LABELS", text, ["rows"]),
            helper.make_tensor_value_info("CATEGORIES", text, ["rows"]),
            helper.make_tensor_value_info("EMBEDDINGS", half, ["rows", embeddings.shape[1]]),
            helper.make_tensor_value_info("CONTRACT", text, [1]),
            helper.make_tensor_value_info("TOKENIZER", text, [1]),
        ],
        constants,
    )
    return helper.make_model(
        graph,
        producer_name="wanwu",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def _texts(name: str, values: Sequence[bytes]) -> TensorProto:
    return TensorProto(
        name=name, data_type=TensorProto.STRING, dims=[len(values)], string_data=values
    )
