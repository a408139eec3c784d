"""The gateway's wire to Triton: its calls are timed, and when nobody answers, none is waited for.

After a call that nobody answered, the next ones ask first whether a server is there, at most so
often and for so long, and fail at once while none is (the circuit breaker of Nygard, Release It!).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from wanwu.async_transport import AsyncTransport
from wanwu.channel import Array, DeadlineError, LoadingError, UnavailableError
from wanwu.errors import WanwuError
from wanwu.gateway.metrics import Metrics
from wanwu.gateway.problems import problem_of
from wanwu.transport import Instances

#: A server that is asked whether it is there answers within this time.
PROBE_S = 0.8
#: Time between such questions.
PROBE_PAUSE_S = 0.2

log = logging.getLogger("wanwu.gateway")


class GuardedTransport:
    """A wire whose calls fail at once while no server answers.

    Args:
        wire: what calls go over.
        metrics: counts.
    """

    def __init__(self, wire: AsyncTransport, metrics: Metrics) -> None:
        self._wire, self._metrics = wire, metrics
        self._answered_at = float("-inf")
        self._down = False
        self._probe: asyncio.Task[None] | None = None

    @property
    def silent_s(self) -> float:
        """The seconds since a server answered anything; infinite before the first answer."""
        return time.monotonic() - self._answered_at

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        """Run one inference."""
        started, outcome = time.monotonic(), "ok"
        try:
            await self._check_there()
            answer = await self._wire.infer(model, inputs, outputs, timeout_s=timeout_s)
        except WanwuError as error:
            outcome = problem_of(error).code
            log.log(logging.INFO if self._down else logging.WARNING, "%s: %s", outcome, error)
            self._failed(error, started)
            raise
        else:
            self._answered()
            return answer
        finally:
            # A caller may name any bank; only towers and banks have names of their own here.
            name = model if not model.startswith("label_bank") else "label_bank"
            self._metrics.triton.labels(name, outcome).observe(time.monotonic() - started)

    async def is_ready(self, model: str | None = None, *, timeout_s: float) -> bool:
        """Return whether the server, or one of its models, is ready."""
        ready = await self._wire.is_ready(model, timeout_s=timeout_s)
        self._answered()
        return ready

    async def models(self, *, timeout_s: float) -> dict[str, list[str]]:
        """Return the served models and their versions."""
        await self._check_there()
        return await self._wire.models(timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._wire.close()

    async def instances(self, model: str, *, timeout_s: float) -> tuple[Instances, ...]:
        """Return where a model's instances run."""
        return await self._wire.instances(model, timeout_s=timeout_s)

    async def server_version(self, *, timeout_s: float) -> str:
        """Return the version that the server reports of itself."""
        return await self._wire.server_version(timeout_s=timeout_s)

    def _answered(self) -> None:
        self._answered_at, self._down = time.monotonic(), False

    def _failed(self, error: WanwuError, started: float) -> None:
        nobody = isinstance(error, UnavailableError | DeadlineError)
        if not nobody or isinstance(error, LoadingError):
            self._answered()  # by a refusal
        elif self._answered_at < started:
            # Of several servers one may hang: what another answered meanwhile counts.
            self._down = True

    async def _check_there(self) -> None:
        """Check that a server answers, if the last call of all had none.

        Raises:
            UnavailableError: none does.
        """
        if not self._down:
            return
        if self._probe is None or self._probe.done():
            self._probe = asyncio.ensure_future(self._look())
        await asyncio.shield(self._probe)
        if self._down:
            raise UnavailableError("no server answers; the gateway asks again and again")

    async def _look(self) -> None:
        try:
            await self.is_ready(timeout_s=PROBE_S)
        except WanwuError:
            await asyncio.sleep(PROBE_PAUSE_S)
