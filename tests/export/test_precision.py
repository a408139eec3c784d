"""Lower precisions: how they are asked for, and that they keep a tower's face."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from wanwu.contract import Precision
from wanwu.errors import InputError
from wanwu_export.onnx_towers import write_image_encoder, write_text_encoder
from wanwu_export.precision import convert, read_precision


@pytest.mark.parametrize(
    ("text", "image", "tower_text"),
    [
        ("fp32", "fp32", "fp32"),
        ("int8", "int8", "int8"),
        ("image=fp16", "fp16", "fp32"),
        ("text=int8", "fp32", "int8"),
        ("image=fp16,text=int8", "fp16", "int8"),
        (" text = int8 , image = fp16 ", "fp16", "int8"),
    ],
)
def test_a_precision_is_read_for_both_towers_or_for_each(text, image, tower_text):
    assert read_precision(text) == Precision(image=image, text=tower_text)


@pytest.mark.parametrize(
    "text",
    ["", "fp64", "INT8", "image", "image=", "=int8", "picture=int8", "image=int8,image=fp16",
     "image=int8,", "int8,fp16", "image=int8 text=fp32"],
)  # fmt: skip
def test_a_precision_that_cannot_be_read_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"cannot be read at .* image=int8,text=fp32"):
        read_precision(text)


@pytest.fixture(scope="module")
def written(make_tower, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the FP32 file of each side of a tiny tower."""
    tower, folder = make_tower(text_end=nn.Linear(8, 8)), tmp_path_factory.mktemp("written")
    write_image_encoder(tower, folder / "image.onnx")
    write_text_encoder(tower, folder / "text.onnx")
    return folder


def _face(path: Path) -> list[bytes]:
    graph = onnx.load(path).graph
    return [value.SerializeToString() for value in (*graph.input, *graph.output)]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("side", ["image", "text"])
def test_inputs_and_outputs_stay_as_they_are(written, tmp_path, side, precision):
    source, before = written / f"{side}.onnx", (written / f"{side}.onnx").read_bytes()
    convert(source, precision, tmp_path / "lower.onnx")
    assert _face(tmp_path / "lower.onnx") == _face(source)
    assert source.read_bytes() == before
    convert(source, precision, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "lower.onnx").read_bytes()


def test_what_is_no_lower_precision_is_refused(written, tmp_path):
    with pytest.raises(ValueError, match="'fp32' is no lower precision"):
        convert(written / "text.onnx", "fp32", tmp_path / "lower.onnx")


def test_a_conversion_leaves_the_callers_logging_alone(written, tmp_path):
    before = logging.getLogger().level
    convert(written / "text.onnx", "int8", tmp_path / "lower.onnx")
    assert logging.getLogger().level == before


def test_weights_of_images_have_seven_bits_so_that_no_processor_saturates(written, tmp_path):
    convert(written / "image.onnx", "int8", tmp_path / "int8.onnx")
    tensors = onnx.load(tmp_path / "int8.onnx").graph.initializer
    weights = [numpy_helper.to_array(tensor) for tensor in tensors]
    signed = [weight for weight in weights if weight.dtype == np.int8]
    assert signed
    # Two products of an unsigned byte and such a weight fit into 16 bits.
    assert max(int(np.abs(weight.astype(int)).max()) for weight in signed) <= 64
