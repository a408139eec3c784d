"""The synchronous wire to Triton: named tensors out, named tensors back, over gRPC.

`Transport` is all the rest of the client knows of it, so another wire can take its place.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from wanwu.attempts import Attempts, History
from wanwu.channel import Address, Array, by_name, closed, infer_arguments, translate
from wanwu.channel_renewal import Channels
from wanwu.errors import WanwuError

#: When an attempt started, and its answer or its failure.
Outcome: TypeAlias = tuple[float, Any, "Exception | None"]


@dataclass(frozen=True)
class Instances:
    """Instances of a model: how many on each GPU, of which kind (KIND_GPU, KIND_CPU, …)."""

    count: int
    kind: str
    gpus: tuple[int, ...] = ()


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

    def instances(self, model: str, *, timeout_s: float) -> tuple[Instances, ...]:
        """Return where a model's instances run."""

    def server_version(self, *, timeout_s: float) -> str:
        """Return the version that the server reports of itself."""


class GrpcTransport:
    """gRPC to one address, which may be a name for several servers.

    A call that finds no server is repeated, with growing pauses, until its deadline. Behind a
    name, a call that stays without an answer is sent to another server as well.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._history = History()
        self._closed = False
        self._starting = threading.Lock()
        self._channels: Channels[Any] = Channels(
            lambda connections: triton.InferenceServerClient(**address.arguments(connections)),
            lambda client: grpc.channel_ready_future(client._channel).done,
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

    def instances(self, model: str, *, timeout_s: float) -> tuple[Instances, ...]:
        """Return where a model's instances run, by the configuration that Triton made of its own.

        Raises:
            SetupError: the server restricts its model-config protocol.
        """
        return placed(self._call("get_model_config", model, timeout_s, model_name=model))

    def server_version(self, *, timeout_s: float) -> str:
        """Return the version that the server reports of itself, such as 2.51.0.

        Raises:
            SetupError: the server restricts its metadata protocol.
        """
        return str(self._call("get_server_metadata", None, timeout_s).version)

    def close(self) -> None:
        """Close the channel."""
        self._closed = True
        for client in self._channels.all():
            client.close()

    def _call(self, method: str, model: str | None, timeout_s: float, **arguments: Any) -> Any:
        attempts = Attempts(timeout_s, self._history, (method, model), hedge=self._channels.by_name)
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        arguments["headers"] = self.address.headers
        with ExitStack() as under_way:
            while True:
                if attempts.due():
                    under_way.callback(self._start(method, arguments, attempts, outcomes.put))
                try:
                    started, answer, error = outcomes.get(timeout=attempts.wait_s())
                except queue.Empty:
                    continue
                if error is None:
                    attempts.answered(started)
                    return answer
                attempts.failed(self._refusal(error, model, timeout_s))

    def _start(
        self,
        method: str,
        arguments: dict[str, Any],
        attempts: Attempts,
        done: Callable[[Outcome], None],
    ) -> Callable[[], object]:
        """Start an attempt, and return what cancels it."""
        if self._closed:
            raise closed(self.address)
        if attempts.pending:
            self._channels.renew()
        client = self._channels.client()
        arguments = {**arguments, "client_timeout": attempts.left_s()}
        started = attempts.started()
        call = functools.partial(getattr(client, method), **arguments)
        if not self._channels.by_name:
            _run(call, started, done)  # half a millisecond faster than by another thread
        elif method != "infer":
            threading.Thread(target=_run, args=(call, started, done), daemon=True).start()
        else:
            # tritonclient holds the call in an attribute until it has its callback.
            with self._starting:
                future = client.async_infer(
                    callback=lambda result, error: done((started, result, error)), **arguments
                )
            return functools.partial(_cancel, future, client)
        return lambda: None

    def _refusal(self, error: Exception, model: str | None, timeout_s: float) -> WanwuError:
        if isinstance(error, InferenceServerException):
            refused: WanwuError = translate(error, self.address, model, timeout_s)
        elif isinstance(error, ValueError) and "closed channel" in str(error):
            refused = closed(self.address)
        else:
            raise error
        refused.__cause__ = error
        return refused


def _run(call: Callable[[], Any], started: float, done: Callable[[Outcome], None]) -> None:
    try:
        done((started, call(), None))
    except Exception as error:
        done((started, None, error))


def _cancel(call: triton.CallContext, client: triton.InferenceServerClient) -> None:
    """Cancel an attempt; its client, which ends its calls when it is freed, is held until then."""
    call.cancel()


def served(statistics: Any) -> dict[str, list[str]]:
    """Give the models and versions that Triton's statistics name."""
    versions: dict[str, list[str]] = {}
    for entry in statistics.model_stats:
        versions.setdefault(entry.name, []).append(entry.version)
    return versions


def placed(answer: Any) -> tuple[Instances, ...]:
    """Return where a model's instances run, by Triton's configuration of it."""
    return tuple(
        Instances(group.count, group.Kind.Name(group.kind), tuple(group.gpus))
        for group in answer.config.instance_group
    )
