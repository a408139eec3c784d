"""What is known of a request while it is under way; its line in the audit log is made of it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import Scope

from wanwu.answers import Recognition
from wanwu.gateway.audit.chain import DIGEST_CHARS, Algorithm, short_digest

if TYPE_CHECKING:
    from wanwu.gateway.auth import Principal

KEY = "wanwu.trace"
REQUEST_ID_HEADER = "X-Request-ID"
#: A text of the caller's, or the name of its program, is written up to this length.
MOST_CHARS = 256
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Picture:
    """What the log records of a picture. It is never kept."""

    sha256: str
    bytes: int
    format: str | None = None
    width: int | None = None
    height: int | None = None
    answers: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    uncertain: bool | None = None
    code: str | None = None

    def record(self, hashed: Algorithm | None) -> dict[str, Any]:
        """Return its part of a line; with an algorithm its answers as hashes."""
        return _known({**vars(self), "answers": None, **_texts("answers", self.answers, hashed)})


@dataclass
class Trace:
    """One request."""

    request_id: str
    source: str
    deadline_s: float
    port: int | None = None
    agent: str | None = None
    started: float = field(default_factory=time.perf_counter)
    principal: Principal | None = None
    pictures: list[Picture] = field(default_factory=list)
    banks: tuple[str, ...] | None = None
    bank_digests: tuple[str, ...] = ()
    labels: int | None = None
    texts: int | None = None
    asked: Sequence[str] = ()
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
        picture.answers = [each.label for each in answer.predictions]
        picture.scores = [round(each.score, 6) for each in answer.predictions]
        picture.uncertain = answer.uncertain or None
        self.model, self.fingerprint = answer.model, answer.fingerprint
        self.bank_digests = answer.bank_digests

    def record(
        self, method: str, route: str, path: str | None, status: int, hashed: Algorithm | None
    ) -> dict[str, Any]:
        """Return the line of the audit log.

        Args:
            method: of the request.
            route: the pattern of its address.
            path: its address, where there is no route.
            status: of its answer.
            hashed: the algorithm that hides the caller's own texts; None writes them as they are.
        """
        who = self.principal
        whole = {
            "event": "request",
            "request_id": self.request_id,
            "principal": who and _principal(who),
            "source": self.source,
            "port": self.port,
            "agent": self.agent,
            "method": method,
            "route": route,
            "path": path,
            # A bank's labels are no texts of the caller's.
            "pictures": [each.record(None if self.banks else hashed) for each in self.pictures],
            "banks": self.banks,
            "bank_digests": [digest[:DIGEST_CHARS] for digest in self.bank_digests],
            "labels": self.labels,
            "texts": self.texts,
            **_texts("asked", self.asked, hashed),
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
    headers = Headers(scope=scope)
    given = headers.get(REQUEST_ID_HEADER, "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    source, port = scope.get("client") or ("unknown", None)
    agent = headers.get("User-Agent", "")[:MOST_CHARS]
    # A proxy that is believed names no port.
    trace = Trace(request_id, source, deadline_s, port or None, agent or None)
    scope[KEY] = trace
    return trace


def _principal(who: Principal) -> dict[str, Any]:
    found = {"kind": who.kind, "id": who.identity, "name": who.name, "issuer": who.issuer}
    return _known(found)


def _texts(name: str, texts: Sequence[str], hashed: Algorithm | None) -> dict[str, list[str]]:
    """Return a caller's texts under a name, or their hashes under another."""
    if hashed is None:
        return {name: [text[:MOST_CHARS] for text in texts]}
    return {f"{name}_hashes": [short_digest(text, hashed) for text in texts]}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, [])}
