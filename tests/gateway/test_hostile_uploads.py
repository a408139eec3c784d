"""Uploads that mean harm: each is refused with its code, and the next good one answered."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import hostile
from support.http import form
from wanwu.gateway.protocol import CONTINUE

#: What the process of a gateway with its defaults may come to hold. Two pictures of 40 megapixels
#: are decoded at a time, and a WebP takes 15 bytes a pixel.
MEMORY_LIMIT_MB = 2_000
#: What a corpus of pictures that are all refused may add to it.
REFUSED_LIMIT_MB = 500
GOOD = hostile.encoded(hostile.noise(), "JPEG")
CUT = "multipart/form-data; boundary=cut"
PART = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
LABELS = b'\r\n--cut\r\nContent-Disposition: form-data; name="labels"\r\n\r\ncat,dog\r\n'
WHOLE = PART + GOOD + LABELS + b"--cut--\r\n"


class Caller:
    """One connection that is kept, as long as the gateway keeps it."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def post(self, body: bytes, kind: str, **headers: str) -> tuple[int, str, Any]:
        headers = {"Content-Type": kind, **headers}
        self.connection.request("POST", "/v1/recognize", body, headers)
        answer = self.connection.getresponse()
        found = answer.read()
        return answer.status, answer.getheader("content-type", ""), json.loads(found)

    def picture(self, data: bytes) -> tuple[int, str, Any]:
        return self.post(*form(("file", data), ("labels", "猫,狗")))

    def asks(self, **question: Any) -> tuple[int, str, Any]:
        return self.post(json.dumps(question).encode(), "application/json")


@pytest.fixture
def caller(gateway: Any) -> Iterator[Caller]:
    with Caller(gateway.port) as caller:
        yield caller
    assert_it_still_answers(gateway)


@pytest.fixture(scope="module")
def impatient(server: Any, start_gateway: Any) -> Iterator[Any]:
    """A gateway that waits a second for headers and a second for a body, and takes a megabyte."""
    with start_gateway(
        server.url, HEADER_TIMEOUT_S=1, BODY_TIMEOUT_S=1, MAX_BODY_BYTES=1_000_000
    ) as running:
        yield running


def megabytes(gateway: Any, field: str) -> int:
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1000 for line in lines if line.startswith(f"{field}:"))


def assert_it_still_answers(gateway: Any) -> None:
    with Caller(gateway.port) as caller:
        status, _, found = caller.picture(GOOD)
    assert status == 200, found
    assert len(found["results"][0]["predictions"]) == 2


def assert_refused(answer: tuple[int, str, Any], *codes: str) -> None:
    status, kind, problem = answer
    assert 400 <= status < 500, problem
    assert kind == "application/problem+json"
    assert problem["code"] in codes, problem
    assert problem["status"] == status
    assert problem["detail"]


def speak(
    gateway: Any, parts: bytes | list[bytes] | Iterator[bytes], *, end: bool = False
) -> tuple[int, str, Any]:
    """Send bytes as they are, and read until the gateway closes the connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), 20) as line:
        answer = bytearray()
        reader = threading.Thread(target=_read, args=(line, answer))
        reader.start()
        try:
            for part in [parts] if isinstance(parts, bytes) else parts:
                line.sendall(part)
                if answer:
                    break
            while not end and reader.is_alive() and not answer:
                time.sleep(0.01)
            line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # what came before is the answer
        reader.join(20)
        assert not reader.is_alive(), "the connection was left open"
    head, _, body = bytes(answer).removeprefix(CONTINUE).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    # An answer that was ready before the end of the input does not know of it.
    assert end or headers["connection"] == "close"
    assert len(body) == int(headers["content-length"])
    return int(lines[0].split()[1]), headers["content-type"], json.loads(body)


def _read(line: socket.socket, answer: bytearray) -> None:
    try:
        while part := line.recv(65_536):
            answer += part
    except OSError:
        return


def post(*headers: str) -> bytes:
    lines = ["POST /v1/recognize HTTP/1.1", "Host: wanwu", *headers, "", ""]
    return "\r\n".join(lines).encode()


def chunked(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


# Pictures


def test_each_hostile_picture_is_refused_and_the_next_good_one_answered(
    server: Any, start_gateway: Any
) -> None:
    uploads = hostile.hostile()
    assert len(uploads) == len({each.name for each in uploads}) >= 300
    with start_gateway(server.url) as gateway, Caller(gateway.port) as caller:
        expected = caller.picture(GOOD)[2]["results"]
        before = megabytes(gateway, "VmRSS")
        for each in uploads:
            try:
                assert_refused(caller.picture(each.data), *each.codes)
            except (AssertionError, OSError) as error:
                pytest.fail(f"{each.name}: {error!r}")
            status, _, found = caller.picture(GOOD)
            assert (status, found["results"]) == (200, expected), each.name
        assert megabytes(gateway, "VmHWM") - before < REFUSED_LIMIT_MB


def test_no_hostile_picture_takes_long_to_refuse(gateway: Any, caller: Caller) -> None:
    for each in hostile.costly():
        started = time.monotonic()
        assert_refused(caller.picture(each.data), *each.codes)
        assert time.monotonic() - started < 2, each.name


@pytest.mark.parametrize(
    ("data", "picture"),
    [pytest.param(data, picture, id=name) for name, data, picture in hostile.harmless()],
)
def test_of_a_picture_with_something_besides_only_the_picture_is_seen(
    caller: Caller, data: bytes, picture: bytes
) -> None:
    status, _, found = caller.picture(data)
    assert status == 200, found
    assert found["results"] == caller.picture(picture)[2]["results"]


def test_a_hostile_picture_among_good_ones_spoils_only_itself(caller: Caller) -> None:
    bomb = hostile.blank_png(10_000, 10_000, bits=1)
    parts = [("file", each) for each in (GOOD, bomb, b"<svg/>", GOOD)]
    status, _, found = caller.post(*form(*parts, ("labels", "猫,狗")))
    codes = [each["error"] and each["error"]["code"] for each in found["results"]]
    assert status == 200
    assert codes == [None, "picture_too_large", "picture_type_unsupported", None]


def test_the_largest_pictures_at_once_stay_within_the_memory(
    server: Any, start_gateway: Any
) -> None:
    side = 6_244
    largest = [
        hostile.blank_webp(side, side),
        hostile.blank_png(side, side, colour=6, bands=4),
        hostile.blank_png(side, side, bits=16),
        hostile.blank_png(side, side, colour=2, bands=3),
    ]
    with start_gateway(server.url) as gateway, ThreadPoolExecutor(16) as pool:

        def send(data: bytes) -> tuple[int, str, Any]:
            with Caller(gateway.port) as caller:
                return caller.picture(data)

        found = list(pool.map(send, largest * 4))
        assert [status for status, *_ in found] == [200] * 16, found
        assert_it_still_answers(gateway)
        assert megabytes(gateway, "VmHWM") < MEMORY_LIMIT_MB


# Forms


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("multipart/form-data; boundary=other", WHOLE, "request_malformed"),
        ("multipart/form-data", WHOLE, "request_malformed"),
        ("multipart/form-data; boundary=", WHOLE, "request_malformed"),
        (f"multipart/form-data; boundary={'x' * 5_000}", WHOLE, "request_malformed"),
        ('multipart/form-data; boundary="cut', WHOLE, "request_malformed"),
        ("multipart/form-data; boundary=\xe9", WHOLE, "request_malformed"),
        (CUT, b"", "request_malformed"),
        (CUT, WHOLE.removesuffix(b"--cut--\r\n"), "request_malformed"),
        (CUT, WHOLE[:300], "request_malformed"),
        (CUT, PART[:40], "request_malformed"),
        (CUT, b"--cut\r\nno header\r\n\r\n\r\n--cut--\r\n", "request_malformed"),
        (CUT, b"--cut\r\nContent-Type: image/png\r\n\r\na\r\n--cut--\r\n", "request_malformed"),
        (CUT, WHOLE.replace(b"\r\n\r\n", b"\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 1), None),
        (CUT, WHOLE.replace(b"\r\n\r\n", b"\r\nX: a" * 50_000 + b"\r\n\r\n", 1), None),
        (CUT, b'--cut\r\nContent-Disposition: form-data; name="t"\r\n\r\n\r\n' * 10_000, None),
        (CUT, (PART + b"a\r\n") * 17 + b"--cut--\r\n", "pictures_too_many"),
        (CUT, PART.replace(b'; filename="a"', b"") + b"a\r\n--cut--\r\n", "request_invalid"),
        (CUT, PART.replace(b'"file"', b'"path"') + b"a\r\n--cut--\r\n", "request_invalid"),
        (CUT, b"\0" * 1_000_000, "request_malformed"),
        ("application/x-www-form-urlencoded", b"file=a", "media_type_unsupported"),
        ("image/jpeg", b"", "picture_damaged"),
        ("image/jpeg", WHOLE, "picture_type_unsupported"),
        ("image/svg+xml", b"<svg/>", "picture_type_unsupported"),
        ("text/xml", b"<a/>", "media_type_unsupported"),
        ("", WHOLE, "media_type_unsupported"),
        ("multipart/mixed; boundary=cut", WHOLE, "media_type_unsupported"),
    ],
)
def test_a_form_that_is_none_is_refused(
    caller: Caller, kind: str, body: bytes, code: str | None
) -> None:
    codes = (code,) if code else ("request_malformed", "request_invalid", "header_too_large")
    assert_refused(caller.post(body, kind), *codes)


def test_a_form_in_another_encoding_is_refused(caller: Caller) -> None:
    squeezed = gzip.compress(WHOLE)
    answer = caller.post(squeezed, CUT, **{"Content-Encoding": "gzip"})
    assert_refused(answer, "request_malformed", "media_type_unsupported")


def test_a_name_of_a_file_is_never_a_path(caller: Caller, tmp_path: Path) -> None:
    for name in ("../../etc/passwd", str(tmp_path / "x"), "a\0b.jpg", "x" * 10_000, "猫.php"):
        body = WHOLE.replace(b'filename="a"', f'filename="{name}"'.encode())
        status, _, found = caller.post(body, CUT)
        assert status in (200, 400), found
        assert not list(tmp_path.iterdir())


# JSON


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "request_malformed"),
        (b"{", "request_malformed"),
        (b"[" * 1_000_000, "request_malformed"),
        (b'{"images":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", "request_malformed"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "request_malformed"),
        (b"\xff" * 30_000_000, "request_malformed"),
        (b'{"images": ["' + b"!" * 30_000_000 + b'"]}', "request_invalid"),
        (b'{"images": [' + b"1," * 5_000_000 + b"1]}", "request_invalid"),
        (b'{"images": [' + b"1," * 40_000 + b"1]}", "request_invalid"),
        (b'{"images": [' + b'"",' * 40_000 + b'""]}', "pictures_too_many"),
        (b'{"images": "QUJD"}', "request_invalid"),
        (b'{"images": []}', "request_invalid"),
        (b'{"images": ["QUJ"]}', "request_invalid"),
        (b'{"images": ["Q U J D"]}', "request_invalid"),
        ('{"images": ["猫"]}'.encode(), "request_invalid"),
        (b'{"images": ["\\ud800"]}', "request_malformed"),
        (b'{"images": ["QUJD"], "top_k": 1' + b"0" * 100_000 + b"}", "request_invalid"),
        (b'{"images": ["QUJD"], "threshold": NaN}', "request_invalid"),
        (b"null", "request_invalid"),
        ('{"images": ["QUJD"]}'.encode("utf-16"), "request_malformed"),
        (b'{"images": ["QUJD"]}', "picture_type_unsupported"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_json_that_is_none_is_refused(caller: Caller, body: bytes, code: str) -> None:
    codes = {code, "request_malformed", "request_invalid"} if code[:8] == "request_" else {code}
    assert_refused(caller.post(body, "application/json"), *codes)


def test_no_address_is_ever_fetched(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        host = f"127.0.0.1:{trap.getsockname()[1]}"
        encoded = base64.b64encode(GOOD).decode()
        for address in (
            f"http://{host}/cat.jpg",
            f"HTTP://{host}/cat.jpg",
            f"ftp://{host}/cat.jpg",
            f"//{host}/cat.jpg",
            "file:///etc/passwd",
            f"data:text/html,{encoded}",
            f"data:http://{host}/cat.jpg",
        ):
            assert_refused(caller.asks(images=[address], labels=["猫"]), "request_invalid")
            codes = ("picture_type_unsupported",)
            assert_refused(caller.picture(address.encode()), *codes)
        svg = f'<svg><image href="http://{host}/"/></svg>'.encode()
        assert_refused(caller.picture(svg), *codes)
        trap.settimeout(0.2)
        with pytest.raises(TimeoutError):
            trap.accept()


# Bodies


def test_a_body_past_the_limit_is_refused_before_it_is_sent(gateway: Any) -> None:
    for length in (32_000_001, 10**12, 10**18):
        head = post(f"Content-Type: {CUT}", f"Content-Length: {length}")
        answer = speak(gateway, head + PART)
        assert_refused(answer, "body_too_large")
        assert " or more and the limit is 32 MB" in answer[2]["detail"]
    assert_it_still_answers(gateway)


@pytest.mark.parametrize("kind", [CUT, "application/json"])
def test_a_chunked_body_without_end_is_cut_off(impatient: Any, kind: str) -> None:
    def parts() -> Iterator[bytes]:
        yield post(f"Content-Type: {kind}", "Transfer-Encoding: chunked") + chunked(PART)
        while True:
            yield chunked(bytes(100_000))

    assert_refused(speak(impatient, parts()), "body_too_large")
    assert_it_still_answers(impatient)


def test_a_chunked_body_past_the_limit_is_refused(gateway: Any) -> None:
    parts = [post(f"Content-Type: {CUT}", "Transfer-Encoding: chunked"), chunked(PART)]
    answer = speak(gateway, parts + [chunked(bytes(1_000_000))] * 40)
    assert_refused(answer, "body_too_large")
    assert_it_still_answers(gateway)


@pytest.mark.parametrize("header", ["Transfer-Encoding: chunked", "Content-Length: 500000"])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_slow_body_is_cut_off(impatient: Any, header: str, count: int) -> None:
    def drops() -> Iterator[bytes]:
        yield post(f"Content-Type: {CUT}", header)
        for at in range(count):
            drop = WHOLE[at : at + 1]
            yield chunked(drop) if "chunked" in header else drop
            time.sleep(0.1)

    assert_refused(speak(impatient, drops()), "body_slow")
    assert_it_still_answers(impatient)


@pytest.mark.parametrize("end", [True, False], ids=["ended", "open"])
def test_a_body_shorter_than_was_told_is_refused(impatient: Any, end: bool) -> None:
    head = post(f"Content-Type: {CUT}", f"Content-Length: {len(WHOLE) + 1}")
    answer = speak(impatient, head + WHOLE, end=end)
    assert_refused(answer, "request_malformed" if end else "body_slow")


def test_a_body_longer_than_was_told_is_no_second_request(impatient: Any) -> None:
    head = post(f"Content-Type: {CUT}", f"Content-Length: {len(WHOLE) - 10}", "Connection: close")
    assert_refused(speak(impatient, head + WHOLE), "request_malformed")


@pytest.mark.parametrize(
    "body",
    [b"x\r\n", b"-1\r\n", b"f" * 21 + b"\r\n", b"5\r\nabcdefgh\r\n", b"5 5\r\nabcde\r\n"],
)
def test_chunks_of_bad_sizes_are_refused(impatient: Any, body: bytes) -> None:
    head = post(f"Content-Type: {CUT}", "Transfer-Encoding: chunked")
    assert_refused(speak(impatient, [head, body]), "request_malformed")
    assert_refused(speak(impatient, head + body), "request_malformed")
    assert_it_still_answers(impatient)


def test_many_bodies_that_are_held_are_refused_by_name(server: Any, start_gateway: Any) -> None:
    limits = {"MAX_BODY_BYTES": 1_000_000, "MAX_HELD_BYTES": 2_000_000, "BODY_TIMEOUT_S": 2}
    head = post(f"Content-Type: {CUT}", "Content-Length: 900000")
    with start_gateway(server.url, **limits) as gateway, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: speak(gateway, head + PART + bytes(800_000)), range(8))
        codes = [problem["code"] for _, _, problem in answers]
        assert codes.count("overloaded") == 6
        assert codes.count("body_slow") == 2
        assert_it_still_answers(gateway)


# HTTP


@pytest.mark.parametrize(
    "request_text",
    [
        b"\0\0\0\0\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"\r\n" * 10,
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\nA B: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda text: str(text[:40]),
)
def test_what_is_no_http_is_refused(impatient: Any, request_text: bytes) -> None:
    answer = speak(impatient, request_text, end=True)
    assert_refused(answer, "request_malformed", "route_unknown", "method_not_allowed")
    assert_it_still_answers(impatient)


@pytest.mark.parametrize(
    "head",
    [
        post(*[f"X-{n}: {'a' * 900}" for n in range(1_000)]),
        post("X: " + "a" * 1_000_000),
        post("X: " + "a" * 100_000),
        post(*["X: a"] * 50_000),
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /?" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"a" * 1_000_000,
    ],
    ids=["many", "one", "one read", "short", "path", "query", "method"],
)
def test_headers_past_the_limit_are_refused(gateway: Any, head: bytes) -> None:
    assert_refused(speak(gateway, head), "header_too_large")
    assert_it_still_answers(gateway)


@pytest.mark.parametrize("slowly", [b"", b"POST /v1/recog", post()[:-2]], ids=str)
def test_slow_headers_are_cut_off(impatient: Any, slowly: bytes) -> None:
    def drops() -> Iterator[bytes]:
        yield slowly
        for _ in range(20):
            time.sleep(0.2)
            yield b"X: a\r\n" if slowly[-2:] == b"\r\n" and slowly[:4] == b"POST" else b""

    started = time.monotonic()
    assert_refused(speak(impatient, drops()), "body_slow")
    assert time.monotonic() - started < 4.5


def test_a_hundred_slow_callers_stop_nobody(impatient: Any) -> None:
    address = ("127.0.0.1", impatient.port)
    lines = [socket.create_connection(address, 10) for _ in range(100)]
    for line in lines:
        line.sendall(post(f"Content-Type: {CUT}")[:-4])
    assert_it_still_answers(impatient)
    assert [line.recv(12) for line in lines] == [b"HTTP/1.1 408"] * 100
    for line in lines:
        line.close()


def test_a_caller_that_never_reads_its_answers_stops_nobody(gateway: Any) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", gateway.port))
        deaf.settimeout(1)
        before = megabytes(gateway, "VmRSS")
        ask = b"GET /static/swagger-ui-bundle.js HTTP/1.1\r\nHost: wanwu\r\n\r\n"
        with pytest.raises(TimeoutError):
            deaf.sendall(ask * 1_000_000)
        assert megabytes(gateway, "VmRSS") - before < 100
        assert_it_still_answers(gateway)


def test_a_caller_that_leaves_stops_nobody(gateway: Any) -> None:
    head = post(f"Content-Type: {CUT}", f"Content-Length: {len(WHOLE)}")
    for sent in (b"", head[:20], head, head + WHOLE[:99], head + WHOLE):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", gateway.port), 10) as line:
                line.sendall(sent)
        assert_it_still_answers(gateway)


def test_a_caller_that_ends_its_half_is_answered(gateway: Any) -> None:
    head = post(f"Content-Type: {CUT}", f"Content-Length: {len(WHOLE)}")
    status, _, found = speak(gateway, head + WHOLE, end=True)
    assert status == 200, found
