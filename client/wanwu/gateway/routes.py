"""The API's addresses: each reads, checks who asks, lets the work be done, and answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import fastapi_offline
from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from wanwu.catalog import Message
from wanwu.gateway.answers import (
    Alive,
    BanksAnswer,
    EmbedAnswer,
    LabelsAnswer,
    LabelScore,
    PredictAnswer,
    ProblemDocument,
    Ready,
    RecognizeAnswer,
)
from wanwu.gateway.auth import KEY_HEADER, Admission, Authenticator
from wanwu.gateway.keys import Scope
from wanwu.gateway.metrics import Metrics
from wanwu.gateway.problems import CODES, MEDIA_TYPE, Problem, prefers_chinese
from wanwu.gateway.questions import (
    FORM,
    IMAGE,
    JSON,
    EmbedForm,
    EmbedQuestion,
    PredictForm,
    RecognizeForm,
    RecognizeQuestion,
    check_parameters,
    files_of,
    read_fields,
    read_question,
)
from wanwu.gateway.settings import GatewaySettings
from wanwu.gateway.tls import SUBJECT
from wanwu.gateway.trace import trace_of
from wanwu.gateway.work import Work

STATIC = Path(__file__).with_name("static")
SAMPLES = Path(__file__).parents[1] / "data"
SWAGGER = Path(fastapi_offline.__file__).with_name("static")
#: The pages' files, and the type of each. They are served as they are: there is no build step.
FILES = {
    STATIC / "page.js": "text/javascript",
    STATIC / "texts.js": "text/javascript",
    STATIC / "page.css": "text/css",
    STATIC / "docs.js": "text/javascript",
    STATIC / "icon.svg": "image/svg+xml",
    SAMPLES / "cat.jpg": "image/jpeg",
    SAMPLES / "coffee.jpg": "image/jpeg",
    SWAGGER / "swagger-ui-bundle.js": "text/javascript",
    SWAGGER / "swagger-ui.css": "text/css",
}
#: Labels of /predict, as the seed of this project asked.
PREDICTIONS = 5

API_KEY = APIKeyHeader(name=KEY_HEADER, auto_error=False, description="An API key.")
BEARER = HTTPBearer(auto_error=False, description="A JSON Web Token, or an API key.")
# For OpenAPI alone: the authenticator reads the headers.
UsedKey: TypeAlias = Annotated[str | None, Security(API_KEY)]
UsedToken: TypeAlias = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


class Gateway:
    """What the routes need."""

    def __init__(
        self,
        settings: GatewaySettings,
        authenticator: Authenticator,
        admission: Admission,
        work: Work,
        metrics: Metrics,
    ) -> None:
        self.settings, self.authenticator, self.admission = settings, authenticator, admission
        self.work, self.metrics = work, metrics


def gateway_of(request: Request) -> Gateway:
    """Give the gateway of a request's app."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def allowed(scope: Scope) -> Any:
    """Let only those through who may do something, and not too many at a time."""

    async def check(request: Request, _key: UsedKey, _token: UsedToken) -> AsyncIterator[None]:
        gateway, trace = gateway_of(request), trace_of(request.scope)
        subject = getattr(request.state, SUBJECT, None)
        principal = await gateway.authenticator.principal(request.headers, trace.source, subject)
        trace.principal = principal
        principal.require(scope)
        async with gateway.admission.admit(principal, trace.headers):
            yield

    return Depends(check)


#: A component of OpenAPI, since an answer about several pictures holds problems too.
PROBLEM = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give OpenAPI's description of the problems that a route may answer."""
    described = {}
    for status in sorted({*statuses, 500}):
        codes = [f"`{code}`: {title}" for code, (each, title) in CODES.items() if each == status]
        described[status] = {
            "description": "; ".join(codes),
            "content": {MEDIA_TYPE: {"schema": PROBLEM}},
        }
    return described  # type: ignore[return-value]


AUTH = (401, 403, 429, 503)
BODY = (400, 408, 413, 415, 422)
TRITON = (404, 502, 503, 504)


def asks(question: type[BaseModel] | None, form: type[BaseModel]) -> dict[str, Any]:
    """Give OpenAPI's description of a body that is read by `read_question`."""
    kinds: list[tuple[str, type[BaseModel]]] = [(FORM, form)]
    if question is not None:
        kinds.append((JSON, question))
    content = {kind: {"schema": _schema(model)} for kind, model in kinds}
    content[f"{IMAGE}*"] = {"schema": {"type": "string", "format": "binary"}}
    fields = _schema(form)["properties"]
    parameters = [_parameter(name, fields[name]) for name in fields if name != "file"]
    body = {"requestBody": {"required": True, "content": content}}
    return {**body, "parameters": parameters} if parameters else body


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # Without a default: clients that are generated would send it beside other bodies too.
    kept = {key: value for key, value in schema.items() if key not in ("default", "description")}
    about = f"Beside a body of {IMAGE}* alone. {schema.get('description', '')}".strip()
    return {"name": name, "in": "query", "description": about, "schema": kept}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema.pop("title", None)
    return schema


api = APIRouter(dependencies=[Depends(check_parameters)])
recognises, embeds, administers = allowed("recognise"), allowed("embed"), allowed("admin")


@api.post(
    "/predict",
    tags=["recognise"],
    dependencies=[recognises],
    response_model=PredictAnswer,
    responses=problems(*AUTH, *BODY, *TRITON),
    openapi_extra=asks(None, PredictForm),
)
async def predict(request: Request) -> Response:
    """Name what one picture shows: the five best labels of the default bank."""
    settings, trace = gateway_of(request).settings, trace_of(request.scope)
    values = await read_fields(request, settings)
    files = files_of(values)
    if values:
        raise Problem(
            "request_invalid",
            Message(
                "the request has the fields {0}; /predict takes 'file' alone, as in `curl -F "
                "file=@photo.jpg`, and /v1/recognize takes more",
                ", ".join(map(repr, values)),
            ),
        )
    if len(files) != 1:
        raise Problem(
            "request_invalid",
            Message(
                "{0} files came; /predict takes one, as in `curl -F file=@photo.jpg`, and "
                "/v1/recognize takes more",
                len(files),
            ),
        )
    asked = RecognizeQuestion.model_construct(
        images=files, labels=None, bank=None, top_k=PREDICTIONS, threshold=None, score=None
    )
    found = await gateway_of(request).work.recognize(asked, trace, chinese=_chinese(request))
    best = found.results[0].predictions or []
    results = [LabelScore(label=each.label, score=each.score) for each in best]
    return _answer(PredictAnswer(results=results, warnings=found.warnings))


@api.post(
    "/v1/recognize",
    tags=["recognise"],
    dependencies=[recognises],
    response_model=RecognizeAnswer,
    responses=problems(*AUTH, *BODY, *TRITON),
    openapi_extra=asks(RecognizeQuestion, RecognizeForm),
)
async def recognize(request: Request) -> Response:
    """Name what pictures show, by your own labels or by banks.

    Of one picture that is refused, the answer is its problem. Of several, each has its own answer
    or problem, and the status is 200.
    """
    gateway, trace = gateway_of(request), trace_of(request.scope)
    asked = await read_question(request, RecognizeQuestion, RecognizeForm, gateway.settings)
    found = await gateway.work.recognize(asked, trace, chinese=_chinese(request))
    return _answer(found)


@api.post(
    "/v1/embed",
    tags=["embed"],
    dependencies=[embeds],
    response_model=EmbedAnswer,
    responses=problems(*AUTH, *BODY, *TRITON),
    openapi_extra=asks(EmbedQuestion, EmbedForm),
)
async def embed(request: Request) -> Response:
    """Encode pictures and texts into vectors, for a search of your own."""
    gateway, trace = gateway_of(request), trace_of(request.scope)
    asked = await read_question(request, EmbedQuestion, EmbedForm, gateway.settings)
    found = await gateway.work.embed(asked, trace, chinese=_chinese(request))
    return _answer(found)


@api.get(
    "/v1/banks",
    tags=["banks"],
    dependencies=[recognises],
    response_model=BanksAnswer,
    responses=problems(*AUTH, *TRITON),
)
async def banks(request: Request) -> Response:
    """List the served banks of labels."""
    return _answer(BanksAnswer(banks=await gateway_of(request).work.banks()))


@api.get(
    "/v1/banks/{name}/labels",
    tags=["banks"],
    dependencies=[recognises],
    response_model=LabelsAnswer,
    responses=problems(*AUTH, 422, *TRITON),
)
async def labels(request: Request, name: str) -> Response:
    """List the labels of a bank."""
    found = await gateway_of(request).work.labels(name)
    return _answer(LabelsAnswer(bank=name, labels=list(found)))


@api.get("/healthz", tags=["operation"], response_model=Alive, responses=problems())
async def healthz() -> Response:
    """Tell that the gateway runs."""
    return _answer(Alive(alive=True))


@api.get("/readyz", tags=["operation"], response_model=Ready, responses=problems(*TRITON))
async def readyz(request: Request) -> Response:
    """Tell whether Triton, its towers and its bank answer, and tokens can be checked."""
    gateway_of(request).authenticator.check()
    contract = await gateway_of(request).work.ready()
    return _answer(
        Ready(ready=True, model=contract.model.name, fingerprint=str(contract.fingerprint))
    )


@api.get(
    "/metrics",
    tags=["operation"],
    dependencies=[administers],
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(*AUTH),
    },
)
async def metrics(request: Request) -> Response:
    """Give Prometheus its metrics; without auth they have a port of their own."""
    data = generate_latest(gateway_of(request).metrics.registry)
    return Response(data, media_type=CONTENT_TYPE_LATEST)


page = APIRouter(include_in_schema=False, dependencies=[Depends(check_parameters)])


@page.get("/")
async def index() -> Response:
    """Give the page."""
    return _file(STATIC / "page.html", "text/html")


@page.get("/docs")
async def docs() -> Response:
    """Give the API's description, for people."""
    return _file(STATIC / "docs.html", "text/html")


@page.get("/openapi.json")
async def description(request: Request) -> Response:
    """Return the API's description, for programs."""
    description, root = request.app.openapi(), request.scope["root_path"]
    return JSONResponse({**description, "servers": [{"url": root}]} if root else description)


def _gives(path: Path, kind: str) -> Callable[[], Any]:
    async def give() -> Response:
        return _file(path, kind)

    return give


for _path, _kind in FILES.items():
    page.add_api_route(f"/static/{_path.name}", _gives(_path, _kind), methods=["GET"])


def _file(path: Path, kind: str) -> Response:
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})


def _answer(found: BaseModel) -> Response:
    return Response(found.model_dump_json(exclude_none=False), media_type=JSON)


def _chinese(request: Request) -> bool:
    return prefers_chinese(request.headers.get("accept-language", ""))
