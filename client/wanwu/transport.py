"""The synchronous wire to Triton: named tensors out, named tensors back, over gRPC.

`Transport` is all the rest of the client knows of it, so another wire can take its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from wanwu.channel import (
    Address,
    Array,
    Attempts,
    Channels,
    UnavailableError,
    by_name,
    closed,
    infer_arguments,
    translate,
)

T = TypeVar("T")


class Transport(Protocol):
    """What the client needs of a wire."""

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        """Run one inference and give the outputs asked for."""

    def is_ready(self, model: str | None = None, *, timeout_s: float) -> bool:
        """Tell whether the server, or one of its models, is ready."""

    def models(self, *, timeout_s: float) -> dict[str, list[str]]:
        """Give the served models and their versions."""

    def close(self) -> None:
        """Let go of the connection."""


class GrpcTransport:
    """gRPC to one address, which may be a name for several servers.

    A call that finds no server is repeated, with growing pauses, until its deadline.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._contacted = self._closed = False
        self._channels: Channels[Any] = Channels(
            lambda: triton.InferenceServerClient(**address.arguments()),
            by_name=by_name(address.url),
        )

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        """Run one inference.

        Args:
            model: a model's name; Triton picks its newest version.
            inputs: arrays by tensor name.
            outputs: the tensor names wanted back.
            timeout_s: the call's deadline, through every attempt.

        Raises:
            ServerError: no answer, not ready, queue full, or the deadline passed.
            ShapeError: the server refused a tensor's shape or type.
            ModelError: the model failed on this input.
            SetupError: the server wants another API key.
        """
        arguments = infer_arguments(model, inputs, outputs)
        result = self._call("infer", model, timeout_s, **arguments)
        return {name: result.as_numpy(name) for name in outputs}

    def is_ready(self, model: str | None = None, *, timeout_s: float) -> bool:
        """Tell whether the server, or one of its models, is ready.

        Raises:
            ServerError: nothing answers at the address.
        """
        if model is None:
            return bool(self._call("is_server_ready", None, timeout_s))
        return bool(self._call("is_model_ready", model, timeout_s, model_name=model))

    def models(self, *, timeout_s: float) -> dict[str, list[str]]:
        """Give the served models and their versions.

        Triton's statistics name them; the repository index would need the admin key.
        """
        return served(self._call("get_inference_statistics", None, timeout_s))

    def close(self) -> None:
        """Close the channel."""
        self._closed = True
        self._channels.current.close()

    def _call(self, method: str, model: str | None, timeout_s: float, **arguments: Any) -> Any:
        attempts = Attempts(timeout_s, contacted=self._contacted)
        while True:
            if self._closed:
                raise closed(self.address)
            call: Callable[..., Any] = getattr(self._channels.client(), method)
            try:
                answer = call(
                    **arguments, headers=self.address.headers, client_timeout=attempts.left_s()
                )
            except InferenceServerException as error:
                refused = translate(error, self.address, model, timeout_s)
                pause = attempts.pause_s() if isinstance(refused, UnavailableError) else None
                if pause is None:
                    raise refused from error
                time.sleep(pause)
            except ValueError as error:
                if "closed channel" not in str(error):
                    raise
                raise closed(self.address) from error
            else:
                self._contacted = True
                return answer


def served(statistics: Any) -> dict[str, list[str]]:
    """Give the models and versions that Triton's statistics name."""
    versions: dict[str, list[str]] = {}
    for entry in statistics.model_stats:
        versions.setdefault(entry.name, []).append(entry.version)
    return versions
