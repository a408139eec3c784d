"""The asynchronous wire to Triton: as `transport`, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tritonclient.grpc.aio as triton
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
from wanwu.transport import served


class AsyncTransport(Protocol):
    """What the asynchronous client needs of a wire."""

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        """Run one inference and give the outputs asked for."""

    async def is_ready(self, model: str | None = None, *, timeout_s: float) -> bool:
        """Tell whether the server, or one of its models, is ready."""

    async def models(self, *, timeout_s: float) -> dict[str, list[str]]:
        """Give the served models and their versions."""

    async def close(self) -> None:
        """Let go of the connection."""


class AsyncGrpcTransport:
    """As `GrpcTransport`; to be made and used inside one event loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._contacted = self._closed = False
        self._channels: Channels[Any] = Channels(
            lambda: triton.InferenceServerClient(**address.arguments()),
            by_name=by_name(address.url),
        )

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        """Run one inference, as `GrpcTransport.infer`."""
        arguments = infer_arguments(model, inputs, outputs)
        result = await self._call("infer", model, timeout_s, **arguments)
        return {name: result.as_numpy(name) for name in outputs}

    async def is_ready(self, model: str | None = None, *, timeout_s: float) -> bool:
        """Tell whether the server, or one of its models, is ready."""
        if model is None:
            return bool(await self._call("is_server_ready", None, timeout_s))
        return bool(await self._call("is_model_ready", model, timeout_s, model_name=model))

    async def models(self, *, timeout_s: float) -> dict[str, list[str]]:
        """Give the served models and their versions."""
        return served(await self._call("get_inference_statistics", None, timeout_s))

    async def close(self) -> None:
        """Close the channel."""
        self._closed = True
        await self._channels.current.close()

    async def _call(
        self, method: str, model: str | None, timeout_s: float, **arguments: Any
    ) -> Any:
        attempts = Attempts(timeout_s, contacted=self._contacted)
        while True:
            if self._closed:
                raise closed(self.address)
            call = getattr(self._channels.client(), method)
            try:
                answer = await call(
                    **arguments, headers=self.address.headers, client_timeout=attempts.left_s()
                )
            except InferenceServerException as error:
                refused = translate(error, self.address, model, timeout_s)
                pause = attempts.pause_s() if isinstance(refused, UnavailableError) else None
                if pause is None:
                    raise refused from error
                await asyncio.sleep(pause)
            else:
                self._contacted = True
                return answer
