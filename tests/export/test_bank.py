"""A bank's ONNX file: constants that answer a range of rows, whatever the range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanwu.bank import bank_digest
from wanwu.contract import Calibration, Contract
from wanwu.tokens import load_tokenizer, token_ids

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
def sources(starter):
    """The banks before conversion, by name."""
    return {source.name: source for source in starter[1]}


@pytest.mark.parametrize("bank", BANKS)
def test_the_whole_range_gives_every_row_in_order(ask, sources, bank):
    concepts = sources[bank].concepts
    rows = ask(bank, 0, len(concepts))
    assert rows["LABELS"].tolist() == [concept.label for concept in concepts]
    assert rows["CATEGORIES"].tolist() == [concept.category for concept in concepts]
    assert rows["EMBEDDINGS"].dtype == np.float16
    expected = sources[bank].embeddings.numpy().astype(np.float16)
    np.testing.assert_array_equal(rows["EMBEDDINGS"], expected)


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 0), (0, 1), (0, 18), (5, 9), (17, 18), (10, 100), (18, 100), (100, 200), (9, 5), (7, 7)],
)
def test_a_range_gives_its_slice(ask, sources, first, last):
    rows = ask("seed18", first, last)
    labels = [concept.label for concept in sources["seed18"].concepts]
    assert rows["LABELS"].tolist() == labels[first:last]
    assert len(rows["CATEGORIES"]) == len(labels[first:last])
    expected = sources["seed18"].embeddings.numpy().astype(np.float16)[first:last]
    assert rows["EMBEDDINGS"].shape == (len(labels[first:last]), 512)
    np.testing.assert_array_equal(rows["EMBEDDINGS"], expected)


@settings(deadline=None)
@given(first=st.integers(0, 1100), last=st.integers(0, 1100))
def test_every_range_slices_the_three_columns_alike(ask, sources, first, last):
    rows = ask("default", first, last)
    concepts = sources["default"].concepts[first:last]
    assert rows["LABELS"].tolist() == [concept.label for concept in concepts]
    assert rows["CATEGORIES"].tolist() == [concept.category for concept in concepts]
    assert len(rows["EMBEDDINGS"]) == len(concepts)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (3, 4), (0, 18), (500, 600)])
def test_contract_and_tokenizer_come_whatever_the_range(ask, first, last):
    empty, other = ask("seed18", 0, 0), ask("seed18", first, last)
    for name in ("CONTRACT", "TOKENIZER"):
        assert other[name].shape == (1,)
        assert other[name].tolist() == empty[name].tolist()


@pytest.mark.parametrize("bank", BANKS)
def test_the_contract_is_that_of_the_tower_and_of_this_bank(ask, starter, bank):
    tower, _ = starter
    contract = Contract.from_json(ask(bank, 0, 0)["CONTRACT"][0].encode())
    assert contract.bank.name == bank
    assert contract.fingerprint == tower.fingerprint()
    assert (contract.model, contract.precision) == (tower.model, tower.precision)
    assert (contract.image, contract.text) == (tower.image_geometry, tower.text_spec)
    assert (contract.score, contract.calibration) == (tower.score, Calibration())


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
    tower, _ = starter
    data = rows["TOKENIZER"][0].encode()
    assert data == tower.tokenizer
    ids = token_ids(load_tokenizer(data), rows["LABELS"].tolist(), tower.text_spec)
    assert ids.shape[0] == 20
    assert ids[:, 0].tolist() == [1] * 20
