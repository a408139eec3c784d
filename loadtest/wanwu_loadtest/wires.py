"""How a request travels: over gRPC through the client, or over REST through the gateway."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from geventhttpclient import HTTPClient
from geventhttpclient.url import URL
from urllib3 import encode_multipart_formdata

from wanwu import Recognizer
from wanwu.channel import Array
from wanwu.errors import InputError, ServerError
from wanwu.images import to_pixels
from wanwu.settings import Settings
from wanwu.transport import GrpcTransport
from wanwu_loadtest.work import Question

IMAGE_ENCODER = "image_encoder"


class Wire(Protocol):
    """What a load needs of a way to the server."""

    def labels(self) -> Sequence[str]:
        """Give the labels of the bank."""

    def model(self) -> str:
        """Give the model's name."""

    def prepared(self, photos: Sequence[bytes]) -> list[Any]:
        """Give photographs as `ask` takes them, so that asking costs no decoding."""

    def ask(self, question: Question) -> float | None:
        """Ask, and give the seconds of the call to the image tower where they can be told.

        Raises:
            WanwuError: there is no answer to a part of it.
        """

    def close(self) -> None:
        """Let go of the connections."""


class Timed(GrpcTransport):
    """gRPC that notes how long the image tower's last call of a greenlet took."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.address)
        self._noted = threading.local()

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float
    ) -> dict[str, Array]:
        """Run one inference."""
        begun = time.perf_counter()
        try:
            return super().infer(model, inputs, outputs, timeout_s=timeout_s)
        finally:
            if model == IMAGE_ENCODER:
                self._noted.seconds = time.perf_counter() - begun

    def taken(self) -> float | None:
        """Give the seconds of this greenlet's last call, once."""
        seconds: float | None = self._noted.__dict__.pop("seconds", None)
        return seconds


class GrpcWire:
    """Through `Recognizer`, as high-throughput callers ask."""

    def __init__(self, url: str, bank: str | None, timeout_s: float) -> None:
        settings = Settings.from_env(url=url, timeout_s=timeout_s)
        self._transport = Timed(settings)
        self._recognizer = Recognizer(url, timeout_s=timeout_s, transport=self._transport)
        self._bank = bank

    def labels(self) -> Sequence[str]:
        """Give the labels of the bank."""
        return self._recognizer.labels(self._bank)

    def model(self) -> str:
        """Give the model's name."""
        return self._recognizer.contract(self._bank).model.name

    def prepared(self, photos: Sequence[bytes]) -> list[Any]:
        """Decode and resize photographs: UINT8 [H, W, 3] of the size the model sees."""
        image = self._recognizer.contract(self._bank).image
        return [to_pixels(photo, image) for photo in photos]

    def ask(self, question: Question) -> float | None:
        """Ask through the client."""
        bank = None if question.labels else self._bank
        if len(question.images) == 1:
            self._recognizer.recognize(question.images[0], labels=question.labels, bank=bank)
            return self._transport.taken()
        for answer in self._recognizer.recognize_many(question.images, bank=bank):
            if answer.error is not None:
                raise answer.error
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._recognizer.close()


class RestWire:
    """Through the gateway's REST API."""

    def __init__(self, url: str, bank: str | None, timeout_s: float, at_a_time: int) -> None:
        key = os.environ.get("WANWU_API_KEY")
        self._http = HTTPClient.from_url(
            URL(url),
            concurrency=at_a_time,
            connection_timeout=timeout_s,
            network_timeout=timeout_s,
            headers={"X-API-Key": key} if key else {},
        )
        self._bank, self._url = bank, url

    def labels(self) -> Sequence[str]:
        """Give the labels of the bank."""
        name = self._bank or self._asked("GET", "/v1/banks")["banks"][0]["name"]
        return list(self._asked("GET", f"/v1/banks/{name}/labels")["labels"])

    def model(self) -> str:
        """Give the model's name."""
        return str(self._asked("GET", "/v1/banks")["banks"][0]["model"])

    def prepared(self, photos: Sequence[bytes]) -> list[Any]:
        """Refuse: a gateway takes encoded pictures alone."""
        raise InputError("--decode once is for gRPC; a gateway decodes every picture itself")

    def ask(self, question: Question) -> float | None:
        """Ask with a form."""
        fields = [("bank", self._bank)] if self._bank and not question.labels else []
        fields += [("labels", label) for label in question.labels or []]
        body, media_type = form(question.images, fields)
        answer = self._asked("POST", "/v1/recognize", body, {"Content-Type": media_type})
        for each in answer["results"]:
            if each["error"]:
                raise ServerError("the gateway refused a picture: {0}", each["error"]["code"])
        return None

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _asked(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Any:
        try:
            response = self._http.request(method, path, body=body, headers=dict(headers or {}))
            status, text = response.status_code, bytes(response.read())
        except OSError as error:
            raise ServerError(
                "{0} does not answer: {1}", self._url, type(error).__name__
            ) from error
        answer = decoded(text)
        if status >= 400:
            code = answer.get("code", "no code") if isinstance(answer, dict) else "no code"
            raise ServerError("the gateway answered {0} {1}", status, code)
        return answer


def decoded(text: bytes) -> Any:
    """Give what JSON says, or None when it is none."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def form(images: Sequence[Any], fields: Sequence[tuple[str, str | None]]) -> tuple[bytes, str]:
    """Give a body of multipart/form-data, and its media type."""
    parts = [("file", ("photo", image, "application/octet-stream")) for image in images]
    return encode_multipart_formdata([*fields, *parts])  # type: ignore[list-item]


def is_rest(host: str) -> bool:
    """Tell whether an address is a gateway's."""
    return host.startswith(("http://", "https://"))


def connect(host: str, *, bank: str | None, timeout_s: float, at_a_time: int) -> Wire:
    """Give the way to a host: REST for an address with a scheme, gRPC for HOST:PORT.

    Both read WANWU_API_KEY: Triton's inference key, or a key of the gateway.
    """
    if is_rest(host):
        return RestWire(host, bank, timeout_s, at_a_time)
    return GrpcWire(host, bank, timeout_s)
