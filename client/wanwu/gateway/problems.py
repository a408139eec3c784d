"""What went wrong with a request, as an RFC 9457 problem document with a stable code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from wanwu.catalog import Message, in_chinese, message_of, shortened
from wanwu.channel import DeadlineError, LoadingError, ModelMissingError
from wanwu.errors import (
    ImageError,
    InputError,
    LabelError,
    ModelError,
    OverloadedError,
    ServerError,
    WanwuError,
)
from wanwu.image_files import UnknownFormatError

MEDIA_TYPE = "application/problem+json"

#: Of what a caller sent, a problem shows at most this much of each part.
MAX_ECHO_CHARS = 200

#: Every code with its HTTP status and its title. Codes are for programs and never change.
CODES: dict[str, tuple[int, str]] = {
    "request_malformed": (400, "The request cannot be read"),
    "credentials_missing": (401, "No credentials came"),
    "credentials_invalid": (401, "The credentials are not valid"),
    "credentials_expired": (401, "The credentials have expired"),
    "credentials_revoked": (401, "The credentials were revoked"),
    "scope_missing": (403, "The credentials do not allow this"),
    "route_unknown": (404, "There is no such address"),
    "bank_unknown": (404, "There is no such bank"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "body_slow": (408, "The request took too long to arrive"),
    "body_too_large": (413, "The request is too large"),
    "picture_too_large": (413, "The picture has too many pixels"),
    "media_type_unsupported": (415, "The request is of another media type"),
    "picture_type_unsupported": (415, "This is not a picture that can be read"),
    "picture_damaged": (422, "The picture cannot be decoded"),
    "pictures_too_many": (422, "Too many pictures came"),
    "labels_invalid": (422, "The labels cannot be used"),
    "request_invalid": (422, "The request cannot be used"),
    "rate_limited": (429, "Too many requests came"),
    "concurrency_limited": (429, "Too many requests are under way"),
    "header_too_large": (431, "The request's headers are too large"),
    "internal": (500, "The gateway failed"),
    "model_mismatch": (502, "What Triton serves does not fit together"),
    "overloaded": (503, "The service is overloaded"),
    "unavailable": (503, "Triton does not answer"),
    "auth_unavailable": (503, "Credentials cannot be checked"),
    "audit_failed": (503, "The audit log cannot be written"),
    "deadline": (504, "Triton did not answer in time"),
}


@dataclass
class Problem(Exception):  # noqa: N818 - the RFC's word
    """A request's refusal or failure.

    Args:
        code: one of CODES.
        detail: what came, what was expected and what to change; in English, as in the catalog.
        retry_after_s: tells the caller when to come back.
    """

    code: str
    detail: str
    retry_after_s: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bound what is echoed of a caller's own texts."""
        self.detail = shortened(self.detail, MAX_ECHO_CHARS)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return CODES[self.code][0]

    def document(self, chinese: bool, request_id: str | None = None) -> dict[str, Any]:
        """Give the members of the problem document."""
        title, detail = CODES[self.code][1], self.detail
        if chinese:
            title, detail = in_chinese(title), in_chinese(detail)
        about = {} if request_id is None else {"request_id": request_id}
        return {
            "type": f"urn:wanwu:problem:{self.code}",
            "title": title,
            "status": self.status,
            "detail": detail,
            "code": self.code,
            **about,
        }

    def response(self, chinese: bool, request_id: str) -> JSONResponse:
        """Give the answer to send."""
        headers = {"Content-Language": "zh-CN" if chinese else "en", **self.headers}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after_s + 0.5)))
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="wanwu"'
        return JSONResponse(
            self.document(chinese, request_id), self.status, headers, media_type=MEDIA_TYPE
        )


def problem_of(error: WanwuError) -> Problem:
    """Give the problem that an error of the client is."""
    detail = message_of(error)
    match error:
        case UnknownFormatError():
            return Problem("picture_type_unsupported", detail)
        case ImageError():
            return Problem("picture_damaged", detail)
        case LabelError():
            return Problem("labels_invalid", detail)
        case InputError():
            return Problem("request_invalid", detail)
        # What follows is of Triton: its address and the reasons are for the log.
        case OverloadedError():
            return Problem("overloaded", "all queues are full; try again", retry_after_s=1)
        case DeadlineError():
            return Problem("deadline", "no answer came in time; try again")
        case LoadingError():
            return Problem("unavailable", "a model is being loaded; try again", retry_after_s=5)
        # Every export has a default bank; others are named by callers.
        case ModelMissingError() if error.model and error.model.startswith("label_bank_"):
            name = error.model.removeprefix("label_bank_")
            return Problem(
                "bank_unknown", Message("no bank {0} is served; /v1/banks lists them", repr(name))
            )
        case ServerError():
            return Problem("unavailable", "Triton does not answer; try again", retry_after_s=5)
        case ModelError():
            return Problem("model_mismatch", "tell the gateway's operator")
        case _:
            return Problem("unavailable", "tell the gateway's operator", retry_after_s=30)


def prefers_chinese(accept_language: str) -> bool:
    """Tell whether a reader prefers Chinese to English, by the header Accept-Language."""
    weights = {"zh": 0.0, "en": 0.0}
    for part in accept_language.split(","):
        tag, _, parameter = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        name, _, value = parameter.strip().partition("=")
        try:
            weight = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            weight = 0.0
        if language in weights:
            weights[language] = max(weights[language], weight)
    return weights["zh"] > weights["en"]
