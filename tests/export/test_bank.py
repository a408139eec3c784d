"""A bank's ONNX file: constants that answer a range of rows, whatever the range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanwu.bank import bank_digest
from wanwu.contract import Calibration, Contract
from wanwu.errors import SetupError
from wanwu.tokens import load_tokenizer, token_ids
from wanwu_export.concepts import read_concepts
from wanwu_export.onnx_bank import StoredBank, read_bank, write_bank
from wanwu_export.templates import load_templates

BANKS = {"default": "label_bank", "seed18": "label_bank_seed18", "luxury": "label_bank_luxury"}

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def sessions(repository: Path) -> dict[str, onnxruntime.InferenceSession]:
    return {
        name: onnxruntime.InferenceSession(
            repository / model / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        for name, model in BANKS.items()
    }


@pytest.fixture(scope="module")
def ask(sessions):
    """Give a function that asks a bank for its rows from first to last, last excluded."""

    def run(bank: str, first: int, last: int) -> Arrays:
        session = sessions[bank]
        values = session.run(None, {"ROWS": np.array([first, last], dtype=np.int64)})
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, values, strict=True))

    return run


@pytest.fixture(scope="module")
def stored(repository: Path) -> dict[str, StoredBank]:
    """The banks as they are read back, by name."""
    return {
        name: read_bank(repository / model / "1" / "model.onnx") for name, model in BANKS.items()
    }


@pytest.mark.parametrize("bank", BANKS)
def test_the_whole_range_gives_every_row_in_order(ask, plans, described, bank):
    concepts = plans[bank].concepts
    rows = ask(bank, 0, len(concepts))
    assert rows["LABELS"].tolist() == [concept.label for concept in concepts]
    assert rows["CATEGORIES"].tolist() == [concept.category for concept in concepts]
    assert rows["EMBEDDINGS"].dtype == np.float16
    # PyTorch's own rows; 5e-4 is FP16's rounding of a number near 1.
    np.testing.assert_allclose(rows["EMBEDDINGS"], described[bank], rtol=0, atol=5e-4)


@pytest.mark.parametrize("bank", BANKS)
def test_a_bank_is_read_back_as_triton_would_answer_it(ask, stored, starter, bank):
    found, rows = stored[bank], ask(bank, 0, 5000)
    assert found.labels == rows["LABELS"].tolist()
    assert found.categories == rows["CATEGORIES"].tolist()
    np.testing.assert_array_equal(found.embeddings, rows["EMBEDDINGS"])
    assert found.contract.to_json() == rows["CONTRACT"][0].encode()
    assert found.tokenizer == rows["TOKENIZER"][0].encode() == starter.tokenizer


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 0), (0, 1), (0, 18), (5, 9), (17, 18), (10, 100), (18, 100), (100, 200), (9, 5), (7, 7)],
)
def test_a_range_gives_its_slice(ask, plans, stored, first, last):
    rows = ask("seed18", first, last)
    labels = [concept.label for concept in plans["seed18"].concepts]
    assert rows["LABELS"].tolist() == labels[first:last]
    assert len(rows["CATEGORIES"]) == len(labels[first:last])
    assert rows["EMBEDDINGS"].shape == (len(labels[first:last]), 512)
    expected = stored["seed18"].embeddings[first:last]
    np.testing.assert_array_equal(rows["EMBEDDINGS"], expected)


@settings(deadline=None)
@given(first=st.integers(0, 1100), last=st.integers(0, 1100))
def test_every_range_slices_the_three_columns_alike(ask, plans, stored, first, last):
    rows = ask("default", first, last)
    concepts = plans["default"].concepts[first:last]
    assert rows["LABELS"].tolist() == [concept.label for concept in concepts]
    assert rows["CATEGORIES"].tolist() == [concept.category for concept in concepts]
    expected = stored["default"].embeddings[first:last]
    np.testing.assert_array_equal(rows["EMBEDDINGS"], expected)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (3, 4), (0, 18), (500, 600)])
def test_contract_and_tokenizer_come_whatever_the_range(ask, first, last):
    empty, other = ask("seed18", 0, 0), ask("seed18", first, last)
    for name in ("CONTRACT", "TOKENIZER"):
        assert other[name].shape == (1,)
        assert other[name].tolist() == empty[name].tolist()


@pytest.mark.parametrize("bank", BANKS)
def test_the_contract_is_that_of_the_tower_and_of_this_bank(ask, starter, bank):
    contract = Contract.from_json(ask(bank, 0, 0)["CONTRACT"][0].encode())
    assert contract.bank.name == bank
    assert contract.fingerprint == starter.fingerprint
    assert contract.embedding_dim == starter.embedding_dim
    assert (contract.model, contract.precision) == (starter.model, starter.precision)
    assert (contract.image, contract.text) == (starter.image_geometry, starter.text_spec)
    assert (contract.score, contract.calibration) == (starter.score, Calibration())
    assert contract.bank.templates == load_templates(starter.templates).texts


@pytest.mark.parametrize("bank", BANKS)
def test_the_contract_counts_and_digests_what_the_file_holds(ask, bank):
    contract = Contract.from_json(ask(bank, 0, 0)["CONTRACT"][0].encode())
    rows = ask(bank, 0, contract.bank.count + 1)
    labels, categories = rows["LABELS"].tolist(), rows["CATEGORIES"].tolist()
    assert len(labels) == contract.bank.count
    assert rows["EMBEDDINGS"].shape == (contract.bank.count, contract.embedding_dim)
    assert contract.bank.digest == bank_digest(labels, categories, rows["EMBEDDINGS"])
    assert contract.bank.digest != bank_digest(labels[::-1], categories, rows["EMBEDDINGS"])


@pytest.mark.parametrize("bank", BANKS)
def test_embeddings_are_of_unit_length_as_far_as_fp16_goes(ask, bank):
    lengths = np.linalg.norm(ask(bank, 0, 5000)["EMBEDDINGS"].astype(np.float32), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-3)


def test_the_tokenizer_that_a_bank_carries_tokenizes_its_labels(ask, starter):
    rows = ask("luxury", 0, 20)
    data = rows["TOKENIZER"][0].encode()
    assert data == starter.tokenizer
    ids = token_ids(load_tokenizer(data), rows["LABELS"].tolist(), starter.text_spec)
    assert ids.shape[0] == 20
    assert ids[:, 0].tolist() == [1] * 20


@pytest.mark.parametrize("count", [1, 2, 300])
def test_what_is_written_is_read_back_to_the_last_bit(stored, tmp_path, count):
    rows = np.random.default_rng(count).standard_normal((count, 7)).astype(np.float16)
    written = replace(
        stored["seed18"],
        labels=[f"标签\n{n}" for n in range(count)],
        categories=["" if n % 2 else "类" for n in range(count)],
        embeddings=rows,
    )
    write_bank(written, tmp_path / "one.onnx")
    found = read_bank(tmp_path / "one.onnx")
    np.testing.assert_array_equal(found.embeddings, rows)
    assert replace(found, embeddings=rows) == written
    write_bank(found, tmp_path / "two.onnx")
    assert (tmp_path / "two.onnx").read_bytes() == (tmp_path / "one.onnx").read_bytes()


@pytest.mark.parametrize("data", [None, b"", b"no protobuf", b"\x3a\x00"], ids=repr)
def test_a_file_that_is_no_bank_is_told(tmp_path, data):
    path = tmp_path / "model.onnx"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SetupError, match=f"{path} is no label bank .*; export the model again"):
        read_bank(path)


def test_a_tower_is_no_bank(repository):
    path = repository / "image_encoder" / "1" / "model.onnx"
    with pytest.raises(SetupError, match="is no label bank"):
        read_bank(path)


@pytest.mark.parametrize("bank", BANKS)
def test_the_labels_lie_beside_a_bank_as_they_were_given(repository, plans, bank):
    path = repository / BANKS[bank] / "1" / "labels.tsv"
    read = read_concepts(path)
    assert (read.concepts, read.notes) == (list(plans[bank].concepts), [])
