"""The image classifier in PyTorch: the package's weights, and real photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from wanwu.contract import Image
from wanwu.images import ImageSource, to_pixels
from wanwu.samples import cat_photo, sample_photos
from wanwu_export.starter.efficientnet_lite import (
    CLASSES,
    IMAGE_SIZE,
    MEAN,
    SHORTEST_EDGE,
    STD,
    EfficientNetLite2,
    _SameConv2d,
    load_weights,
)

GEOMETRY = Image(
    height=IMAGE_SIZE,
    width=IMAGE_SIZE,
    resize="shortest_edge",
    shortest_edge=SHORTEST_EDGE,
    resample="bicubic",
)
CATS = {281, 282, 283, 284, 285}
#: Photograph of a package: ImageNet classes it may be called.
SAMPLES = {
    "chelsea.png": CATS,
    "coffee.png": {967, 968},  # espresso, cup
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
    "china.jpg": {698, 832, 536, 975},  # palace, stupa, by the water
}


@pytest.fixture(scope="module")
def classifier() -> EfficientNetLite2:
    model = EfficientNetLite2()
    model.load_state_dict(load_weights(), strict=True)
    return model.eval()


@torch.no_grad()
def _top(classifier: EfficientNetLite2, photo: ImageSource, k: int) -> list[int]:
    pixels = to_pixels(photo, GEOMETRY).astype(np.float32).transpose(2, 0, 1)
    logits = classifier((torch.from_numpy(pixels)[None] - MEAN) / STD)
    return logits[0].topk(k).indices.tolist()


def test_the_weights_are_those_of_the_architecture_and_no_others():
    expected = EfficientNetLite2().state_dict()
    found = load_weights()
    assert found.keys() == expected.keys()
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def test_a_missing_weight_is_not_passed_over():
    weights = load_weights()
    del weights["_fc.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*_fc\.bias"):
        EfficientNetLite2().load_state_dict(weights)


def test_the_cat_is_a_cat(classifier):
    assert CATS & set(_top(classifier, cat_photo(), 3))


@pytest.mark.parametrize("photo", sample_photos(), ids=lambda photo: photo.name)
def test_a_sample_photo_is_what_it_shows(classifier, photo):
    found = _top(classifier, photo, 3)
    assert SAMPLES[photo.name] & set(found), found


@torch.no_grad()
def test_a_picture_is_classified_alike_alone_and_in_a_batch(classifier):
    images = torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    together = classifier(images)
    assert together.shape == (3, CLASSES)
    alone = torch.cat([classifier(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


# TensorFlow: outputs = ceil(size / stride); total = (outputs - 1) x stride + kernel - size, at
# least 0; the smaller half goes before.
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [
        (260, 3, 2, 0, 1),
        (130, 3, 2, 0, 1),
        (130, 5, 2, 1, 2),
        (65, 3, 2, 1, 1),
        (65, 5, 2, 2, 2),
        (33, 3, 2, 1, 1),
        (17, 5, 2, 2, 2),
        (9, 3, 1, 1, 1),
        (10, 5, 1, 2, 2),
        (9, 1, 2, 0, 0),
        (2, 1, 2, 0, 0),
    ],
)
def test_same_padding_is_that_of_tensorflow(size, kernel, stride, before, after):
    layer = _SameConv2d(2, 3, kernel, stride, bias=False)
    image = torch.randn(1, 2, size, size)
    padded = functional.pad(image, (before, after, before, after))
    found = layer(image)
    assert found.shape[2:] == (-(-size // stride),) * 2
    torch.testing.assert_close(found, functional.conv2d(padded, layer.weight, stride=stride))


def test_same_padding_takes_each_axis_by_itself():
    layer = _SameConv2d(1, 1, 3, 2, bias=False)
    image = torch.randn(1, 1, 6, 9)
    # Height 6 is padded 0 + 1, width 9 is padded 1 + 1; torch names the last axis first.
    padded = functional.pad(image, (1, 1, 0, 1))
    torch.testing.assert_close(layer(image), functional.conv2d(padded, layer.weight, stride=2))
