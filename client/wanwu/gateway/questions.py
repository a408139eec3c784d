"""What a request asks: read from a form or from JSON, checked, and nothing else believed.

The type of a picture is read from its content, never from its name or from what the form says. No
address is ever fetched.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import reprlib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from wanwu.catalog import Message
from wanwu.errors import ImageError
from wanwu.gateway.problems import Problem, problem_of
from wanwu.gateway.settings import GatewaySettings
from wanwu.gateway.trace import Picture
from wanwu.gateway.validation import reason_of
from wanwu.image_files import MAX_SIDE, TooLargeError
from wanwu.images import header
from wanwu.labels import split_labels

JSON, FORM, IMAGE = "application/json", "multipart/form-data", "image/"
MAX_FIELDS = 5_000
#: Commas in JSON. What is wrong with each value is noted before the first is told.
MAX_COMMAS = 50_000
MAX_TOP_K = 1_000

M = TypeVar("M", bound=BaseModel)


def _base64(value: object) -> object:
    if isinstance(value, str) and ("\n" in value or "\r" in value):
        value = re.sub(r"\s+", "", value)  # as `base64` prints it
    if isinstance(value, str) and value[:5].lower() == "data:":
        head, comma, encoded = value.partition(",")
        if comma and head.lower().endswith(";base64"):
            return encoded
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]*:", value[:40], re.IGNORECASE):
        raise ValueError(
            "an address came; expected the picture itself, in base64 or as data:image/…;base64,…"
        )
    return value


Base64 = Annotated[
    bytes,
    BeforeValidator(_base64),
    Field(json_schema_extra={"format": "byte", "contentEncoding": "base64"}),
]


# As openapi-generator can write it in Java, where a list among several types does not compile.
_ANY = WithJsonSchema({})
_TEXTS = WithJsonSchema(
    {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
)


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", val_json_bytes="base64", allow_inf_nan=False)


class RecognizeQuestion(_Question):
    """Pictures, and the labels they are compared with."""

    images: list[Base64] = Field(min_length=1, description="Pictures, encoded in base64.")
    labels: Annotated[list[str] | dict[str, list[str]] | None, _ANY] = Field(
        default=None,
        description="Your own labels, a list of texts; or an object of each with the list of its "
        "aliases. Without them a bank's are used.",
        examples=[["猫", "狗"], {"猫": ["猫咪"], "狗": []}],
    )
    bank: Annotated[str | list[str] | None, _TEXTS] = Field(
        default=None,
        description="Served banks; one may come as a text. By default the server's default.",
    )
    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K, description="How many labels to answer.")
    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Labels of a lower score are left out.",
    )
    score: Literal["softmax", "sigmoid", "cosine"] | None = Field(
        default=None,
        description="By default as the model was trained.",
    )


class RecognizeForm(_Question):
    """As RecognizeQuestion, as a form."""

    file: list[Annotated[bytes, Field(json_schema_extra={"format": "binary"})]] = Field(
        min_length=1,
        description="Pictures, one or several.",
    )
    labels: list[str] | None = Field(
        default=None,
        description="Your own labels, with commas between them or as a JSON list.",
        examples=[["猫,狗"], ['["猫", "狗"]']],
    )
    bank: list[str] | None = Field(default=None, description="Served banks.")
    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K)
    threshold: float | None = Field(default=None, ge=-1, le=1)
    score: Literal["softmax", "sigmoid", "cosine"] | None = None


class EmbedQuestion(_Question):
    """Pictures and texts to be encoded."""

    images: list[Base64] = Field(default=[], description="Pictures, encoded in base64.")
    texts: list[str] = Field(default=[], description="Texts.", examples=[["一张猫的照片"]])


class EmbedForm(_Question):
    """As EmbedQuestion, as a form."""

    file: list[Annotated[bytes, Field(json_schema_extra={"format": "binary"})]] = []
    text: list[str] = []


class PredictForm(_Question):
    """One picture."""

    file: Annotated[bytes, Field(json_schema_extra={"format": "binary"})] = Field(
        description="A picture.",
    )


def media_type(request: Request) -> str:
    """Return the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def check_parameters(request: Request) -> None:
    """Refuse parameters in the address; beside a bare image its fields are read from there.

    Raises:
        Problem: there are some.
    """
    bare = request.method == "POST" and media_type(request).startswith(IMAGE)
    if request.query_params and not bare:
        raise Problem(
            "request_invalid",
            Message(
                "the address has the parameters {0}; expected none: beside a body of image/* alone "
                "fields go there, else into the form or the JSON",
                ", ".join(map(repr, sorted(set(request.query_params)))),
            ),
        )


async def read_question(
    request: Request, question: type[M], form: type[BaseModel] | None, settings: GatewaySettings
) -> M:
    """Read what is asked, by whichever of the two media types it came.

    Raises:
        Problem: it cannot be read, or cannot be asked.
    """
    kind = media_type(request)
    if kind == JSON:
        body = (await _body(request)).removeprefix(codecs.BOM_UTF8)
        if body.count(b",") > MAX_COMMAS:
            raise Problem(
                "request_invalid",
                Message("the JSON has more than {0} values; send several requests", MAX_COMMAS),
            )
        try:
            return question.model_validate_json(body)
        except ValidationError as error:
            raise _invalid(error) from error
    if form is None:
        raise _media_type_problem(kind, JSON)
    return _checked(question, _asked(await read_fields(request, settings, JSON), form))


class _FormParser(MultiPartParser):
    """A parser that reads UTF-8 alone, and knows whether a form was whole.

    A part without `filename` is a picture too if it says that it is no text.
    """

    ended = False

    def on_headers_finished(self) -> None:
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        kind = dict(part.item_headers).get(b"content-type", b"text/plain").lower()
        if (
            options.get(b"name") == b"file"
            and b"filename" not in options
            and not kind.startswith(b"text/")
        ):
            part.content_disposition = (part.content_disposition or b"") + b'; filename="file"'
        super().on_headers_finished()

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is not None:
            super().on_part_end()
            return
        try:
            # In whatever charset the form names, other labels would be answered.
            text = "" if part.field_name == "file" else part.data.decode()
        except UnicodeDecodeError as error:
            raise MultiPartException(
                Message("the field {0} is not UTF-8", repr(part.field_name))
            ) from error
        self.items.append((part.field_name, text))

    def on_end(self) -> None:
        self.ended = True


async def read_fields(
    request: Request, settings: GatewaySettings, *others: str
) -> dict[str, list[Any]]:
    """Read the values of a form's fields; or of a bare image, and of the address's parameters.

    Args:
        request: the request.
        settings: what may come.
        others: media types that are read otherwise, for the message.

    Raises:
        Problem: it is neither, or cannot be read.
    """
    kind = media_type(request)
    if kind == FORM:
        return await _read_form(request, settings)
    if not kind.startswith(IMAGE):
        raise _media_type_problem(kind, ", ".join((FORM, *others, f"{IMAGE}*")))
    values: dict[str, list[Any]] = {"file": [await _body(request)]}
    for name, value in request.query_params.multi_items():
        values.setdefault(name, []).append(value)
    return values


def _media_type_problem(kind: str, expected: str) -> Problem:
    return Problem(
        "media_type_unsupported",
        Message(
            "the request's Content-Type is {0}; expected {1}", repr(kind or "missing"), expected
        ),
    )


async def _read_form(request: Request, settings: GatewaySettings) -> dict[str, list[Any]]:
    parser = _FormParser(
        request.headers,
        request.stream(),
        max_files=settings.max_pictures + 1,
        max_fields=MAX_FIELDS,
        max_part_size=settings.max_body_bytes,
    )
    # A picture never touches the disk; the body's limit is the limit of what is held.
    parser.spool_max_size = 2 * settings.max_body_bytes
    try:
        form = await parser.parse()
        if not parser.ended:
            raise MultiPartException("its last boundary is missing")
    except MultiPartException as error:
        code = "pictures_too_many" if error.message.startswith("Too many files") else None
        raise Problem(
            code or "request_malformed",
            Message(
                "the form cannot be read: {0}; send multipart/form-data with its boundary, "
                "and at most {1} pictures",
                error.message,
                settings.max_pictures,
            ),
        ) from error
    except ClientDisconnect as error:
        raise _cut_short() from error
    except (KeyError, ValueError, UnicodeError) as error:
        raise Problem(
            "request_malformed",
            Message(
                "the form cannot be read: {0}; send multipart/form-data with its boundary", error
            ),
        ) from error
    return await _values(form)


async def _values(form: FormData) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for name, value in form.multi_items():
        held = await value.read() if isinstance(value, UploadFile) else value
        values.setdefault(name, []).append(held)
    await form.close()
    return values


def _asked(values: dict[str, list[Any]], form: type[BaseModel]) -> dict[str, Any]:
    """Return what a form's values ask, or a bare image's with its parameters."""
    unknown = sorted(set(values) - set(form.model_fields))
    if unknown:
        raise Problem(
            "request_invalid",
            Message(
                "the request has the fields {0}; expected {1}",
                ", ".join(map(repr, unknown)),
                ", ".join(form.model_fields),
            ),
        )
    files = files_of(values)
    for name, found in values.items():
        if any(isinstance(each, bytes) for each in found):
            raise Problem(
                "request_invalid",
                Message("the field {0} came as a file; send it as text", repr(name)),
            )
        if name not in ("labels", "bank", "text") and len(found) > 1:
            raise Problem(
                "request_invalid",
                Message("the field {0} came {1} times; send one", repr(name), len(found)),
            )
    asked: dict[str, Any] = {"images": files}
    for name, found in values.items():
        if name == "labels":
            asked["labels"] = [label for each in found for label in split_labels(each)]
        elif name == "bank":
            asked["bank"] = found
        elif name == "text":
            asked["texts"] = found
        elif found[0] != "":
            asked[name] = found[0]
    return asked


def files_of(values: dict[str, list[Any]]) -> list[bytes]:
    """Take the pictures out of a form's values.

    Raises:
        Problem: one came as text.
    """
    files = values.pop("file", [])
    if not all(isinstance(file, bytes) for file in files):
        raise Problem(
            "request_invalid",
            "the field 'file' came as text; send the picture itself, in a part with a filename or "
            "with a Content-Type such as image/jpeg, as in `curl -F file=@photo.jpg`",
        )
    return files


def _checked(question: type[M], values: dict[str, Any]) -> M:
    files = values.pop("images")
    try:
        # The pictures are bytes already: put in after the rest was checked.
        asked = question.model_validate({**values, "images": [b"-"] if files else []})
    except ValidationError as error:
        raise _invalid(error) from error
    return asked.model_copy(update={"images": files})


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise _cut_short() from error


def _cut_short() -> Problem:
    return Problem("request_malformed", "the connection was closed before the request's end")


def _invalid(error: ValidationError) -> Problem:
    """Give the problem of a request that is not as its schema says."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the request"
    if first["type"] == "json_invalid":
        return Problem(
            "request_malformed",
            Message("{0}: {1}; see the API's description at /docs", place, reason_of(first)),
        )
    came = reprlib.repr(first["input"])  # shortened
    return Problem(
        "request_invalid",
        Message(
            "{0} is {1}: {2}; see the API's description at /docs", place, came, reason_of(first)
        ),
    )


def check_pictures(images: list[bytes], settings: GatewaySettings) -> None:
    """Check that there are not too many.

    Raises:
        Problem: there are.
    """
    if len(images) > settings.max_pictures:
        raise Problem(
            "pictures_too_many",
            Message(
                "{0} pictures came and the limit is {1}; send several requests",
                len(images),
                settings.max_pictures,
            ),
        )


def examine(data: bytes, max_pixels: int) -> tuple[Picture, Problem | None]:
    """Read a picture's format and size from its content, before anything of it is decoded.

    Returns:
        What the audit log tells of it, and why it is refused, if it is.
    """
    picture = Picture(hashlib.sha256(data).hexdigest(), len(data))
    try:
        found = header(data, max_pixels=max_pixels)
    except TooLargeError as error:
        picture.width, picture.height = error.width, error.height
        size = f"{error.width}x{error.height}" if error.width else "more"
        return picture, Problem(
            "picture_too_large",
            Message(
                "the picture has {0} pixels and the limit is {1}, and {2} a side; make it smaller",
                size,
                f"{error.limit:,}",
                f"{MAX_SIDE:,}",
            ),
        )
    except ImageError as error:
        return picture, problem_of(error)
    picture.format, picture.width, picture.height = found
    return picture, None
