"""Requests of the tests, by the standard library alone."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back. Names of `headers` are in any case; of one that is missing, None is given."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


def request(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 30,
) -> Answer:
    """Send a request and give the answer, whatever its status; redirects are not followed."""
    sent = urllib.request.Request(url, body, dict(headers or {}), method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(sent, timeout=timeout_s) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def form(*parts: tuple[str, bytes | str]) -> tuple[bytes, str]:
    """Write multipart/form-data and its content type; a value of bytes is sent as a file."""
    boundary = secrets.token_hex(16)
    written = bytearray()
    for name, value in parts:
        a_file = isinstance(value, bytes)
        data = value if isinstance(value, bytes) else value.encode()
        told = '; filename="file"\r\nContent-Type: application/octet-stream' if a_file else ""
        written += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        written += told.encode() + b"\r\n\r\n" + data + b"\r\n"
    written += f"--{boundary}--\r\n".encode()
    return bytes(written), f"multipart/form-data; boundary={boundary}"


def post_picture(
    base_url: str,
    path: str,
    data: bytes,
    headers: Mapping[str, str] | None = None,
    **fields: str,
) -> Answer:
    """Post a picture as the part `file`, and the other parts by their names."""
    body, content_type = form(("file", data), *fields.items())
    return request(
        base_url + path,
        "POST",
        headers={**(headers or {}), "Content-Type": content_type},
        body=body,
    )
