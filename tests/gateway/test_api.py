"""What the API answers: as the client does, and what is wrong in the reader's language."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from support.http import form, post_picture, request
from wanwu import Recognizer
from wanwu.embedded.server import free_port
from wanwu.gateway.problems import prefers_chinese
from wanwu.samples import cat_photo

PETS = ["猫", "狗"]


def post_json(gateway: Any, path: str, asked: Any, **headers: str) -> Any:
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return request(
        gateway.url + path,
        "POST",
        headers={"Content-Type": "application/json", **headers},
        body=body,
    )


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_curl_as_the_seed_has_it(gateway, recognizer: Recognizer, tmp_path, need) -> None:
    need(shutil.which("curl") is not None, "curl: apt install curl")
    (tmp_path / "photo.jpg").write_bytes(cat_photo())
    command = ["curl", "-sS", "-F", "file=@photo.jpg", f"{gateway.url}/predict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    expected = recognizer.recognize(cat_photo()).predictions
    assert json.loads(done.stdout) == {
        "results": [{"label": p.label, "score": pytest.approx(p.score)} for p in expected],
        "warnings": [],
    }


@pytest.mark.parametrize("labels", [None, PETS, {"猫": ["猫咪"], "狗": []}])
@pytest.mark.parametrize("score", [None, "cosine"])
def test_the_answer_is_the_clients(gateway, recognizer: Recognizer, labels, score) -> None:
    asked = {"images": [encoded(cat_photo())], "labels": labels, "score": score, "top_k": 2}
    answer = post_json(gateway, "/v1/recognize", asked).json()
    expected = recognizer.recognize(cat_photo(), labels=labels, score=score, top_k=2)
    (found,) = answer["results"]
    assert [p["label"] for p in found["predictions"]] == [p.label for p in expected.predictions]
    for theirs, ours in zip(found["predictions"], expected.predictions, strict=True):
        assert theirs["score"] == pytest.approx(ours.score, abs=1e-6)
        assert theirs["category"] == ours.category
    assert answer["fingerprint"] == str(expected.fingerprint)
    assert answer["banks"] == list(expected.banks)


def test_a_form_asks_the_same_as_json(gateway) -> None:
    asked = {"images": [encoded(cat_photo())], "labels": PETS, "top_k": 1, "threshold": 0.5}
    by_json = post_json(gateway, "/v1/recognize", asked).json()
    fields = {"labels": "猫，狗", "top_k": "1", "threshold": "0.5"}
    by_form = post_picture(gateway.url, "/v1/recognize", cat_photo(), **fields).json()
    assert by_form["results"] == by_json["results"]


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        (["高铁站"], ["label_single"]),
        (["饕餮", "鵸鵌"], ["labels_unreadable", "labels_alike", "scores_uniform"]),
    ],
)
def test_a_doubtful_answer_is_uncertain_and_says_why(gateway, labels, codes) -> None:
    for language, word in (("en", "label"), ("zh", "标签")):
        asked = {"images": [encoded(cat_photo())], "labels": labels}
        answer = post_json(gateway, "/v1/recognize", asked, **{"Accept-Language": language}).json()
        (found,) = answer["results"]
        assert [each["code"] for each in found["warnings"]] == codes
        assert answer["warnings"] == found["warnings"]
        assert found["uncertain"] is True
        assert word in found["warnings"][0]["text"]


def test_warnings_of_several_pictures_come_once(gateway) -> None:
    asked = {"images": [encoded(cat_photo())] * 3, "labels": ["猫", "饕餮"]}
    answer = post_json(gateway, "/v1/recognize", asked).json()
    assert [len(each["warnings"]) for each in answer["results"]] == [1, 1, 1]
    assert [each["code"] for each in answer["warnings"]] == ["labels_unreadable"]


def test_texts_that_the_model_cannot_read_are_told(gateway) -> None:
    answer = post_json(gateway, "/v1/embed", {"texts": ["猫", "饕餮"]}).json()
    assert [each["code"] for each in answer["warnings"]] == ["labels_unreadable"]
    assert post_json(gateway, "/v1/embed", {"texts": ["猫", "狗"]}).json()["warnings"] == []


def test_several_banks_and_a_threshold_that_nothing_reaches(gateway) -> None:
    asked = {"images": [encoded(cat_photo())], "bank": ["seed18", "default"], "threshold": 1.0}
    answer = post_json(gateway, "/v1/recognize", asked).json()
    assert answer["banks"] == ["seed18", "default"]
    assert answer["results"][0]["uncertain"] is True
    assert answer["results"][0]["predictions"] == []


def test_of_several_pictures_each_has_its_own_answer(gateway) -> None:
    asked = {"images": [encoded(cat_photo()), encoded(b"no picture"), encoded(cat_photo())]}
    answer = post_json(gateway, "/v1/recognize", asked)
    first, second, third = answer.json()["results"]
    assert answer.status == 200
    assert first["predictions"] == third["predictions"]
    assert (second["predictions"], second["error"]["code"]) == (None, "picture_type_unsupported")


def test_embeddings_are_the_clients(gateway, recognizer: Recognizer) -> None:
    asked = {"images": [encoded(cat_photo())], "texts": PETS}
    answer = post_json(gateway, "/v1/embed", asked).json()
    image = np.array(answer["images"][0]["embedding"])
    np.testing.assert_allclose(image, recognizer.embed_image(cat_photo()), atol=1e-5)
    np.testing.assert_allclose(answer["texts"], recognizer.embed_texts(PETS), atol=1e-5)
    assert answer["fingerprint"] == str(recognizer.contract().fingerprint)


def test_a_form_embeds_too(gateway) -> None:
    body, kind = form(("file", cat_photo()), ("text", "猫"), ("text", "狗"))
    answer = request(f"{gateway.url}/v1/embed", "POST", headers={"Content-Type": kind}, body=body)
    assert (len(answer.json()["images"]), len(answer.json()["texts"])) == (1, 2)


def test_banks_and_their_labels(gateway, recognizer: Recognizer) -> None:
    listed = request(f"{gateway.url}/v1/banks").json()["banks"]
    assert [bank["name"] for bank in listed] == list(recognizer.banks())
    found = request(f"{gateway.url}/v1/banks/seed18/labels").json()
    assert found == {"bank": "seed18", "labels": list(recognizer.labels("seed18"))}
    seed18 = next(bank for bank in listed if bank["name"] == "seed18")
    assert (seed18["labels"], seed18["rejects"]) == (18, False)


def test_it_is_alive_and_ready(gateway, recognizer: Recognizer) -> None:
    assert request(f"{gateway.url}/healthz").json() == {"alive": True}
    ready = request(f"{gateway.url}/readyz").json()
    assert ready["fingerprint"] == str(recognizer.contract().fingerprint)


@pytest.mark.parametrize(
    ("asked", "status", "code", "says"),
    [
        (b"{", 400, "request_malformed", "EOF"),
        (b"[]", 422, "request_invalid", "object"),
        ({}, 422, "request_invalid", "images"),
        ({"images": []}, 422, "request_invalid", "images"),
        ({"images": ["!"]}, 422, "request_invalid", "base64"),
        ({"images": ["https://example.cn/a.jpg"]}, 422, "request_invalid", "an address came"),
        ({"images": ["data:image/png,AA=="]}, 422, "request_invalid", "an address came"),
        ({"images": [""]}, 422, "picture_damaged", "is empty"),
        ({"images": ["AAAA"] * 17}, 422, "pictures_too_many", "the limit is 16"),
        ({"images": ["AAAA"], "top_k": 0}, 422, "request_invalid", "top_k"),
        ({"images": ["AAAA"], "threshold": 2}, 422, "request_invalid", "threshold"),
        ({"images": ["AAAA"], "score": "best"}, 422, "request_invalid", "score"),
        ({"images": ["AAAA"], "colour": 1}, 422, "request_invalid", "colour"),
        ({"images": ["CAT"], "labels": PETS, "bank": "seed18"}, 422, "request_invalid", "labels"),
        ({"images": ["CAT"], "labels": ["猫", "猫"]}, 422, "labels_invalid", "repeats"),
        ({"images": ["CAT"], "labels": []}, 422, "labels_invalid", "label"),
        ({"images": ["CAT"], "labels": ["x"] * 2001}, 422, "labels_invalid", "the limit is 2000"),
        ({"images": ["CAT"], "bank": "none"}, 404, "bank_unknown", "'none'"),
        ({"images": ["CAT"], "bank": "../x"}, 422, "request_invalid", "../x"),
    ],
)
def test_what_cannot_be_asked_is_refused(gateway, asked, status, code, says) -> None:
    if isinstance(asked, dict) and "CAT" in asked.get("images", ()):
        asked = {**asked, "images": [encoded(cat_photo())]}
    answer = post_json(gateway, "/v1/recognize", asked)
    problem = answer.json()
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert says in problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"colour": "1"}, "'colour'"),
        ({"top_k": "many"}, "top_k"),
        ({"labels": "猫,,狗"}, "blank"),
    ],
)
def test_a_form_that_cannot_be_asked_is_refused(gateway, fields, says) -> None:
    answer = post_picture(gateway.url, "/v1/recognize", cat_photo(), **fields)
    assert answer.status == 422
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (("file", "text"),),
        (("other", b"1"),),
        (("file", b"1"), ("file", b"2")),
        (("file", b"1"), ("labels", "猫")),
    ],
)
def test_predict_takes_one_file(gateway, parts) -> None:
    body, kind = form(*parts)
    answer = request(f"{gateway.url}/predict", "POST", headers={"Content-Type": kind}, body=body)
    assert (answer.status, answer.json()["code"]) == (422, "request_invalid")
    assert "`curl -F file=@photo.jpg`" in answer.json()["detail"]


def test_labels_that_are_not_utf_8_are_refused(gateway) -> None:
    body, kind = form(("file", cat_photo()), ("labels", "LABELS"))
    body = body.replace(b"LABELS", "猫,狗".encode("gbk"))
    headers = {"Content-Type": kind}
    answer = request(f"{gateway.url}/v1/recognize", "POST", headers=headers, body=body)
    assert (answer.status, answer.json()["code"]) == (400, "request_malformed")
    assert "the field 'labels' is not UTF-8" in answer.json()["detail"]


def test_aliases_count_as_labels(gateway) -> None:
    labels = {"猫": [f"猫{number}" for number in range(2_000)]}
    asked = {"images": [encoded(cat_photo())], "labels": labels}
    answer = post_json(gateway, "/v1/recognize", asked)
    assert (answer.status, answer.json()["code"]) == (422, "labels_invalid")
    assert "2001 labels and aliases came and the limit is 2000" in answer.json()["detail"]


def test_base64_may_have_lines(gateway) -> None:
    asked = {"images": [base64.encodebytes(cat_photo()).decode()]}
    assert post_json(gateway, "/v1/recognize", asked).status == 200


def test_a_problem_says_what_came_in_chinese_too(gateway) -> None:
    asked = {"images": ["AAAA"], "top_k": -1}
    problem = post_json(gateway, "/v1/recognize", asked, **{"Accept-Language": "zh"}).json()
    assert problem["detail"] == "top_k 是 -1：应不小于 1，请参阅 /docs 的接口说明"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_path_of_many_messages_is_answered_at_once_and_cut(gateway, language) -> None:
    """Its Chinese was once looked for by regular expressions: 3 kB stopped the gateway for 36 s."""
    words = " has fingerprint ", " and ", " says ", " of version "
    path = "/" + "".join(word * 60 for word in words)
    path += ": they are of different exports; export again"
    began = time.monotonic()
    answer = request(gateway.url + quote(path), headers={"Accept-Language": language})
    assert time.monotonic() - began < 1
    problem = answer.json()
    assert (answer.status, problem["code"]) == (404, "route_unknown")
    assert "has fingerprint" in problem["detail"]
    assert len(problem["detail"]) < 300


def test_what_a_caller_sent_is_echoed_to_the_letter(gateway) -> None:
    path = "/there is no file x; check the path"
    answer = request(gateway.url + quote(path), headers={"Accept-Language": "zh"})
    assert answer.json()["detail"] == f"{path} 没有内容，/docs 说明了有哪些地址"


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/v1/banks"])
def test_head_is_get_without_a_body(gateway, path) -> None:
    answer = request(gateway.url + path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", ["/predict/", "/v1/banks/", "/healthz/"])
def test_no_redirection_names_a_host_of_the_callers(gateway, path) -> None:
    answer = request(gateway.url + path, headers={"Host": "evil.example"})
    assert (answer.status, answer.json()["code"]) == (404, "route_unknown")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/none", 404, "route_unknown"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/v1/banks", 405, "method_not_allowed"),
        ("POST", "/predict", 415, "media_type_unsupported"),
        ("GET", "/v1/banks/none/labels", 404, "bank_unknown"),
    ],
)
def test_what_is_nowhere_is_told(gateway, method, path, status, code) -> None:
    answer = request(gateway.url + path, method)
    assert (answer.status, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("language", "chinese"),
    [
        ("", False),
        ("zh-CN,zh;q=0.9,en;q=0.8", True),
        ("zh", True),
        ("en-US,zh;q=0.5", False),
        ("fr, zh-TW;q=0.3", True),
        ("en;q=0.1, zh;q=0", False),
        ("zh;q=x", False),
        ("*", False),
    ],
)
def test_a_problem_is_told_in_the_readers_language(gateway, language, chinese) -> None:
    assert prefers_chinese(language) is chinese
    answer = request(f"{gateway.url}/none", headers={"Accept-Language": language})
    assert ("没有这个地址" in answer.json()["title"]) is chinese
    assert answer.headers["Content-Language"] == ("zh-CN" if chinese else "en")


def test_answers_carry_security_headers_and_no_origin_is_let_in(gateway) -> None:
    headers = request(f"{gateway.url}/v1/banks", headers={"Origin": "https://evil.example"}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers
    assert "Server" not in headers


def test_an_origin_may_be_let_in(server, start_gateway) -> None:
    with start_gateway(server.url, CORS_ORIGINS="https://a.example,https://b.example") as gateway:
        headers = {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}
        answer = request(f"{gateway.url}/predict", "OPTIONS", headers=headers)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://b.example"


def test_without_triton_it_is_alive_and_not_ready(start_gateway) -> None:
    with start_gateway(f"127.0.0.1:{free_port()}") as gateway:
        assert request(f"{gateway.url}/healthz").status == 200
        ready = request(f"{gateway.url}/readyz")
        answer = post_picture(gateway.url, "/predict", cat_photo())
    for each in (ready, answer):
        assert (each.status, each.json()["code"]) == (503, "unavailable")
        assert int(each.headers["Retry-After"]) >= 1
        assert "127.0.0.1" not in each.json()["detail"]  # addresses are for the log
    assert "no Triton answers gRPC at 127.0.0.1" in gateway.log.read_text()


def test_metrics_have_a_port_of_their_own(server, start_gateway) -> None:
    port = free_port()
    with start_gateway(server.url, "--metrics-port", str(port)) as gateway:
        post_picture(gateway.url, "/predict", cat_photo())
        post_picture(gateway.url, "/predict", b"no picture")
        found = request(f"http://127.0.0.1:{port}/metrics").body.decode()
    for line in (
        'wanwu_gateway_request_duration_seconds_count{route="/predict",status="200"} 1.0',
        'wanwu_gateway_rejected_total{reason="picture_type_unsupported"} 1.0',
        'wanwu_gateway_recognitions_total{bank="default",outcome="answered"} 1.0',
        'wanwu_gateway_top_score_count{bank="default"} 1.0',
        "wanwu_gateway_picture_bytes_count 2.0",
        "wanwu_gateway_audit_sequence 3.0",
        'wanwu_gateway_triton_call_duration_seconds_count{model="image_encoder",outcome="ok"} 1.0',
    ):
        assert line in found
