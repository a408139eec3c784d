"""A served tower takes whatever reaches its input, and no neighbour in the batch notices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from wanwu.errors import ModelError
from wanwu_export.accelerators import check_accelerators
from wanwu_export.onnx_towers import write_image_encoder, write_text_encoder
from wanwu_export.parity import Gate
from wanwu_export.parity_ids import check_any_ids
from wanwu_export.precision import convert

PRECISIONS = ("fp32", "fp16", "int8")


def text_tower(make_tower, **changes: object):
    tower = make_tower()
    return replace(tower, text_spec=msgspec.structs.replace(tower.text_spec, **changes))


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=["longest", "max_length"])
def padding(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=["right", "left"])
def tower(make_tower, padding: str, request: pytest.FixtureRequest):
    return text_tower(make_tower, padding=padding, pad_side=request.param)


@pytest.fixture(scope="module")
def run(tower, tmp_path_factory: pytest.TempPathFactory):
    """Return a function that runs the tower's text graph on ids."""
    path = tmp_path_factory.mktemp("text") / "model.onnx"
    write_text_encoder(tower, path)
    loaded = session(path)
    return lambda ids: loaded.run(None, {"INPUT_IDS": np.asarray(ids, np.int64)})


def test_an_id_outside_the_vocabulary_marks_its_row_and_no_other(tower, run):
    good = [1, 2, 3]
    rows = [good, [1, -1, 3], good, [1, tower.vocabulary, 3], [2**63 - 1, -(2**63), 3]]
    embeddings, fingerprints = run(rows)
    right = tower.fingerprint
    assert fingerprints.ravel().tolist() == [right, 0, right, 0, 0]
    np.testing.assert_array_equal(embeddings[0], run([good])[0][0])
    np.testing.assert_array_equal(embeddings[2], embeddings[0])
    assert np.isfinite(embeddings).all()


@pytest.mark.parametrize("length", [0, 1, 15, 16])
def test_a_row_of_any_length_to_the_maximum_is_whole(tower, run, length):
    embeddings, fingerprints = run(np.ones((2, length)))
    assert fingerprints.ravel().tolist() == [tower.fingerprint] * 2
    assert np.isfinite(embeddings).all()


@pytest.mark.parametrize("length", [17, 40, 5000])
def test_a_longer_row_is_cut_and_marked_unless_the_rest_is_padding(tower, run, length):
    longest, pad = tower.text_spec.max_length, tower.text_spec.pad_id
    padded = np.full((1, length), pad)
    place = slice(None, longest) if tower.text_spec.pad_side == "right" else slice(-longest, None)
    padded[:, place] = 7
    cut, whole = run(np.full((1, length), 7)), run(padded)
    assert (cut[1].item(), whole[1].item()) == (0, tower.fingerprint)
    np.testing.assert_array_equal(cut[0], run(np.full((1, longest), 7))[0])
    np.testing.assert_array_equal(whole[0], cut[0])


def test_the_gate_passes_such_a_graph_and_refuses_one_that_fails_on_an_unknown_id(tower, run):
    check_any_ids(run, [1, 2], tower.text_spec, tower.vocabulary, tower.fingerprint)

    def strict(ids):
        if (ids >= tower.vocabulary).any():
            raise IndexError("out of bounds")
        return run(ids)

    with pytest.raises(ModelError, match=r"with id 1001 beside good ones it fails on them: out of"):
        check_any_ids(strict, [1, 2], tower.text_spec, tower.vocabulary, tower.fingerprint)


def test_the_gate_refuses_a_clipped_row_with_the_fingerprint_of_the_export(tower, run):
    def careless(ids):
        embeddings, fingerprints = run(ids)
        return embeddings, np.full_like(fingerprints, tower.fingerprint)

    with pytest.raises(ModelError, match="answers fingerprints"):
        check_any_ids(careless, [1, 2], tower.text_spec, tower.vocabulary, tower.fingerprint)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_pixels_feed_one_cast_in_every_precision(make_tower, tmp_path, precision):
    write_image_encoder(make_tower(), tmp_path / "fp32.onnx")
    path = tmp_path / f"{precision}.onnx"
    if precision != "fp32":
        convert(tmp_path / "fp32.onnx", precision, path)
    readers = [node.op_type for node in onnx.load(path).graph.node if "PIXELS" in node.input]
    assert readers == ["Cast"]
    check_accelerators(path, "image", precision)


def test_the_starters_pixels_feed_one_cast(repository):
    graph = onnx.load(repository / "image_encoder" / "1" / "model.onnx").graph
    assert [node.op_type for node in graph.node if "PIXELS" in node.input] == ["Cast"]


def test_the_gate_names_a_node_that_reads_pixels_as_bytes(make_tower, tmp_path):
    tower, path = make_tower(), tmp_path / "model.onnx"
    write_image_encoder(tower, path)
    model = onnx.load(path)
    shape = next(node for node in model.graph.node if node.op_type == "Shape")
    shape.input[0] = "PIXELS"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=rf"TensorRT, .* node '{shape.name}' \(Shape\) reads PIX"):
        Gate(tower).check_image(path, "fp32")


def test_dynamic_int8_is_for_cpu_nodes_alone(make_tower, tmp_path):
    write_image_encoder(make_tower(), tmp_path / "fp32.onnx")
    convert(tmp_path / "fp32.onnx", "int8", tmp_path / "int8.onnx")
    check_accelerators(tmp_path / "int8.onnx", "image", "int8")
    with pytest.raises(ModelError, match="is a DynamicQuantizeLinear, which it does not have"):
        check_accelerators(tmp_path / "int8.onnx", "image", "fp16")


def test_the_gate_refuses_a_good_row_without_a_direction(tower, run):
    def spoiled(ids):
        embeddings, fingerprints = run(ids)
        return np.where((fingerprints == 0).any(), np.nan, embeddings), fingerprints

    with pytest.raises(ModelError, match="with id -1 beside good ones it answers NaN"):
        check_any_ids(spoiled, [1, 2], tower.text_spec, tower.vocabulary, tower.fingerprint)
