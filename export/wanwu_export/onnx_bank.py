"""A label bank as an ONNX model made of constants, served by the same backend as the towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from wanwu.bank import bank_digest
from wanwu.contract import SCHEMA_VERSION as CONTRACT_VERSION
from wanwu.contract import Bank, Calibration, Contract
from wanwu_export.dual_tower import BankSource, DualTower
from wanwu_export.onnx_towers import OPSET

IR_VERSION = 8


def write_bank(tower: DualTower, source: BankSource, path: Path) -> Contract:
    """Write a bank's ONNX file and give the contract it carries.

    The graph answers ROWS INT64 [2] (first, last+1) with that range of LABELS, CATEGORIES and
    EMBEDDINGS, and with the whole CONTRACT and TOKENIZER whatever the range.
    """
    labels = [concept.label for concept in source.concepts]
    categories = [concept.category for concept in source.concepts]
    embeddings = source.embeddings.numpy().astype(np.float16)
    contract = _contract(tower, source, bank_digest(labels, categories, embeddings))
    model = _graph(labels, categories, embeddings, contract.to_json(), tower.tokenizer)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return contract


def _contract(tower: DualTower, source: BankSource, digest: str) -> Contract:
    return Contract(
        schema_version=CONTRACT_VERSION,
        fingerprint=tower.fingerprint(),
        embedding_dim=tower.embedding_dim,
        model=tower.model,
        image=tower.image_geometry,
        text=tower.text_spec,
        score=tower.score,
        calibration=Calibration(),
        bank=Bank(
            name=source.name, count=len(source.concepts), created=source.created, digest=digest
        ),
        precision=tower.precision,
    )


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
