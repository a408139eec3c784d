"""A request's body on its way in: how large it is, how long it takes, and where it ends."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from wanwu.catalog import byte_size
from wanwu.catalog import message as filled
from wanwu.gateway.problems import Problem
from wanwu.gateway.settings import GatewaySettings

#: A caller whose body is refused may go on sending it this long, so that the answer reaches it.
LINGER_S = 2.0


class Bodies:
    """The bodies of all requests under way."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self._held = 0

    def hold(self, count: int) -> None:
        """Count bytes of bodies that are held; negative when they are let go.

        Raises:
            Problem: all bodies together would be too large.
        """
        if count > 0 and self._held + count > self.settings.max_held_bytes:
            raise Problem(
                "overloaded",
                filled(
                    "{0} of requests are held and the limit is {1}; try again",
                    byte_size(self._held),
                    byte_size(self.settings.max_held_bytes),
                ),
                retry_after_s=1,
            )
        self._held += count


class Body:
    """A request's body on its way in."""

    def __init__(self, bodies: Bodies, scope: Scope, receive: Receive) -> None:
        self._bodies, self._receive = bodies, receive
        self._settings = bodies.settings
        self._size = 0
        self._ends: float | None = None
        headers = Headers(scope=scope)
        self._announced = headers.get("content-length", "")
        chunked = "transfer-encoding" in headers
        self._twice = chunked and bool(self._announced)
        self.complete = not chunked and self._announced in ("", "0")
        self._whole = asyncio.Event()
        self._read = not self.complete
        if self.complete:
            self._whole.set()

    def check_framing(self, http_version: str) -> None:
        """Check that there is no doubt where the request ends.

        Raises:
            Problem: there is; nothing more is read of the connection.
        """
        doubt = None
        if self._twice:
            doubt = "Content-Length and Transfer-Encoding both came; send one of them"
        elif http_version not in ("1.0", "1.1"):
            doubt = "this is no HTTP/1.1 request that can be read"
        if doubt is not None:
            self.complete = False
            raise Problem("request_malformed", doubt)

    async def gone(self) -> None:
        """Wait until the caller has left, once the body is whole."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def receive(self) -> Message:
        """Return the next part.

        Raises:
            Problem: the body is too large, or too slow.
        """
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self.complete:
            # `gone` alone listens now: until it has the request cancelled, nothing comes.
            await asyncio.Event().wait()
        self._check(int(self._announced) if self._announced.isdecimal() else 0)
        now = time.monotonic()
        self._ends = self._ends or now + self._settings.body_timeout_s
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._ends - now))
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise Problem(
                "body_slow",
                filled(
                    "{0} came in {1} s and the request is not at its end; send it faster, or in "
                    "smaller parts",
                    byte_size(self._size),
                    f"{self._settings.body_timeout_s:g}",
                ),
            ) from error
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            try:
                self._bodies.hold(count)
            except Problem:
                self.release()  # at once: others may have come for room meanwhile
                raise
            self._size += count
            self._check(self._size)
            self.complete = not message.get("more_body", False)
            if self.complete:
                self._whole.set()
        else:
            self.complete = True
        return message

    def release(self) -> None:
        """Count what is held no more."""
        self._bodies.hold(-self._size)
        self._size = 0

    async def linger(self) -> None:
        """Read what is still coming, and keep nothing of it, for a short time."""
        ends = time.monotonic() + LINGER_S
        try:
            while (left := ends - time.monotonic()) > 0:
                message = await asyncio.wait_for(self._receive(), left)
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
        except (TimeoutError, asyncio.TimeoutError):
            return

    def _check(self, size: int) -> None:
        most = self._settings.max_body_bytes
        if size > most:
            raise Problem(
                "body_too_large",
                filled(
                    "the request has {0} or more and the limit is {1}; send fewer or smaller "
                    "pictures",
                    byte_size(size),
                    byte_size(most),
                ),
            )
