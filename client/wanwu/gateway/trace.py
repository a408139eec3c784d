"""What is known of a request while it is under way; its line in the audit log is made of it."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from wanwu.answers import Recognition

if TYPE_CHECKING:
    from wanwu.gateway.auth import Principal

KEY = "wanwu.trace"
REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Picture:
    """What the log tells of a picture. It is never kept."""

    sha256: str
    bytes: int
    format: str | None = None
    width: int | None = None
    height: int | None = None
    label: str | None = None
    score: float | None = None
    code: str | None = None


@dataclass
class Trace:
    """One request."""

    request_id: str
    source: str
    deadline_s: float
    started: float = field(default_factory=time.perf_counter)
    principal: Principal | None = None
    pictures: list[Picture] = field(default_factory=list)
    banks: tuple[str, ...] | None = None
    labels: int | None = None
    texts: int | None = None
    model: str | None = None
    fingerprint: int | None = None
    code: str | None = None
    #: Of the answer.
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """The seconds that are left until the request's deadline."""
        return self.deadline_s - (time.perf_counter() - self.started)

    def answered(self, picture: Picture, answer: Recognition) -> None:
        """Note one picture's answer."""
        picture.label, picture.score = answer.top.label, answer.top.score
        self.model, self.fingerprint = answer.model, answer.fingerprint

    def record(self, method: str, route: str, path: str | None, status: int) -> dict[str, Any]:
        """Give the line of the audit log."""
        who = self.principal
        whole = {
            "event": "request",
            "request_id": self.request_id,
            "principal": who and _principal(who),
            "source": self.source,
            "method": method,
            "route": route,
            "path": path,
            "pictures": [_known(vars(picture)) for picture in self.pictures],
            "banks": self.banks,
            "labels": self.labels,
            "texts": self.texts,
            "model": self.model,
            # As text: a JSON reader may hold numbers in 53 bits.
            "fingerprint": None if self.fingerprint is None else str(self.fingerprint),
            "status": status,
            "code": self.code,
            "ms": round((time.perf_counter() - self.started) * 1000, 3),
        }
        return _known(whole)


def trace_of(scope: Scope) -> Trace:
    """Give the trace of a request under way."""
    trace: Trace = scope[KEY]
    return trace


def new_trace(scope: Scope, deadline_s: float) -> Trace:
    """Begin a request's trace; its caller's X-Request-ID is kept where it is a plain name."""
    given = dict(scope["headers"]).get(REQUEST_ID_HEADER.lower().encode(), b"").decode("latin-1")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    client = scope.get("client")
    trace = Trace(request_id, client[0] if client else "unknown", deadline_s)
    scope[KEY] = trace
    return trace


def _principal(who: Principal) -> dict[str, Any]:
    found = {"kind": who.kind, "id": who.identity, "name": who.name, "issuer": who.issuer}
    return _known(found)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, [])}
