"""What a served model says of itself: how to prepare a picture, how to score it, which model it is.

The contract travels as JSON in the `CONTRACT` output of a label bank. It knows nothing of how
the model is served (batch sizes, queues, devices): that is in `config.pbtxt`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from wanwu.catalog import Message
from wanwu.errors import ModelError

SCHEMA_VERSION = 1

Fingerprint = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Channel = Annotated[int, msgspec.Meta(ge=0, le=255)]
Unit = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the contract's parts: immutable, and strict about unknown fields."""


class Model(_Part, frozen=True):
    """Which model this is, and under which licence it may be used."""

    name: str
    revision: str
    licence: str


# Defaults are left out of the JSON, so that clients of before `fill` read what does not use it.
class Image(_Part, frozen=True, omit_defaults=True):
    """The geometry a client applies; scaling, mean and std are inside the graph.

    `squash` resizes both axes to `height` x `width`.

    `shortest_edge` resizes the short edge to `shortest_edge` pixels, keeps the aspect ratio (the
    long edge is rounded down), then crops `height` x `width` from the centre. Where an odd number
    of pixels is cut off, the odd one is cut at the right or the bottom.

    `pad` keeps the aspect ratio and resizes to the largest size within `height` x `width`: one
    edge fits exactly, the other is rounded to the nearest pixel (a half to the even one), at least
    1. The rest is filled with `fill`, RGB from 0 to 255, black if it is left out; where it is an
    odd number of pixels, the odd one is at the right or the bottom.
    """

    height: Positive
    width: Positive
    resize: Literal["squash", "shortest_edge", "pad"]
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
    shortest_edge: Positive | None = None
    fill: tuple[Channel, Channel, Channel] | None = None

    def __post_init__(self) -> None:
        if self.fill is not None and self.resize != "pad":
            raise ValueError(
                Message(
                    "fill {0} is given and resize is {1}, which fills nothing; leave fill "
                    "out, or make resize 'pad'",
                    self.fill,
                    repr(self.resize),
                )
            )
        if self.resize == "shortest_edge":
            if self.shortest_edge is None:
                raise ValueError("resize 'shortest_edge' needs the field shortest_edge, in pixels")
            if self.shortest_edge < max(self.height, self.width):
                raise ValueError(
                    Message(
                        "shortest_edge {0} is smaller than the {1}x{2} crop taken from it",
                        self.shortest_edge,
                        self.height,
                        self.width,
                    )
                )


class Text(_Part, frozen=True):
    """How the tokens of a label reach the text tower.

    Rows are padded to the longest of a batch, or, for a tower that reads a fixed place, each to
    `max_length`; at their right or left end.
    """

    max_length: Positive
    pad_id: Annotated[int, msgspec.Meta(ge=0)]
    lowercase: bool
    padding: Literal["longest", "max_length"] = "longest"
    pad_side: Literal["right", "left"] = "right"


class Score(_Part, frozen=True):
    """How cosine similarities become scores.

    `softmax` is softmax(logit_scale * cosine) over the offered labels;
    `sigmoid` is sigmoid(logit_scale * cosine + logit_bias) for each label by itself.
    """

    kind: Literal["softmax", "sigmoid"]
    logit_scale: Annotated[float, msgspec.Meta(gt=0.0)]
    logit_bias: float = 0.0


class Calibration(_Part, frozen=True):
    """Divide the logits by `temperature`; below `reject_cosine` none of the labels is right."""

    temperature: Annotated[float, msgspec.Meta(gt=0.0)] = 1.0
    reject_cosine: Unit | None = None


class Bank(_Part, frozen=True):
    """Which labels this bank holds. `digest` is the SHA-256 of its labels and embeddings."""

    name: str
    count: Positive
    created: str
    digest: str
    templates: tuple[str, ...] = ()


class Precision(_Part, frozen=True):
    """The arithmetic of each tower: fp32, fp16, bf16 or int8."""

    image: str
    text: str


class Contract(_Part, frozen=True):
    """Everything a client needs to use the model it found at an address.

    Example:
        >>> contract = recognizer.contract()
        >>> contract.image.height, contract.score.kind
        (260, 'softmax')
    """

    schema_version: int
    fingerprint: Fingerprint
    embedding_dim: Positive
    model: Model
    image: Image
    text: Text
    score: Score
    calibration: Calibration
    bank: Bank
    precision: Precision

    @classmethod
    def from_json(cls, data: bytes) -> Contract:
        """Read and validate a contract.

        Raises:
            ModelError: the JSON is not a contract this client understands.
        """
        try:
            version = msgspec.json.decode(data, type=_Versioned).schema_version
        except msgspec.MsgspecError as error:
            raise ModelError(
                "the server's CONTRACT is not a Wanwu contract ({0}); export the model again with "
                "`wanwu export`",
                error,
            ) from error
        if version != SCHEMA_VERSION:
            raise ModelError(
                "the server's contract has schema version {0} and this client reads version {1}; "
                "install a client of the server's release",
                version,
                SCHEMA_VERSION,
            )
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise ModelError(
                "the server's contract is invalid: {0}; export the model again", error
            ) from error

    def to_json(self) -> bytes:
        """Write the contract as canonical JSON: same contract, same bytes."""
        return msgspec.json.encode(self, order="sorted")


class _Versioned(msgspec.Struct):
    schema_version: int
