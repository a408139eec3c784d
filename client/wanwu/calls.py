"""What the client's work asks of the world: a vocabulary of calls, and no input or output.

The work (`session`) is written once, as generators that yield calls and are sent their results.
`Recognizer` makes the calls synchronously, `AsyncRecognizer` for asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from wanwu.channel import Array

T = TypeVar("T")


@dataclass(frozen=True)
class Infer:
    """Run one inference; sends back the outputs by name."""

    model: str
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    timeout_s: float


@dataclass(frozen=True)
class ListModels:
    """Sends back the served models and their versions."""

    timeout_s: float


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Compute:
    """Run a function that keeps a core busy; sends back what it returns."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Together:
    """Make several calls at once; sends back their results in order."""

    calls: Sequence[Infer]


@dataclass(frozen=True)
class Alone:
    """Do work while other tasks' work of the same key waits; sends back its result."""

    key: Hashable
    steps: Callable[[], Steps[Any]]


Call: TypeAlias = "Infer | ListModels | Pause | Compute | Together | Alone"
Steps: TypeAlias = Generator[Call, Any, T]
