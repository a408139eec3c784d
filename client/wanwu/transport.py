"""The wire to Triton: named tensors out, named tensors back, over gRPC.

`Transport` is all the rest of the client knows of it, so another wire can take its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from wanwu.errors import InputError, ModelError, ServerError

Array = npt.NDArray[Any]
DEFAULT_URL = "127.0.0.1:8001"

#: tritonclient drops its own message sizes when it is given arguments, so they are given again.
CHANNEL_ARGS = [
    ("grpc.max_send_message_length", triton.MAX_GRPC_MESSAGE_SIZE),
    ("grpc.max_receive_message_length", triton.MAX_GRPC_MESSAGE_SIZE),
    # gRPC would send pictures through the proxy that http_proxy names, even for 127.0.0.1.
    ("grpc.enable_http_proxy", 0),
]


class ShapeError(ModelError):
    """The server refused a tensor's shape: the contract in hand may be an older version's."""


class ModelMissingError(ServerError):
    """The server runs, but does not serve the model asked for."""


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
    """gRPC to one Triton address."""

    def __init__(self, url: str) -> None:
        self.url = check_url(url)
        self._client = triton.InferenceServerClient(self.url, channel_args=CHANNEL_ARGS)

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        """Run one inference.

        Args:
            model: a model's name; Triton picks its newest version.
            inputs: arrays by tensor name.
            outputs: the tensor names wanted back.
            timeout_s: the call's deadline.

        Raises:
            ServerError: no answer, not ready, queue full, or the deadline passed.
            ShapeError: the server refused a tensor's shape or type.
            ModelError: the model failed on this input.
        """
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        wanted = [triton.InferRequestedOutput(name) for name in outputs]
        with self._translated(model, timeout_s):
            result = self._client.infer(model, tensors, outputs=wanted, client_timeout=timeout_s)
        return {name: result.as_numpy(name) for name in outputs}

    def is_ready(self, model: str | None = None, *, timeout_s: float) -> bool:
        """Tell whether the server, or one of its models, is ready.

        Raises:
            ServerError: nothing answers at the address.
        """
        with self._translated(model, timeout_s):
            if model is None:
                return bool(self._client.is_server_ready(client_timeout=timeout_s))
            return bool(self._client.is_model_ready(model, client_timeout=timeout_s))

    def models(self, *, timeout_s: float) -> dict[str, list[str]]:
        """Give the served models and their versions.

        Triton's statistics name them; the repository index would need the admin key.
        """
        with self._translated(None, timeout_s):
            statistics = self._client.get_inference_statistics(client_timeout=timeout_s)
        served: dict[str, list[str]] = {}
        for entry in statistics.model_stats:
            served.setdefault(entry.name, []).append(entry.version)
        return served

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    @contextmanager
    def _translated(self, model: str | None, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            raise self._translate(error, model, timeout_s) from error
        except ValueError as error:
            if "closed channel" not in str(error):
                raise
            raise self._closed() from error

    def _closed(self) -> ServerError:
        return ServerError(f"the connection to {self.url} was closed; make a new Recognizer")

    def _translate(
        self, error: InferenceServerException, model: str | None, timeout_s: float
    ) -> ServerError | ModelError:
        status, message = error.status() or "", error.message() or str(error)
        if "unknown model" in message or "is not ready" in message:
            return ModelMissingError(
                f"the server at {self.url} does not serve model {model!r} ({message}); "
                "`wanwu doctor` tells what is wrong"
            )
        if status.endswith("CANCELLED"):
            return self._closed()
        if status.endswith("DEADLINE_EXCEEDED"):
            return ServerError(
                f"{self.url} gave no answer within {timeout_s:.1f} s; "
                "raise the timeout (WANWU_TIMEOUT_S) or look at the server's load"
            )
        if "exceeds maximum queue size" in message.lower():
            return ServerError(
                f"{self.url} is overloaded, its queue is full ({message}); try later"
            )
        if status.endswith("UNAVAILABLE"):
            return ServerError(
                f"no Triton answers gRPC at {self.url} ({_first_line(message)}); start one with "
                "`wanwu serve`, or set the address by --url or WANWU_URL. It is the gRPC port "
                "(8001 by default), not that of HTTP or metrics"
            )
        if status.endswith("INVALID_ARGUMENT"):
            return ShapeError(f"model {model!r} refused the request: {message}")
        return ModelError(f"model {model!r} failed ({status}): {message}")


def check_url(url: str) -> str:
    """Check that an address is one for gRPC: host:port, or a gRPC target such as dns:///host:port.

    Raises:
        InputError: it is a web address, or has no port.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in {"http", "https", "grpc", "grpcs"}:
        host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0] or "127.0.0.1"
        raise InputError(
            f"the address {url!r} starts with {scheme}://; expected HOST:PORT of Triton's gRPC "
            f"service, such as '{host}:8001'"
        )
    host, colon, port = url.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() else 0
    bare_ipv6 = not separator and not host.endswith("]") and host.count(":") != host.count("ipv4:")
    if not colon or not host or bare_ipv6 or not 0 < number < 65536:
        raise InputError(
            f"the address {url!r} is not HOST:PORT; expected one such as {DEFAULT_URL!r}"
        )
    return url


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no reason given"


def as_bytes(value: Any) -> bytes:
    """Give one element of a BYTES tensor as bytes."""
    return value if isinstance(value, bytes) else str(value).encode()
