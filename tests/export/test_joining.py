"""Joining a classifier to a text space: whitening, and the weighted mean of descriptions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wanwu_export.concepts import Concept
from wanwu_export.starter.joining import JoinedClassifier, Whitening, describe_concepts


@pytest.fixture
def cloud() -> Tensor:
    """A correlated cloud, far from the origin: 4000 points in 16 dimensions."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(16) + torch.randn(16, 16, generator=generator) / 8
    return torch.randn(4000, 16, generator=generator) @ mixing + 5.0


def _distance_from_white(points: Tensor) -> float:
    """Tell how far the covariance is from the identity; on the sphere each axis holds 1/16."""
    unit_length = functional.normalize(points, dim=-1)
    covariance = 16 * unit_length.T @ unit_length / len(points)
    return float((covariance - torch.eye(16)).abs().max())


def test_whitening_makes_the_covariance_nearly_the_identity(cloud):
    assert _distance_from_white(Whitening.fit(cloud)(cloud)) < 0.1
    assert _distance_from_white(cloud - cloud.mean(0)) > 0.3  # centring alone is not enough


def test_whitened_vectors_have_unit_length(cloud):
    lengths = Whitening.fit(cloud)(cloud).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(len(cloud)))


def test_whitening_takes_the_common_direction_away(cloud):
    raw, white = functional.normalize(cloud, dim=-1), Whitening.fit(cloud)(cloud)
    assert float((raw @ raw.T).mean()) > 0.5
    assert abs(float((white @ white.T).mean())) < 0.02


def test_whitening_the_same_vocabulary_gives_the_same_matrix(cloud):
    first, second = Whitening.fit(cloud), Whitening.fit(cloud.clone())
    assert torch.equal(first.matrix, second.matrix)
    assert set(first.state_dict()) == {"mean", "matrix"}  # so the fingerprint covers them


def test_whitening_survives_a_direction_without_variance(cloud):
    flat = torch.cat([cloud, torch.ones(len(cloud), 1)], dim=1)
    assert torch.isfinite(Whitening.fit(flat)(flat)).all()


def test_a_certain_classifier_gives_the_description_of_its_class():
    descriptions = functional.normalize(torch.randn(5, 8), dim=-1)
    joined = JoinedClassifier(nn.Identity(), descriptions)
    certain = 1000.0 * torch.eye(5)  # logits whose softmax is one-hot
    torch.testing.assert_close(joined(certain), descriptions)


def test_a_classifier_in_doubt_gives_the_weighted_mean_of_the_descriptions():
    joined = JoinedClassifier(nn.Identity(), torch.eye(2))
    probabilities = torch.tensor([[0.8, 0.2], [0.5, 0.5]])
    found = joined(probabilities.log())
    torch.testing.assert_close(found, functional.normalize(probabilities, dim=-1))


def test_joined_embeddings_have_unit_length():
    descriptions = functional.normalize(torch.randn(7, 4), dim=-1)
    lengths = JoinedClassifier(nn.Identity(), descriptions)(torch.randn(50, 7)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(50))


def test_the_starter_describes_by_bare_words_with_the_weights_it_was_measured_with():
    words = ("猫", "猫咪", "动物", "抓老鼠")

    def encode(texts: Sequence[str]) -> Tensor:
        return torch.eye(len(words))[[words.index(text) for text in texts]]

    concept = Concept("猫", aliases=("猫咪",), broader=("动物",), description="抓老鼠")
    expected = functional.normalize(torch.tensor([[1.0, 0.3, 0.6, 0.3]]), dim=-1)
    torch.testing.assert_close(describe_concepts([concept], encode), expected)
