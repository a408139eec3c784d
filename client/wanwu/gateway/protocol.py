"""uvicorn's HTTP protocol, with limits for callers that are too slow, or send too long headers.

h11 reads what came: an `Upgrade` that is offered is passed over, and the body has the length that
its headers name (docs/decisions/0022).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from wanwu.catalog import Message, byte_size
from wanwu.gateway.body import LINGER_S
from wanwu.gateway.connections import Connections, Peer
from wanwu.gateway.problems import MEDIA_TYPE, Problem
from wanwu.gateway.settings import GatewaySettings
from wanwu.gateway.tls import SUBJECT, subject_of

#: A request's line and headers may be this long together.
MAX_HEADER_BYTES = 64_000
#: An answer before the answer, which every caller of HTTP/1.1 can read.
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Time between looks at whether a caller who has ended its half has left altogether.
RESET_S = 0.2
#: A caller may leave its answer unread this long.
WRITE_TIMEOUT_S = 30.0


def protocol(settings: GatewaySettings, connections: Connections) -> type[H11Protocol]:
    """Return uvicorn's protocol, with limits that it lacks.

    Args:
        settings: the gateway's.
        connections: those of all callers, which bounds how many there are.
    """

    class Protocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None
        _refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self.app_state = {**self.app_state, SUBJECT: subject_of(transport)}
            super().connection_made(transport)
            self._peer: Peer = self.client or ("", 0)
            connections.waits(self._peer, self.transport.close)
            self._begin_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            connections.remove(self._peer)
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
            # h11 counts what is not whole yet: parts of this size keep headers to twice the limit.
            for start in range(0, len(data), MAX_HEADER_BYTES):
                if not self._refused:
                    super().data_received(data[start : start + MAX_HEADER_BYTES])

        def handle_events(self) -> None:
            """Read requests, also what came while one was answered; and time their headers."""
            super().handle_events()
            if self._refused:
                return
            if self.conn.their_state is not h11.IDLE:
                connections.answers(self._peer)
                self._end_headers()
            elif self.conn.trailing_data[0] and self._header_timer is None:
                self._begin_headers()

        def on_response_complete(self) -> None:
            connections.waits(self._peer, self.transport.close)
            super().on_response_complete()

        def eof_received(self) -> bool | None:  # type: ignore[override]
            """Answer a caller who has ended its half of the connection, and only that."""
            if self.scheme == "https":  # TLS has no halves
                return None
            waiting = self.cycle is not None and not self.cycle.response_complete
            if waiting and not self.cycle.more_body:
                self._close_after_answer()
                if self.scope["http_version"] == "1.1" and not self.cycle.response_started:
                    # The machine of a caller who has left altogether answers this by a reset.
                    self.transport.write(CONTINUE)
                    self._end_if_reset()
                return True
            if self.conn.trailing_data[0] or (waiting and not self.cycle.response_started):
                self._refuse(
                    Problem("request_malformed", "the connection ended before the request's end")
                )
            return None

        def _end_if_reset(self) -> None:
            # asyncio reads no more after the end, and so sees no reset.
            if self.transport.is_closing() or self.cycle.response_started:
                return
            connection = self.transport.get_extra_info("socket")
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.transport.abort()
            else:
                self.loop.call_later(RESET_S, self._end_if_reset)

        def shutdown(self) -> None:
            """Begin to end, and say so to a caller whose request is under way."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._close_after_answer()
            super().shutdown()

        def send_400_response(self, msg: str) -> None:
            """Answer what h11 could not read."""
            error = sys.exc_info()[1]
            if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
                self._refuse(
                    Problem(
                        "header_too_large",
                        Message(
                            "the request's headers have more than {0}; send shorter ones",
                            byte_size(MAX_HEADER_BYTES),
                        ),
                    )
                )
                return
            self._refuse(
                Problem("request_malformed", "this is no HTTP/1.1 request that can be read")
            )

        def _should_upgrade(self) -> bool:
            return False  # and nothing is logged of it

        def _close_after_answer(self) -> None:
            self.cycle.keep_alive = False
            # As if the caller had asked for it, so that the answer has the header too.
            self.headers.append(CLOSE_HEADER)

        def _begin_headers(self) -> None:
            self._header_timer = self.loop.call_later(settings.header_timeout_s, self._too_slow)

        def _end_headers(self) -> None:
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
