"""What the benchmark asks of its load driver, and what that answers: JSON, one line each way."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

#: The best labels of a picture with their probabilities, best first.
Best: TypeAlias = list[tuple[str, float]]


class Wire(msgspec.Struct, frozen=True):
    """How a system is spoken to.

    `grpc`: by Wanwu's own client. `form`: a form with the picture as `file` and the labels as
    `field`: `bank` (a stored list) or `labels` (the texts themselves). `vectors`: infinity's
    embeddings, which the caller compares with vectors of the labels.
    """

    kind: Literal["grpc", "form", "vectors"]
    port: int
    path: str = ""
    field: Literal["bank", "labels"] = "bank"
    token: str | None = None
    model: str = ""


class Load(msgspec.Struct, frozen=True):
    """How long to push. The seconds of `limit_s` are the most that measuring may take.

    After the `last` one the server is ended, so what is under way need not be waited for.
    """

    clients: int
    warm_s: float
    seconds: float
    limit_s: float
    last: bool = False


class Job(msgspec.Struct, frozen=True):
    """A task of the driver: one load, or without one the answers for some photographs."""

    wire: Wire
    workshop: str
    labels: int
    server: list[int]
    load: Load | None = None
    photos: int = 0
    spawned: float = 0.0


class Answers(msgspec.Struct, frozen=True):
    """What a system answers, and the seconds from its start to its first answer."""

    first_s: float
    best: list[Best]


class Measured(msgspec.Struct, frozen=True):
    """What one load showed. Latencies are those of answers within the measured seconds."""

    latencies_s: list[float]
    seconds: float
    failed: int
    errors: list[str]
    server_cpu_s: float
    caller_cpu_s: float
    drained: bool


def labels_of(workshop: str, count: int) -> list[str]:
    """Give the labels of a list."""
    return (Path(workshop) / "labels" / f"{count}.txt").read_text(encoding="utf-8").splitlines()
