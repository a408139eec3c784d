from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wanwu import Prediction
from wanwu.contract import Calibration, Score
from wanwu.rank import scores, top

COSINES = np.random.default_rng(0).uniform(-1, 1, (4, 50)).astype(np.float32)
PLAIN = Calibration()


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("logit_scale", [1.0, 14.3, 100.0])
def test_softmax_equals_a_plain_softmax_in_float64(logit_scale: float, temperature: float) -> None:
    score = Score(kind="softmax", logit_scale=logit_scale)
    values = scores(COSINES, score, Calibration(temperature=temperature))
    expected = softmax(COSINES.astype(np.float64) * logit_scale / temperature)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(values.sum(axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(("logit_scale", "logit_bias"), [(1.0, 0.0), (10.0, -10.0), (30.0, 4.0)])
def test_sigmoid_equals_a_plain_sigmoid_in_float64(
    logit_scale: float, logit_bias: float, temperature: float
) -> None:
    score = Score(kind="sigmoid", logit_scale=logit_scale, logit_bias=logit_bias)
    values = scores(COSINES, score, Calibration(temperature=temperature))
    logits = (COSINES.astype(np.float64) * logit_scale + logit_bias) / temperature
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, 1 / (1 + np.exp(-logits)), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_steepest_scale_gives_no_overflow(kind: str, temperature: float) -> None:
    # SigLIP's own scale and bias; every float32 cosine must have a score, without a warning.
    score = Score(kind=kind, logit_scale=117.3, logit_bias=-12.9)  # type: ignore[arg-type]
    extremes = np.array([-1.0, 0.0, 1.0], np.float32)
    values = scores(extremes, score, Calibration(temperature=temperature))
    assert values[0] < 1e-6
    assert values[2] > 0.999


def test_a_higher_temperature_flattens_and_keeps_the_order() -> None:
    score = Score(kind="softmax", logit_scale=20.0)
    sharp = scores(COSINES[0], score, PLAIN)
    flat = scores(COSINES[0], score, Calibration(temperature=5.0))
    assert flat.max() < sharp.max()
    assert top(flat, 50).tolist() == top(sharp, 50).tolist()


def test_one_label_has_all_of_a_softmax() -> None:
    only = np.array([-0.3], np.float32)
    assert scores(only, Score(kind="softmax", logit_scale=100.0), PLAIN).tolist() == [1.0]


@given(
    values=arrays(
        np.float32,
        st.integers(1, 40),
        # Few different values, so that ties are common.
        elements=st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.25, 0.25 + 2**-25, 1.0]),
    ),
    k=st.integers(1, 60),
)
def test_top_equals_a_stable_sort_cut_to_k(values: np.ndarray, k: int) -> None:
    expected = np.argsort(-values, kind="stable")[:k]
    assert top(values, k).tolist() == expected.tolist()


@given(arrays(np.float32, st.integers(1, 200), elements=st.floats(-1, 1, width=32)))
def test_top_of_everything_is_a_permutation_in_falling_order(values: np.ndarray) -> None:
    places = top(values, values.size + 5)
    assert sorted(places.tolist()) == list(range(values.size))
    assert (np.diff(values[places]) <= 0).all()


def test_top_of_ties_takes_the_first_places() -> None:
    assert top(np.zeros(50_000, np.float32), 3).tolist() == [0, 1, 2]


def test_a_prediction_cannot_be_changed() -> None:
    prediction = Prediction("猫", 0.9, 0.3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.score = 1.0  # type: ignore[misc]
