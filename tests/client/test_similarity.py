from __future__ import annotations

import importlib.util
import sys
import threading

import numpy as np
import pytest

from wanwu.contract import Calibration, Score
from wanwu.rank import scores, top
from wanwu.similarity import LARGE_BANK, LabelRows

COUNT, WIDTH = LARGE_BANK + 13, 96


@pytest.fixture(scope="module", autouse=True)
def numkong(need) -> None:
    need(
        importlib.util.find_spec("numkong") is not None, "numkong: pip install 'wanwu[large-banks]'"
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    rows = vectors.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def rows_in_a_cone(spread: float, seed: int = 0) -> np.ndarray:
    """Rows around one direction, as the texts of a CLIP are: the smaller the spread, the nearer."""
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal(WIDTH) + spread * rng.standard_normal((COUNT, WIDTH)))


def pictures(rows: np.ndarray, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(rows[rng.integers(0, COUNT, 8)] + 0.1 * rng.standard_normal((8, WIDTH)))


@pytest.fixture(params=[1.0, 0.1, 0.0001])
def rows(request) -> np.ndarray:
    return rows_in_a_cone(request.param)


@pytest.mark.parametrize("top_k", [1, 5, 200, COUNT, COUNT + 1])
def test_the_best_of_a_large_bank_are_those_of_the_fp32_product(rows: np.ndarray, top_k) -> None:
    compared = LabelRows(rows)
    for vector in pictures(rows):
        expected = rows @ vector
        cosines, best = compared.compare(vector, top_k)
        # BLAS adds up a part of the rows in another order, so ties in the last bit may change.
        np.testing.assert_allclose(expected[best], expected[top(expected, top_k)], atol=1e-6)
        np.testing.assert_allclose(cosines[best], expected[best], rtol=0, atol=1e-6)


def test_int8_is_used_and_its_error_is_within_the_stated_bound() -> None:
    rows = rows_in_a_cone(1.0)
    compared = LabelRows(rows)
    for vector in pictures(rows):
        assert compared._quantised is not None
        products, bound = compared._quantised.product(vector)
        worst = np.abs(products - rows @ vector).max()
        assert 0 < worst <= bound < 0.05
        assert np.any(compared.compare(vector, 5)[0] != rows @ vector)


@pytest.mark.parametrize("logit_scale", [14.0, 100.0])
def test_probabilities_are_those_of_the_fp32_product_within_a_thousandth(logit_scale) -> None:
    rows = rows_in_a_cone(0.5)
    score = Score(kind="softmax", logit_scale=logit_scale)
    for vector in pictures(rows):
        found = scores(LabelRows(rows).compare(vector, 5)[0], score, Calibration())
        expected = scores(rows @ vector, score, Calibration())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_labels_that_are_all_near_are_compared_in_fp32() -> None:
    rows = rows_in_a_cone(0.0)
    vector = pictures(rows)[0]
    cosines, best = LabelRows(rows).compare(vector, 3)
    np.testing.assert_array_equal(cosines, rows @ vector)
    assert best.tolist() == [0, 1, 2]


def test_rows_and_pictures_of_zeros_are_compared() -> None:
    rows = rows_in_a_cone(1.0)
    rows[5] = 0
    assert LabelRows(rows).compare(rows[7], 1)[1].tolist() == [7]
    assert LabelRows(rows).compare(np.zeros(WIDTH, np.float32), 2)[1].tolist() == [0, 1]


def test_without_numkong_the_fp32_product_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_in_a_cone(1.0)
    vector = pictures(rows)[0]
    with_it = LabelRows(rows).compare(vector, 5)
    monkeypatch.setitem(sys.modules, "numkong", None)  # importing it fails
    cosines, best = LabelRows(rows).compare(vector, 5)
    np.testing.assert_array_equal(cosines, rows @ vector)
    assert best.tolist() == with_it[1].tolist()


def test_a_small_bank_never_needs_numkong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numkong", object())  # any use of it would fail
    rows = rows_in_a_cone(1.0)[:100]
    np.testing.assert_allclose(LabelRows(rows).compare(rows[3], 5)[0], rows @ rows[3], atol=1e-6)


def test_many_threads_compare_with_one_bank() -> None:
    rows = rows_in_a_cone(1.0)
    compared, vectors = LabelRows(rows), pictures(rows)
    expected = [int(np.argmax(rows @ vector)) for vector in vectors]
    found: list[int | None] = [None] * len(vectors)

    def compare(place: int) -> None:
        found[place] = int(compared.compare(vectors[place], 1)[1][0])

    threads = [threading.Thread(target=compare, args=(place,)) for place in range(len(vectors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
