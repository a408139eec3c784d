"""uvicorn's HTTP protocol, with limits for callers that are too slow, or send too long headers."""

from __future__ import annotations

import asyncio
import itertools
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wanwu.catalog import Message
from wanwu.gateway.edge import LINGER_S
from wanwu.gateway.problems import MEDIA_TYPE, Problem
from wanwu.gateway.settings import GatewaySettings

#: A request's line and headers may be this long together.
MAX_HEADER_BYTES = 64_000
#: A caller may leave its answer unread this long.
WRITE_TIMEOUT_S = 30.0


def protocol(settings: GatewaySettings) -> type[HttpToolsProtocol]:
    """Give uvicorn's protocol, with limits that it lacks."""

    class Protocol(HttpToolsProtocol):
        _header_timer: asyncio.TimerHandle | None = None
        _header_bytes: int | None = None  # None outside a request's headers
        _write_timer: asyncio.TimerHandle | None = None
        _messages = 0
        _refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._begin_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_headers()
            self._end_writing()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            # The caller does not read its answer; closing would wait for it for ever.
            self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)
            super().pause_writing()

        def resume_writing(self) -> None:
            self._end_writing()
            super().resume_writing()

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            messages = self._messages
            super().data_received(data)
            if self._header_bytes is not None and self._messages == messages:
                self._header_bytes += len(data)
                if self._header_bytes > MAX_HEADER_BYTES:
                    self._too_long()

        def eof_received(self) -> bool | None:  # type: ignore[override]
            """Answer a caller who has ended its half of the connection, and only that."""
            if self.scheme == "https":  # TLS has no halves
                return None
            waiting = self.cycle is not None and not self.cycle.response_complete
            if waiting and not self.cycle.more_body:
                self.cycle.keep_alive = False
                return True
            if self._header_bytes or (waiting and not self.cycle.response_started):
                self._refuse(
                    Problem("request_malformed", "the connection ended before the request's end")
                )
            return None

        def on_message_begin(self) -> None:
            if self._header_bytes is None:
                self._begin_headers()
            self._header_bytes = 1
            self._messages += 1
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._end_headers()
            if len(self.url) + sum(map(len, itertools.chain(*self.headers))) > MAX_HEADER_BYTES:
                self._too_long()
                raise ValueError("the parser is not to go on")
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(
                Problem("request_malformed", "this is no HTTP/1.1 request that can be read")
            )

        def _begin_headers(self) -> None:
            self._header_bytes = 0
            self._header_timer = self.loop.call_later(settings.header_timeout_s, self._too_slow)

        def _end_headers(self) -> None:
            self._header_bytes = None
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _end_writing(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def _too_slow(self) -> None:
            self._refuse(
                Problem(
                    "body_slow",
                    Message(
                        "the request's headers took longer than {0} s; send them at once",
                        f"{settings.header_timeout_s:g}",
                    ),
                )
            )

        def _too_long(self) -> None:
            self._refuse(
                Problem(
                    "header_too_large",
                    Message(
                        "the request's headers have more than {0} bytes; send shorter ones",
                        MAX_HEADER_BYTES,
                    ),
                )
            )

        def _refuse(self, problem: Problem) -> None:
            self._end_headers()
            if self._refused or self.transport.is_closing():
                return
            self._refused = True
            if self.cycle is None or self.cycle.response_complete:
                self._write(problem)
            elif not self.cycle.response_started:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self._write(problem)
            # Closed at once, the connection would be reset and the answer lost.
            self.flow.resume_reading()
            self.loop.call_later(LINGER_S, self.transport.close)

        def _write(self, problem: Problem) -> None:
            body = json.dumps(problem.document(chinese=False)).encode()
            head = [
                f"HTTP/1.1 {problem.status} {problem.code}",
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                "connection: close",
                "",
                "",
            ]
            self.transport.write("\r\n".join(head).encode() + body)
            if self.transport.can_write_eof():
                self.transport.write_eof()

    return Protocol
