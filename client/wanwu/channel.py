"""A gRPC channel to Triton: its address, its options, its errors.

What the synchronous and the asynchronous wire share. Nothing here waits for the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from wanwu.catalog import Message
from wanwu.errors import InputError, ModelError, OverloadedError, ServerError, SetupError

Array = npt.NDArray[Any]

DEFAULT_URL = "127.0.0.1:8001"
#: Triton's restricted protocols read the key from this metadata.
API_KEY_HEADER = "triton-grpc-protocol-wanwu-api-key"

#: tritonclient drops its own options when it is given any, so they are given again.
CHANNEL_ARGS = [
    ("grpc.max_send_message_length", triton.MAX_GRPC_MESSAGE_SIZE),
    ("grpc.max_receive_message_length", triton.MAX_GRPC_MESSAGE_SIZE),
    # Triton's own limit is a ping in 5 minutes. A connection whose peer has vanished is also
    # ended when what was sent stays without an answer for the time-out.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 2),
    # After a restart, gRPC would wait up to two minutes before it connects again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # gRPC would send pictures through the proxy that http_proxy names, even for 127.0.0.1.
    ("grpc.enable_http_proxy", 0),
    # One connection to each address that a name stands for; one address, one connection.
    ("grpc.lb_policy_name", "round_robin"),
    # gRPC would ask the DNS server for such a configuration; none is meant for us.
    ("grpc.service_config_disable_resolution", 1),
]


class ShapeError(ModelError):
    """The server refused a tensor's shape: the contract in hand may be an older version's."""


class DeadlineError(ServerError):
    """No answer came within the deadline."""


class ModelMissingError(ServerError):
    """The server runs, but does not serve the model asked for."""

    def __init__(self, message: str, model: str | None = None) -> None:
        super().__init__(message)
        self.model = model


class UnavailableError(ServerError):
    """No server answered, or the connection broke: another attempt may succeed."""


class LoadingError(ModelMissingError, UnavailableError):
    """The server knows the model and has no version ready: it may be starting, or stopping."""


@dataclass(frozen=True)
class Tls:
    """Encrypt the connection, and tell who is at both ends.

    Args:
        ca: PEM file of the authority that signed the server's certificate; by default those
            that gRPC ships.
        cert, key: PEM files of the client's own certificate and its key, for mutual TLS.

    Raises:
        SetupError: a file cannot be read, or only one of `cert` and `key` is given.

    Example:
        >>> recognizer = Recognizer("triton.example:8001", tls=Tls())
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise SetupError(
                "mutual TLS needs a certificate and its key, and came with cert={0} and key={1}; "
                "give both (WANWU_TLS_CERT, WANWU_TLS_KEY) or none",
                self.cert,
                self.key,
            )
        for what, path in (("ca", self.ca), ("cert", self.cert), ("key", self.key)):
            try:
                if path is not None:
                    Path(path).read_bytes()
            except OSError as error:
                raise SetupError(
                    "the TLS file {0}={1} cannot be read: {2}; expected a PEM file this process "
                    "may read",
                    what,
                    path,
                    error,
                ) from error

    def arguments(self) -> dict[str, Any]:
        """Give what tritonclient's clients want."""
        return {
            "ssl": True,
            "root_certificates": self.ca,
            "certificate_chain": self.cert,
            "private_key": self.key,
        }


@dataclass(frozen=True)
class Address:
    """Where Triton is, and how it is spoken to."""

    url: str
    tls: Tls | None = None
    api_key: str | None = None

    def __post_init__(self) -> None:
        check_url(self.url)
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InputError(
                "the API key holds characters that a header cannot carry; expected printable "
                "ASCII (WANWU_API_KEY or api_key)"
            )

    @property
    def headers(self) -> dict[str, str] | None:
        """The metadata of every call."""
        return {API_KEY_HEADER: self.api_key} if self.api_key else None

    def arguments(self, connections: int = 0) -> dict[str, Any]:
        """Return what tritonclient's clients want; those of another number share no connection."""
        tls = self.tls.arguments() if self.tls else {}
        # gRPC shares connections between channels whose arguments are all the same.
        arguments = [*CHANNEL_ARGS, ("wanwu.connections", connections)]
        return {"url": self.url, "channel_args": arguments, **tls}


def infer_arguments(
    model: str, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Any]:
    """Give the arguments of tritonclient's `infer`."""
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    wanted = [triton.InferRequestedOutput(name) for name in outputs]
    return {"model_name": model, "inputs": tensors, "outputs": wanted}


def closed(address: Address) -> ServerError:
    """Give the error of a call on a closed connection."""
    return ServerError("the connection to {0} was closed; make a new Recognizer", address.url)


def translate(
    error: InferenceServerException, address: Address, model: str | None, timeout_s: float
) -> ServerError | ModelError | SetupError:
    """Give the error that says what came of a call, and what to do."""
    url = address.url
    status, message = error.status() or "", error.message() or str(error)
    if "has no available versions" in message:
        return LoadingError(
            Message(
                "the server at {0} has no version of model {1} ready ({2}); wait until it is "
                "loaded; `wanwu doctor` and the server's log tell why it is not",
                url,
                repr(model),
                message,
            ),
            model,
        )
    if "unknown model" in message or "is not ready" in message:
        return ModelMissingError(
            Message(
                "the server at {0} does not serve model {1} ({2}); `wanwu doctor` tells what "
                "is wrong",
                url,
                repr(model),
                message,
            ),
            model,
        )
    if "This protocol is restricted" in message:
        came = "a key that is not the server's" if address.api_key else "no key"
        return SetupError(
            "the server at {0} wants an API key and {1} came; set WANWU_API_KEY, or give api_key, "
            "as the server's operator says",
            url,
            came,
        )
    if status.endswith("CANCELLED"):
        return closed(address)
    if status.endswith("DEADLINE_EXCEEDED"):
        return DeadlineError(
            "{0} gave no answer within {1} s; raise the timeout (WANWU_TIMEOUT_S) or look at the "
            "server's load",
            url,
            f"{timeout_s:.1f}",
        )
    # Triton says that of a full queue, and of a request that waited longer than the queue allows.
    if "exceeds maximum queue size" in message.lower() or "Request timeout expired" in message:
        return OverloadedError(
            "{0} is overloaded, its queue is full ({1}); try later", url, message
        )
    if status.endswith("UNAVAILABLE"):
        return UnavailableError(_why_unavailable(address, _first_line(message)))
    if status.endswith("INVALID_ARGUMENT"):
        return ShapeError("model {0} refused the request: {1}", repr(model), message)
    return ModelError("model {0} failed ({1}): {2}", repr(model), status, message)


def _why_unavailable(address: Address, reason: str) -> str:
    url = address.url
    # A server that does not like the client's certificate just hangs up, so the reason may be any.
    if address.tls:
        return Message(
            "no secure connection to Triton's gRPC at {0} ({1}); is it running there, and "
            "with TLS? Its certificate must be signed by {2} (WANWU_TLS_CA) and name this "
            "host, and a server that asks for the client's certificate needs "
            "WANWU_TLS_CERT and WANWU_TLS_KEY",
            url,
            reason,
            address.tls.ca or "a public authority",
        )
    return Message(
        "no Triton answers gRPC at {0} ({1}); start one with `wanwu serve`, or set the "
        "address by --url or WANWU_URL. It is the gRPC port (8001 by default), not that "
        "of HTTP or metrics; a server behind TLS needs WANWU_TLS=1",
        url,
        reason,
    )


def check_url(url: str) -> str:
    """Check that an address is one for gRPC: host:port, or a gRPC target such as dns:///host:port.

    Raises:
        InputError: it is a web address, or has no port.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in {"http", "https", "grpc", "grpcs"}:
        host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0] or "127.0.0.1"
        raise InputError(
            "the address {0} starts with {1}://; expected HOST:PORT of Triton's gRPC service, "
            "such as '{2}:8001'",
            repr(url),
            scheme,
            host,
        )
    host, colon, port = url.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() else 0
    bare_ipv6 = not separator and not host.endswith("]") and host.count(":") != host.count("ipv4:")
    if not colon or not host or bare_ipv6 or not 0 < number < 65536:
        raise InputError(
            "the address {0} is not HOST:PORT; expected one such as {1}",
            repr(url),
            repr(DEFAULT_URL),
        )
    return url


def by_name(url: str) -> bool:
    """Tell whether an address is a name that may come to stand for other servers."""
    if "//" in url:
        return url.startswith("dns:")
    host = url.rpartition(":")[0]
    return not (host.startswith(("[", "ipv4:", "ipv6:")) or host.replace(".", "").isdecimal())


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else "no reason given"


def as_bytes(value: Any) -> bytes:
    """Give one element of a BYTES tensor as bytes."""
    return value if isinstance(value, bytes) else str(value).encode()
