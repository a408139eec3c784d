"""Runs the gateway: its port, the port of its metrics, and connections that are too slow."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import start_http_server

from wanwu import __version__
from wanwu.errors import SetupError
from wanwu.gateway.app import build_app
from wanwu.gateway.audit import AuditError, AuditLog, AuditWriter, unwritable
from wanwu.gateway.audit.acts import os_user
from wanwu.gateway.connections import BACKLOG, Connections, Listener, most_connections
from wanwu.gateway.metrics import Metrics
from wanwu.gateway.protocol import protocol
from wanwu.gateway.settings import GatewaySettings
from wanwu.gateway.tls import ServerCertificate
from wanwu.settings import Settings

#: Idle connections are closed after this long; load balancers keep theirs for a minute.
KEEP_ALIVE_S = 75


#: A TLS handshake takes this long at most.
HANDSHAKE_S = 10.0


log = logging.getLogger("wanwu.gateway")


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's loop, which accepts by the socket's own method, and waits less for TLS."""

    async def create_server(self, *arguments: Any, **named: Any) -> asyncio.Server:
        if named.get("ssl") is not None:
            named["ssl_handshake_timeout"] = HANDSHAKE_S
        return await super().create_server(*arguments, **named)


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
        certificate = ServerCertificate(settings) if settings.tls_cert else None
        self._metrics = Metrics()
        connections = Connections(
            most_connections(settings.max_connections),
            settings.trusted_proxies,
            HANDSHAKE_S,
            self._metrics,
        )
        self._socket = _listen(settings.host, settings.port, connections)
        self.port: int = self._socket.getsockname()[1]
        self._audit = _open_audit(settings, triton)
        if self._audit is not None:
            self._metrics.watch(self._audit)
        self._server = uvicorn.Server(
            uvicorn.Config(
                build_app(settings, triton, self._audit, self._metrics, certificate),
                http=protocol(settings, connections),
                backlog=BACKLOG,
                loop=f"{__name__}:{_Loop.__name__}",
                ws="none",
                lifespan="on",
                access_log=False,  # the audit log has more
                log_config=None,  # its own would write from the event loop
                # What callers do wrong is a warning of uvicorn's, a line for each.
                log_level="error",
                proxy_headers=False,  # the app has its own, which believes named proxies alone
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=settings.drain_s,
                ssl_context_factory=(lambda *_: certificate.context) if certificate else None,
            )
        )
        self._serve_metrics()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; requests under way are finished first."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            # Not before: requests that did not end in time have their lines too.
            if self._audit is not None:
                _close_audit(self._audit)

    def _serve_metrics(self) -> None:
        if self._settings.metrics_port is None:
            return
        port, host = self._settings.metrics_port, self._settings.host
        try:
            start_http_server(port, host, self._metrics.registry)
        except OSError as error:
            raise _taken(host, port, error) from error


def _open_audit(settings: GatewaySettings, triton: Settings) -> AuditWriter | None:
    """Open the audit log that the settings name."""
    if settings.audit == "off":
        return None
    path = None if settings.audit == "-" else Path(settings.audit)
    audit = AuditLog(
        path,
        rotate_bytes=settings.audit_rotate_bytes,
        fsync=settings.audit_fsync,
        head=settings.audit_head,
        key=settings.audit_key,
        algorithm=settings.audit_hash,
        keep_days=settings.audit_retention_days,
        max_bytes=settings.audit_max_bytes,
    )
    try:
        audit.write(
            {
                "event": "start",
                "version": __version__,
                "user": os_user(),
                "triton": triton.address.url,
                "settings": settings.shown(),
            }
        )
    except AuditError as error:
        raise unwritable(settings.audit, error) from error
    return AuditWriter(
        audit, timeout_s=settings.audit_timeout_s, own_lines=settings.audit_refused_lines
    )


def _close_audit(audit: AuditWriter) -> None:
    try:
        audit.close({"event": "stop"})
    except AuditError as error:
        log.error("the audit log's last line could not be written: %s", error)


def _listen(host: str, port: int, connections: Connections) -> Listener:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small packets at once only where it sees that the socket is one of TCP.
    listening = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.connections = connections
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
        "the gateway cannot listen at {0}:{1}: {2}; choose another port or host", host, port, error
    )
