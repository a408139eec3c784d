"""The outermost layer: limits what comes in, and writes the audit line before an answer leaves.

connection -> Edge: request id, size and time of the body -> app -> Edge: audit, metrics, headers
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wanwu.catalog import message as filled
from wanwu.gateway.audit import AuditError, AuditWriter
from wanwu.gateway.audit.sums import Refused
from wanwu.gateway.body import Bodies, Body
from wanwu.gateway.connections import Refusals
from wanwu.gateway.metrics import Metrics
from wanwu.gateway.problems import Problem, prefers_chinese
from wanwu.gateway.settings import GatewaySettings
from wanwu.gateway.trace import REQUEST_ID_HEADER, Trace, new_trace

#: Probes, which carry no picture and nobody's name, are not in the audit log.
PROBES = ("/healthz", "/readyz")
#: Refusals before anything was done: these are summed, as are all requests of unknown callers.
AT_THE_DOOR = ("rate_limited", "concurrency_limited")
NO_ANSWER = 499  # the caller left; the status that web servers log then
UNKNOWN = "unknown"


class _CallerLeft(Exception):  # noqa: N818 - a signal between methods, never seen outside
    """The caller closed the connection before its answer was ready."""


HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = logging.getLogger("wanwu.gateway")


class Edge:
    """Wraps the app; what each request does is in its trace."""

    def __init__(
        self, app: ASGIApp, settings: GatewaySettings, audit: AuditWriter | None, metrics: Metrics
    ) -> None:
        self._app, self._settings = app, settings
        self._audit, self._metrics = audit, metrics
        self._hashed = settings.audit_hash if settings.audit_texts == "hash" else None
        self._bodies = Bodies(settings)
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # uvicorn sends the answer without its body
        scope = self._own(scope)
        trace = new_trace(scope, self._settings.deadline_s)
        body = Body(self._bodies, scope, receive)
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._serve(scope, trace, body, keep)
            except Problem as problem:
                trace.code = problem.code
                answer = await self._refused(scope, trace, problem)
            except _CallerLeft:
                trace.code, answer = "caller_left", []
            except asyncio.CancelledError:
                # The time to drain is over; what is awaited from now on is not cancelled again.
                trace.code, body.complete = "unavailable", True
                answer = await self._refused(scope, trace, _ending())
            except Exception:
                # The app has answered with an internal problem, which is sent all the same.
                log.exception("request %s failed", trace.request_id)
            finally:
                body.release()
            if not answer:
                await self._note_left(scope, trace)
                return
            await self._send(scope, trace, answer, body, send)

    def _own(self, scope: Scope) -> Scope:
        """Return a request with its path as this server has it."""
        if "://" in scope["path"]:
            scope = _origin_form(scope)
        root = self._settings.root_path
        if root is None:
            return scope
        path = scope["path"]
        # A proxy may have taken the root away, and probes come without it.
        below = path == root or path.startswith(f"{root}/")
        return {**scope, "root_path": root, "path": path if below else root + path}

    async def _serve(self, scope: Scope, trace: Trace, body: Body, keep: Send) -> None:
        """Run the app to its answer, as long as there is time and its caller is there.

        Raises:
            Problem: the deadline passed, or nobody can tell where the body ends.
            _CallerLeft: nobody waits for the answer.
        """
        body.check_framing(scope["http_version"])
        app = self._app
        if scope["path"] == scope["root_path"]:
            # The page's own addresses are relative to what ends with a slash.
            app = RedirectResponse(f"{scope['root_path']}/", 308)
        served = asyncio.ensure_future(app(scope, body.receive, keep))
        gone = asyncio.ensure_future(body.gone())
        try:
            await asyncio.wait(
                (served, gone), timeout=trace.left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if served.done():
                return served.result()
            if gone.done():
                raise _CallerLeft
            raise Problem(
                "deadline",
                filled(
                    "no answer was ready in {0} s; try again, or send less",
                    f"{self._settings.deadline_s:g}",
                ),
                retry_after_s=1,
            )
        finally:
            for task in (served, gone):
                task.cancel()
            # What the app has begun, such as the count of requests under way, is ended first.
            await asyncio.wait((served, gone))

    async def _send(
        self, scope: Scope, trace: Trace, answer: list[Message], body: Body, send: Send
    ) -> None:
        try:
            await self._write(scope, trace, answer[0]["status"])
        except AuditError as error:
            self._audit_failed(error)
            trace.code = "audit_failed"
            answer = await self._refused(scope, trace, _unaudited(error))
        self._observe(scope, trace, answer[0]["status"])
        if trace.principal is None and trace.code is not None:
            await asyncio.sleep(self._refusals.delay_s(trace.source))
        headers = MutableHeaders(raw=answer[0].setdefault("headers", []))
        for name, value in (HEADERS | trace.headers).items():
            headers.setdefault(name, value)
        headers.setdefault("Cache-Control", "no-store")
        headers[REQUEST_ID_HEADER] = trace.request_id
        if self._settings.tls_cert is not None:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if body.complete:
            for message in answer:
                await send(message)
            return
        # Closed at once, the connection would be reset and the answer lost.
        headers["Connection"] = "close"
        answer[-1]["more_body"] = True
        for message in answer:
            await send(message)
        await body.linger()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _note_left(self, scope: Scope, trace: Trace) -> None:
        """Write the line of a request that nobody waits for any more."""
        try:
            await self._write(scope, trace, NO_ANSWER)
        except AuditError as error:
            self._audit_failed(error)

    def _audit_failed(self, error: AuditError) -> None:
        self._metrics.audit_failures.inc()
        log.error("the audit log cannot be written: %s", error)

    async def _write(self, scope: Scope, trace: Trace, status: int) -> None:
        if self._audit is None:
            return
        path = scope["path"].removeprefix(scope["root_path"])
        if path == "/readyz":
            await self._audit.check()  # others may be able to write theirs
        if path in PROBES:
            return
        route = route_of(scope)
        asked = path[:200] if route == UNKNOWN else None
        record = trace.record(scope["method"], route, asked, status, self._hashed)
        if trace.principal is not None and trace.code not in AT_THE_DOOR:
            await self._audit.write(record)
            return
        who = None if trace.principal is None else trace.principal.identity
        await self._audit.write_or_count(Refused(trace.source, who, status, trace.code), record)

    def _observe(self, scope: Scope, trace: Trace, status: int) -> None:
        spent = time.perf_counter() - trace.started
        self._metrics.requests.labels(route_of(scope), str(status)).observe(spent)
        if trace.code is not None:
            self._metrics.rejected.labels(trace.code).inc()

    async def _refused(self, scope: Scope, trace: Trace, problem: Problem) -> list[Message]:
        chinese = prefers_chinese(Headers(scope=scope).get("accept-language", ""))
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await problem.response(chinese, trace.request_id)(scope, _nothing, keep)
        return answer


def _unaudited(error: AuditError) -> Problem:
    return Problem(
        "audit_failed",
        filled(
            "the request was not answered, since its audit line could not be written ({0}); "
            "tell the gateway's operator",
            error,
        ),
        retry_after_s=10,
    )


def _ending() -> Problem:
    return Problem("unavailable", "the gateway is ending; send the request again", retry_after_s=1)


def route_of(scope: Scope) -> str:
    """Give the pattern of the route that a request took, so that names in paths are not counted."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or UNKNOWN


def _origin_form(scope: Scope) -> Scope:
    """Return a request of a whole address, as proxies are sent it, as one for this server."""
    about = urlsplit(scope["raw_path"].decode())
    if about.scheme not in ("http", "https") or not about.netloc:
        return scope
    path = about.path or "/"
    return {**scope, "raw_path": path.encode(), "path": unquote(path)}


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
