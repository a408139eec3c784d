"""Runs the gateway: its port, the port of its metrics, and connections that are too slow."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from prometheus_client import start_http_server

from wanwu.errors import SetupError
from wanwu.gateway.app import build_app
from wanwu.gateway.protocol import protocol
from wanwu.gateway.settings import GatewaySettings
from wanwu.settings import Settings

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
                http=protocol(settings),
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
    # asyncio sends small packets at once only where it sees that the socket is one of TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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


def log_config() -> dict[str, Any]:
    """Give the logging of a gateway: to standard error, one line each."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
    }
