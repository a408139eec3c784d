"""What the exported ONNX files say of themselves, and that they say nothing of this machine."""

from __future__ import annotations

import dataclasses
import getpass
import socket
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch

from wanwu_export import onnx_towers
from wanwu_export.onnx_bank import OPSET
from wanwu_export.onnx_towers import EXTERNAL_SUFFIX, save, write_text_encoder

MODELS = ("image_encoder", "text_encoder", "label_bank", "label_bank_seed18", "label_bank_luxury")
BANKS = MODELS[2:]
TYPES = {
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.STRING: "string",
}


@pytest.fixture(scope="module")
def paths(repository: Path) -> dict[str, Path]:
    return {model: repository / model / "1" / "model.onnx" for model in MODELS}


@pytest.fixture(scope="module")
def models(paths: dict[str, Path]) -> dict[str, onnx.ModelProto]:
    return {model: onnx.load(path) for model, path in paths.items()}


def _declared(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[str, list[str | int]]]:
    """Give name, type and shape as the file declares them; a dynamic axis by its name."""
    declared = {}
    for value in values:
        tensor = value.type.tensor_type
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        declared[value.name] = (TYPES[tensor.elem_type], shape)
    return declared


def _without_weights(model: onnx.ModelProto) -> bytes:
    """Give the file without its constants, in which any few bytes may occur by chance."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        del tensor.string_data[:]
        tensor.ClearField("raw_data")
    return bare.SerializeToString()


@pytest.mark.parametrize("model", MODELS)
def test_a_file_holds_no_path_of_this_machine(paths, model):
    data = paths[model].read_bytes()
    folders = {Path.cwd(), Path(sys.prefix), Path(torch.__file__).parent, Path.home() / ""}
    names = [str(folder).encode() for folder in folders if len(folder.parts) > 2]
    for trace in (*names, b"/work", b"site-packages", b"Traceback"):
        assert trace not in data, trace


@pytest.mark.parametrize("model", MODELS)
def test_a_file_holds_no_stack_trace_and_no_name_of_this_machine(models, model):
    data = _without_weights(models[model])
    assert len(data) < 1_000_000
    names = [socket.gethostname().encode(), getpass.getuser().encode()]
    for trace in (b".py", b"stack_trace", b"pkg.torch", b'File "', *names):
        assert trace not in data, trace


@pytest.mark.parametrize("model", MODELS)
def test_a_file_is_whole_by_itself_and_of_the_opset_triton_reads(paths, models, model):
    onnx.checker.check_model(str(paths[model]), full_check=True)
    assert [opset.version for opset in models[model].opset_import if not opset.domain] == [OPSET]
    external = onnx.TensorProto.EXTERNAL
    assert [t.name for t in models[model].graph.initializer if t.data_location == external] == []


def test_the_image_tower_reads_bytes_and_any_batch(models):
    graph = models["image_encoder"].graph
    inputs, outputs = _declared(graph.input), _declared(graph.output)
    batch = inputs["PIXELS"][1][0]
    assert isinstance(batch, str), f"the batch axis is frozen at {batch}"
    assert inputs == {"PIXELS": ("uint8", [batch, 260, 260, 3])}
    expected = {"EMBEDDING": ("fp32", [batch, 512]), "FINGERPRINT": ("int64", [batch, 1])}
    assert outputs == expected


def test_the_text_tower_reads_any_batch_of_any_length(models):
    graph = models["text_encoder"].graph
    inputs, outputs = _declared(graph.input), _declared(graph.output)
    batch, length = inputs["INPUT_IDS"][1]
    assert isinstance(batch, str), f"the batch axis is frozen at {batch}"
    assert isinstance(length, str), f"the length axis is frozen at {length}"
    assert batch != length
    expected = {"EMBEDDING": ("fp32", [batch, 512]), "FINGERPRINT": ("int64", [batch, 1])}
    assert outputs == expected


@pytest.mark.parametrize("model", BANKS)
def test_a_bank_reads_a_range_and_answers_rows_contract_and_tokenizer(models, model):
    graph = models[model].graph
    assert _declared(graph.input) == {"ROWS": ("int64", [2])}
    assert _declared(graph.output) == {
        "LABELS": ("string", ["rows"]),
        "CATEGORIES": ("string", ["rows"]),
        "EMBEDDINGS": ("fp16", ["rows", 512]),
        "CONTRACT": ("string", [1]),
        "TOKENIZER": ("string", [1]),
    }


def test_the_token_table_stays_in_bytes(paths):
    # As FP32 it alone would be 262 MB.
    assert paths["text_encoder"].stat().st_size < 90_000_000


def test_a_text_tower_of_a_fixed_length_reads_any_batch_of_any_length(make_tower, tmp_path):
    tower = make_tower()
    spec = msgspec.structs.replace(tower.text_spec, padding="max_length")
    write_text_encoder(dataclasses.replace(tower, text_spec=spec), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    _, (batch, length) = _declared(graph.input)["INPUT_IDS"]
    assert isinstance(batch, str), f"the batch axis is frozen at {batch}"
    assert isinstance(length, str), f"the length axis is frozen at {length}"


def test_large_weights_go_into_a_file_beside_the_model(repository, tmp_path, monkeypatch):
    original = repository / "image_encoder" / "1" / "model.onnx"
    monkeypatch.setattr(onnx_towers, "EXTERNAL_FROM", 1 << 20)
    path = tmp_path / "model.onnx"
    save(onnx_ir.load(original), path)
    data = tmp_path / f"model.onnx{EXTERNAL_SUFFIX}"
    assert {found.name for found in tmp_path.iterdir()} == {path.name, data.name}
    assert path.stat().st_size < 1 << 20 < data.stat().st_size
    onnx.checker.check_model(path, full_check=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 260, 260, 3), dtype=np.uint8)
    answers = [
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(
            None, {"PIXELS": pixels}
        )
        for file in (original, path)
    ]
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
