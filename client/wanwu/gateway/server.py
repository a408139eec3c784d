"""Runs the gateway: its port, the port of its metrics, and connections that are too slow."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import uvicorn
from prometheus_client import start_http_server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wanwu.errors import SetupError
from wanwu.gateway.app import build_app
from wanwu.gateway.problems import MEDIA_TYPE, Problem
from wanwu.gateway.settings import GatewaySettings
from wanwu.settings import Settings

#: A request's line and headers may be this long together.
MAX_HEADER_BYTES = 64_000
#: Idle connections are closed after this long; load balancers keep theirs for a minute.
KEEP_ALIVE_S = 75


class Gateway:
    """A gateway on this machine.

    Args:
        settings: the gateway's.
        triton: where Triton is.

    Raises:
        SetupError: a port is taken, or a file cannot be used.
    """

    def __init__(self, settings: GatewaySettings, triton: Settings) -> None:
        self._settings = settings
        self._socket = _listen(settings.host, settings.port)
        self.port: int = self._socket.getsockname()[1]
        self._app = build_app(settings, triton)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                http=_protocol(settings),
                ws="none",
                lifespan="on",
                access_log=False,  # the audit log has more
                log_level="warning",
                proxy_headers=False,  # the app has its own, which believes named proxies alone
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=settings.drain_s,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._serve_metrics()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; requests under way are finished first."""
        self._server.run(sockets=[self._socket])

    def _serve_metrics(self) -> None:
        if self._settings.metrics_port is None:
            return
        registry = self._app.metrics.registry  # type: ignore[attr-defined]
        try:
            start_http_server(self._settings.metrics_port, self._settings.host, registry)
        except OSError as error:
            raise _taken(self._settings.host, self._settings.metrics_port, error) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise _taken(host, port, error) from error
    listening.set_inheritable(True)
    return listening


def _taken(host: str, port: int, error: OSError) -> SetupError:
    return SetupError(
        f"the gateway cannot listen at {host}:{port}: {error}; choose another port or host"
    )


def _protocol(settings: GatewaySettings) -> type[HttpToolsProtocol]:
    """Give uvicorn's protocol, which ends requests whose headers are too slow or too long."""

    class Protocol(HttpToolsProtocol):
        _header_timer: asyncio.TimerHandle | None = None
        _header_bytes: int | None = None  # None outside a request's headers

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._begin_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_headers()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._header_bytes is not None:
                self._header_bytes += len(data)
                if self._header_bytes > MAX_HEADER_BYTES:
                    self._refuse(
                        Problem(
                            "header_too_large",
                            f"the request's headers have more than {MAX_HEADER_BYTES} bytes; send "
                            "shorter ones",
                        )
                    )

        def on_message_begin(self) -> None:
            if self._header_bytes is None:
                self._begin_headers()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._end_headers()
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

        def _too_slow(self) -> None:
            self._refuse(
                Problem(
                    "body_slow",
                    f"the request's headers took longer than {settings.header_timeout_s:g} s; send "
                    "them at once",
                )
            )

        def _refuse(self, problem: Problem) -> None:
            self._end_headers()
            if self.transport.is_closing():
                return
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
            self.transport.close()

    return Protocol


def log_config() -> dict[str, Any]:
    """Give the logging of a gateway: to standard error, one line each."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
    }
