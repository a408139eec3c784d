"""The asynchronous wire to Triton: as `transport`, for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import grpc
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from wanwu.attempts import Attempts, History
from wanwu.channel import Address, Array, by_name, closed, infer_arguments, translate
from wanwu.channel_renewal import Channels
from wanwu.transport import Instances, placed, served

#: When an attempt started, and its answer or its failure.
Outcome: TypeAlias = tuple[float, Any, "InferenceServerException | None"]


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

    async def instances(self, model: str, *, timeout_s: float) -> tuple[Instances, ...]:
        """Return where a model's instances run."""

    async def server_version(self, *, timeout_s: float) -> str:
        """Return the version that the server reports of itself."""


class AsyncGrpcTransport:
    """As `GrpcTransport`; to be made and used inside one event loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._history = History()
        self._closed = False
        self._channels: Channels[Any] = Channels(
            lambda connections: triton.InferenceServerClient(**address.arguments(connections)),
            _connecting,
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

    async def instances(self, model: str, *, timeout_s: float) -> tuple[Instances, ...]:
        """Return where a model's instances run, as `GrpcTransport.instances`."""
        return placed(await self._call("get_model_config", model, timeout_s, model_name=model))

    async def server_version(self, *, timeout_s: float) -> str:
        """Return the version that the server reports, as `GrpcTransport.server_version`."""
        return str((await self._call("get_server_metadata", None, timeout_s)).version)

    async def close(self) -> None:
        """Close the channel."""
        self._closed = True
        for client in self._channels.all():
            await client.close()

    async def _call(
        self, method: str, model: str | None, timeout_s: float, **arguments: Any
    ) -> Any:
        attempts = Attempts(timeout_s, self._history, (method, model), hedge=self._channels.by_name)
        arguments["headers"] = self.address.headers
        under_way: set[asyncio.Task[Outcome]] = set()
        try:
            while True:
                if attempts.due():
                    under_way.add(self._start(method, arguments, attempts))
                done, under_way = await _first(under_way, attempts.wait_s())
                for task in done:
                    started, answer, error = task.result()
                    if error is None:
                        attempts.answered(started)
                        return answer
                    refused = translate(error, self.address, model, timeout_s)
                    refused.__cause__ = error
                    attempts.failed(refused)
        finally:
            for task in under_way:
                task.cancel()

    def _start(
        self, method: str, arguments: dict[str, Any], attempts: Attempts
    ) -> asyncio.Task[Outcome]:
        if self._closed:
            raise closed(self.address)
        if attempts.pending:
            self._channels.renew()
        call = functools.partial(
            getattr(self._channels.client(), method),
            **arguments,
            client_timeout=attempts.left_s(),
        )
        return asyncio.ensure_future(_run(call, attempts.started()))


async def _run(call: Callable[[], Awaitable[Any]], started: float) -> Outcome:
    try:
        return started, await call(), None
    except InferenceServerException as error:
        return started, None, error


async def _first(
    under_way: set[asyncio.Task[Outcome]], wait_s: float | None
) -> tuple[set[asyncio.Task[Outcome]], set[asyncio.Task[Outcome]]]:
    """Wait for a task to end, at most so long; return what ended and what did not."""
    if under_way:
        return await asyncio.wait(under_way, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(wait_s or 0)
    return set(), set()


def _connecting(client: triton.InferenceServerClient) -> Callable[[], bool]:
    """Make a client connect, and return what says whether it is connected."""

    def connected() -> bool:
        state = client._channel.get_state(try_to_connect=True)
        return bool(state == grpc.ChannelConnectivity.READY)

    connected()
    return connected
