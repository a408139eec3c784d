"""Uploads as people's programs send them: what the image is, and that nothing beside it is lost."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from support.hostile import chunk, encoded, noise, png
from support.http import Answer, form, post_picture, request
from wanwu import Recognizer
from wanwu.samples import cat_photo

JSON = {"Content-Type": "application/json"}
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=B"}


def part(headers: str, data: bytes) -> bytes:
    return (
        f"--B\r\nContent-Disposition: form-data; name={headers}\r\n\r\n".encode() + data + b"\r\n"
    )


def post(gateway: Any, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    return request(gateway.url + path, "POST", headers=headers, body=body)


def labels_of(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [each["label"] for each in answer.json()["results"][0]["predictions"]]


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Parts of a form


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "IMAGE/PNG"])
def test_a_part_with_a_media_type_and_no_filename_is_the_image(gateway, kind) -> None:
    body = part(f'"file"\r\nContent-Type: {kind}', cat_photo()) + b"--B--\r\n"
    answer = post(gateway, "/predict", body, BOUNDARY)
    assert answer.status == 200
    assert answer.json() == post_picture(gateway.url, "/predict", cat_photo()).json()


@pytest.mark.parametrize("kind", ["", "\r\nContent-Type: text/plain"])
def test_a_part_without_both_is_refused_with_what_helps(gateway, kind) -> None:
    for data in (cat_photo(), b"photo.jpg"):
        body = part(f'"file"{kind}', data) + b"--B--\r\n"
        answer = post(gateway, "/predict", body, BOUNDARY)
        assert (answer.status, answer.json()["code"]) == (422, "request_invalid")
        assert "a filename or with a Content-Type such as image/jpeg" in answer.json()["detail"]


def test_labels_in_a_part_with_a_media_type_are_labels(gateway) -> None:
    body = part('"file"\r\nContent-Type: image/jpeg', cat_photo())
    body += (
        part('"labels"\r\nContent-Type: application/json', '["猫", "狗"]'.encode()) + b"--B--\r\n"
    )
    assert sorted(labels_of(post(gateway, "/v1/recognize", body, BOUNDARY))) == ["狗", "猫"]


@pytest.mark.parametrize("charset", ["gbk", "latin-1"])
def test_a_charset_that_a_form_names_changes_no_label(gateway, charset) -> None:
    body, kind = form(("file", cat_photo()), ("labels", "猫,狗"))
    headers = {"Content-Type": f"{kind}; charset={charset}"}
    assert sorted(labels_of(post(gateway, "/v1/recognize", body, headers))) == ["狗", "猫"]


@pytest.mark.parametrize("labels", ['["猫","狗"]', ' [ "猫" , "狗" ]', "猫,狗", "猫\n狗"])
def test_labels_of_a_form_may_be_a_json_list(gateway, labels) -> None:
    answer = post_picture(gateway.url, "/v1/recognize", cat_photo(), labels=labels)
    assert sorted(labels_of(answer)) == ["狗", "猫"]


@pytest.mark.parametrize(
    "labels", ['["猫","狗"', "[猫,狗]", '{"猫":["猫咪"]}', '"猫","狗"', "[1,2]"]
)
def test_labels_that_begin_as_json_and_are_no_list_are_refused(gateway, labels) -> None:
    answer = post_picture(gateway.url, "/v1/recognize", cat_photo(), labels=labels)
    assert (answer.status, answer.json()["code"]) == (422, "labels_invalid")
    assert "begin as JSON and are no list of texts" in answer.json()["detail"]


# A bare image


def test_a_bare_image_is_answered(gateway) -> None:
    answer = post(gateway, "/predict", cat_photo(), {"Content-Type": "image/jpeg"})
    assert answer.status == 200
    assert answer.json() == post_picture(gateway.url, "/predict", cat_photo()).json()


def test_a_bare_image_has_its_fields_in_the_address(gateway) -> None:
    path = "/v1/recognize?labels=%E7%8C%AB%2C%E7%8B%97&top_k=1&score=cosine"
    answer = post(gateway, path, cat_photo(), {"Content-Type": "image/*"})
    assert labels_of(answer) == ["猫"]
    path = "/v1/recognize?bank=seed18&bank=default"
    answer = post(gateway, path, cat_photo(), {"Content-Type": "image/jpeg; q=1"})
    assert answer.json()["banks"] == ["seed18", "default"]


def test_a_bare_image_is_embedded(gateway, recognizer: Recognizer) -> None:
    answer = post(gateway, "/v1/embed", cat_photo(), {"Content-Type": "image/jpeg"})
    found = answer.json()["images"][0]["embedding"]
    assert found == pytest.approx(recognizer.embed_image(cat_photo()).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/predict?top_k=1", "'top_k'"),
        ("/v1/recognize?colour=1", "'colour'"),
        ("/v1/recognize?top_k=many", "top_k"),
        ("/v1/recognize?top_k=1&top_k=2", "2 times"),
        ("/v1/recognize?file=a", "'file'"),
    ],
)
def test_a_bare_image_with_other_parameters_is_refused(gateway, path, says) -> None:
    answer = post(gateway, path, cat_photo(), {"Content-Type": "image/jpeg"})
    assert (answer.status, answer.json()["code"]) == (422, "request_invalid")
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict?top_k=1"),
        ("POST", "/v1/recognize?top_k=1&bank=seed18"),
        ("POST", "/v1/embed?text=a"),
        ("GET", "/v1/banks?top_k=1"),
        ("GET", "/v1/banks/seed18/labels?top_k=1"),
        *(("GET", f"{path}?top_k=1") for path in ("/healthz", "/readyz", "/metrics", "/", "/docs")),
        ("GET", "/static/page.js?top_k=1"),
        ("GET", "/openapi.json?top_k=1"),
    ],
)
def test_parameters_that_nothing_reads_are_refused(gateway, method, path, language) -> None:
    body, kind = form(("file", cat_photo()))
    headers = {"Content-Type": kind} if method == "POST" else {}
    headers["Accept-Language"] = language
    sent = body if method == "POST" else None
    answer = request(gateway.url + path, method, headers=headers, body=sent)
    assert (answer.status, answer.json()["code"]) == (422, "request_invalid")
    assert "'top_k'" in answer.json()["detail"] or "'text'" in answer.json()["detail"]


# JSON


@pytest.mark.parametrize(
    "head", ["data:image/jpeg;base64,", "DATA:image/jpeg;charset=utf-8;BASE64,", "data:;base64,"]
)
def test_a_data_uri_is_the_image(gateway, head) -> None:
    asked = {"images": [head + base64_of(cat_photo())], "labels": ["猫", "狗"]}
    answer = post(gateway, "/v1/recognize", json.dumps(asked).encode(), JSON)
    assert labels_of(answer)[0] == "猫"


@pytest.mark.parametrize("address", ["data:image/svg+xml,%3Csvg/%3E", "data:", "blob:x", "cid:1"])
def test_another_address_is_refused(gateway, address) -> None:
    answer = post(gateway, "/v1/recognize", json.dumps({"images": [address]}).encode(), JSON)
    assert (answer.status, answer.json()["code"]) == (422, "request_invalid")
    assert "data:image/…;base64,…" in answer.json()["detail"]


def test_json_may_begin_with_a_byte_order_mark(gateway) -> None:
    asked = {"images": [base64_of(cat_photo())], "labels": ["猫", "狗"]}
    body = b"\xef\xbb\xbf" + json.dumps(asked).encode()
    assert labels_of(post(gateway, "/v1/recognize", body, JSON))[0] == "猫"


# Formats


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_newer_formats_are_answered(gateway, kind) -> None:
    data = encoded(noise(), kind)
    answer = post_picture(gateway.url, "/v1/recognize", data, labels="猫,狗")
    assert len(labels_of(answer)) == 2


def test_whole_pictures_are_answered_whatever_their_metadata(gateway) -> None:
    whole = encoded(noise(), "PNG")
    text = chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b"20" * 600_000))
    plain = post_picture(gateway.url, "/v1/recognize", whole, labels="猫,狗").json()["results"]
    data = whole[:33] + text + whole[33:-12]  # and without its end
    answer = post_picture(gateway.url, "/v1/recognize", data, labels="猫,狗")
    assert answer.json()["results"] == plain


HEIC = struct.pack(">L", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)
TOO_FEW_ROWS = png(5_000, 5_000, colour=2, data=zlib.compress(bytes(150_010)))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("data", "status", "code", "says"),
    [
        (HEIC, 415, "picture_type_unsupported", "HEIC"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), 415, "picture_type_unsupported", "32"),
        (TOO_FEW_ROWS, 422, "picture_damaged", "225 B"),
        (encoded(noise(), "JPEG")[:-500], 422, "picture_damaged", "kB"),
        (encoded(noise(), "PNG")[:-500], 422, "picture_damaged", "kB"),
        (encoded(noise(), "TIFF", compression="tiff_lzw")[:-50], 422, "picture_damaged", "kB"),
    ],
    ids=["HEIC", "float", "rows", "JPEG", "PNG", "TIFF"],
)
def test_what_is_wrong_with_an_image_is_told_in_our_words(
    gateway, data, status, code, says, language
) -> None:
    headers = {"Accept-Language": language}
    answer = post_picture(gateway.url, "/predict", data, headers)
    problem = answer.json()
    assert (answer.status, problem["code"]) == (status, code)
    assert says in problem["detail"]
    for inner in ("Error", "PIL", "truncated", "bytes not processed", "decoder", "/"):
        assert inner not in problem["detail"]
