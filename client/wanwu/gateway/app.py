"""The gateway's app: its parts put together, and every error made a problem document."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from wanwu import __version__
from wanwu.catalog import Message
from wanwu.errors import WanwuError
from wanwu.gateway.audit import AuditWriter
from wanwu.gateway.auth import KEY_HEADER, Admission, Authenticator
from wanwu.gateway.edge import Edge
from wanwu.gateway.metrics import Metrics
from wanwu.gateway.problems import Problem, prefers_chinese, problem_of
from wanwu.gateway.reload import kept_fresh
from wanwu.gateway.routes import Gateway, api, page
from wanwu.gateway.settings import GatewaySettings
from wanwu.gateway.tls import ServerCertificate
from wanwu.gateway.trace import REQUEST_ID_HEADER, trace_of
from wanwu.gateway.validation import reason_of
from wanwu.gateway.work import Work
from wanwu.settings import Settings

#: Headers of answers that a page of another origin may read.
EXPOSED = (
    *(REQUEST_ID_HEADER, "Retry-After", "WWW-Authenticate", "Content-Language"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
)


def build_app(
    settings: GatewaySettings,
    triton: Settings,
    audit: AuditWriter | None,
    metrics: Metrics,
    certificate: ServerCertificate | None,
) -> ASGIApp:
    """Put the gateway together; it is connected to Triton while its lifespan lasts.

    Args:
        settings: the gateway's.
        triton: where Triton is.
        audit: where each request is noted; None for nowhere.
        metrics: where each is counted.
        certificate: what is read again beside the keys; None without TLS.

    Raises:
        SetupError: keys or key set cannot be used.
    """
    work = Work(settings, triton, metrics)
    authenticator = Authenticator(settings)
    gateway = Gateway(settings, authenticator, Admission(settings), work, metrics)

    sources = [*authenticator.sources, *([certificate] if certificate else [])]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Doubts about labels and sizes are for the library's users; here Python would keep each
        # for ever.
        warnings.simplefilter("ignore")
        await work.open()
        try:
            async with kept_fresh(sources):
                yield
        finally:
            await work.close()

    app = FastAPI(
        title="Wanwu",
        version=__version__,
        description="""Private, zero-shot Chinese image recognition.

Send `X-API-Key: KEY`, or `Authorization: Bearer TOKEN`. Whatever goes wrong is answered by a
problem document (RFC 9457): a `code` for programs, a text in Chinese or English by Accept-Language.
""",
        openapi_url=None,  # among the page's routes
        docs_url=None,
        redoc_url=None,
        # A redirection would name the host that the caller's own header names.
        redirect_slashes=False,
        root_path=settings.root_path or "",
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    app.include_router(api)
    app.include_router(page)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)  # type: ignore[arg-type]
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", KEY_HEADER, REQUEST_ID_HEADER],
            expose_headers=EXPOSED,
        )
    served: ASGIApp = Edge(app, settings, audit, metrics)
    if settings.trusted_proxies:
        served = ProxyHeadersMiddleware(served, list(settings.trusted_proxies))  # type: ignore[arg-type,assignment]
    return served


async def _problem(request: Request, problem: Problem) -> JSONResponse:
    trace = trace_of(request.scope)
    trace.code = problem.code
    chinese = prefers_chinese(request.headers.get("accept-language", ""))
    return problem.response(chinese, trace.request_id)


async def _client_error(request: Request, error: WanwuError) -> JSONResponse:
    return await _problem(request, problem_of(error))


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    if error.status_code == 405:
        problem = Problem(
            "method_not_allowed",
            Message(
                "the method {0} came and the address takes {1}",
                request.method,
                (error.headers or {}).get("Allow", "another"),
            ),
            headers=dict(error.headers or {}),
        )
    elif error.status_code == 404:
        problem = Problem(
            "route_unknown",
            Message("nothing is at {0}; /docs describes what there is", request.url.path),
        )
    else:
        problem = Problem("request_malformed", str(error.detail))
    return await _problem(request, problem)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return await _problem(
        request,
        Problem(
            "request_invalid",
            Message("{0}: {1}; see the API's description at /docs", place, reason_of(first)),
        ),
    )


async def _failed(request: Request, error: Exception) -> JSONResponse:
    number = trace_of(request.scope).request_id
    return await _problem(
        request,
        Problem("internal", Message("the gateway's log tells why, at request {0}", number)),
    )


HANDLERS = {
    Problem: _problem,
    WanwuError: _client_error,
    HTTPException: _http_error,
    RequestValidationError: _invalid,
    Exception: _failed,
}
