from __future__ import annotations

import json
from typing import Any

import pytest

from wanwu import Contract, ModelError

SAMPLE: dict[str, Any] = {
    "schema_version": 1,
    "fingerprint": 1234567890123456789,
    "embedding_dim": 512,
    "model": {"name": "starter", "revision": "1", "licence": "Apache-2.0"},
    "image": {
        "height": 224,
        "width": 200,
        "resize": "shortest_edge",
        "resample": "bicubic",
        "shortest_edge": 256,
    },
    "text": {
        "max_length": 52,
        "pad_id": 0,
        "lowercase": True,
        "padding": "max_length",
        "pad_side": "left",
    },
    "score": {"kind": "sigmoid", "logit_scale": 117.3, "logit_bias": -12.9},
    "calibration": {"temperature": 1.5, "reject_cosine": 0.1},
    "bank": {
        "name": "默认",
        "count": 18,
        "created": "2025-01-01T00:00:00Z",
        "digest": "ab" * 32,
        "templates": ["一张{}的照片"],
    },
    "precision": {"image": "fp16", "text": "fp32"},
}
REQUIRED = [
    (*path, field)
    for path, fields in [
        ((), list(SAMPLE)),
        (("model",), ["name", "revision", "licence"]),
        (("image",), ["height", "width", "resize", "resample", "shortest_edge"]),
        (("text",), ["max_length", "pad_id", "lowercase"]),
        (("score",), ["kind", "logit_scale"]),
        (("bank",), ["name", "count", "created", "digest"]),
        (("precision",), ["image", "text"]),
    ]
    for field in fields
]


def contract_json(*path: str, value: Any = None, without: bool = False) -> bytes:
    """The sample, with one field changed or left out."""
    contract = json.loads(json.dumps(SAMPLE))
    part = contract
    for name in path[:-1]:
        part = part[name]
    if without:
        del part[path[-1]]
    elif path:
        part[path[-1]] = value
    return json.dumps(contract).encode()


def test_a_contract_goes_round_to_the_same_bytes() -> None:
    contract = Contract.from_json(contract_json())
    data = contract.to_json()
    assert json.loads(data) == SAMPLE
    assert list(json.loads(data)) == sorted(SAMPLE)
    assert Contract.from_json(data) == contract
    assert Contract.from_json(data).to_json() == data


def test_the_order_of_fields_does_not_change_the_bytes() -> None:
    turned = json.dumps(dict(reversed(SAMPLE.items()))).encode()
    assert Contract.from_json(turned).to_json() == Contract.from_json(contract_json()).to_json()


def test_what_a_contract_leaves_out_has_its_documented_default() -> None:
    plain = json.loads(contract_json("calibration", value={}))
    del plain["score"]["logit_bias"], plain["bank"]["templates"]
    del plain["text"]["padding"], plain["text"]["pad_side"]
    contract = Contract.from_json(json.dumps(plain).encode())
    assert (contract.calibration.temperature, contract.calibration.reject_cosine) == (1.0, None)
    assert (contract.score.logit_bias, contract.bank.templates) == (0.0, ())
    assert (contract.text.padding, contract.text.pad_side) == ("longest", "right")


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_missing_field_is_named(path: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=path[-1]):
        Contract.from_json(contract_json(*path, without=True))


@pytest.mark.parametrize(
    "part", ["", "model", "image", "text", "score", "calibration", "bank", "precision"]
)
def test_an_unknown_field_is_named(part: str) -> None:
    path = (part, "colour_space") if part else ("colour_space",)
    with pytest.raises(ModelError, match="colour_space"):
        Contract.from_json(contract_json(*path, value="sRGB"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", "1"),
        ("fingerprint", "1234"),
        ("fingerprint", -1),
        ("fingerprint", 2**63),
        ("embedding_dim", 0),
        ("model.name", 5),
        ("image.height", 0),
        ("image.width", 22.5),
        ("image.resize", "stretch"),
        ("image.resample", "cubic"),
        ("image.shortest_edge", 0),
        ("image.fill", [0, 0]),
        ("image.fill", [0, 0, 256]),
        ("image.fill", [-1, 0, 0]),
        ("image.fill", "black"),
        ("text.max_length", 0),
        ("text.pad_id", -1),
        ("text.lowercase", "yes"),
        ("text.padding", "shortest"),
        ("text.padding", None),
        ("text.pad_side", "middle"),
        ("score.kind", "cosine"),
        ("score.logit_scale", 0),
        ("score.logit_bias", None),
        ("calibration.temperature", 0),
        ("calibration.reject_cosine", 1.01),
        ("calibration.reject_cosine", -1.01),
        ("bank.count", 0),
        ("bank.templates", "一张照片"),
        ("bank", None),
        ("precision.text", 16),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(path: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"\$\.{path}|{path}"):
        Contract.from_json(contract_json(*path.split("."), value=value))


@pytest.mark.parametrize("fingerprint", [0, 1, 2**63 - 1])
def test_every_int64_from_zero_is_a_fingerprint(fingerprint: int) -> None:
    contract = Contract.from_json(contract_json("fingerprint", value=fingerprint))
    assert Contract.from_json(contract.to_json()).fingerprint == fingerprint


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_schema_version_asks_for_another_client(version: int) -> None:
    newer = json.loads(contract_json("schema_version", value=version)) | {"new_field": 1}
    with pytest.raises(ModelError, match=f"schema version {version} .*install a client"):
        Contract.from_json(json.dumps(newer).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b"not json", contract_json()[:-5], b"\xff\xfe", b"[" * 100_000],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_contract_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="export"):
        Contract.from_json(data)


def test_shortest_edge_must_be_given_where_it_is_used() -> None:
    with pytest.raises(ModelError, match="needs the field shortest_edge"):
        Contract.from_json(contract_json("image", "shortest_edge", value=None))


@pytest.mark.parametrize(("edge", "fits"), [(223, False), (224, True), (225, True)])
def test_shortest_edge_must_cover_the_crop(edge: int, fits: bool) -> None:
    data = contract_json("image", "shortest_edge", value=edge)
    if fits:
        assert Contract.from_json(data).image.shortest_edge == edge
    else:
        with pytest.raises(ModelError, match="shortest_edge 223 is smaller than the 224x200 crop"):
            Contract.from_json(data)


PAD = {"height": 224, "width": 200, "resize": "pad", "resample": "bicubic"}


def test_a_padding_contract_goes_round_to_the_same_bytes() -> None:
    for image in (PAD, PAD | {"fill": [255, 0, 7]}):
        contract = Contract.from_json(contract_json("image", value=image))
        assert contract.image.fill == (tuple(image["fill"]) if "fill" in image else None)
        assert json.loads(contract.to_json())["image"] == image
        assert Contract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_fill_is_refused_where_nothing_is_filled(resize: str) -> None:
    image = SAMPLE["image"] | {"resize": resize, "fill": [0, 0, 0]}
    with pytest.raises(ModelError, match=rf"fill \(0, 0, 0\) is given and resize is '{resize}'"):
        Contract.from_json(contract_json("image", value=image))


def test_a_contract_cannot_be_changed() -> None:
    contract = Contract.from_json(contract_json())
    with pytest.raises(AttributeError):
        contract.fingerprint = 1  # type: ignore[misc]
