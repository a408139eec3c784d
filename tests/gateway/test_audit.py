"""The audit log: every request has its line, and a line that is not as written is found."""

from __future__ import annotations

import base64
import hashlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.http import post_picture, request
from wanwu import Recognizer
from wanwu.errors import InputError, SetupError
from wanwu.gateway.audit import GENESIS, AuditError, AuditLog, files_of, verify
from wanwu.gateway.audit.head import head_path
from wanwu.gateway.keys import create_key
from wanwu.samples import cat_photo

Line = dict[str, Any]


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def line_of(gateway: Any, answer: Any) -> Line:
    request_id = answer.headers["X-Request-ID"]
    (found,) = (each for each in lines_of(gateway.audit) if each.get("request_id") == request_id)
    return found


def written(path: Path, count: int, rotate_bytes: int = 10**9) -> Path:
    log = AuditLog(path, rotate_bytes=rotate_bytes, fsync=False)
    for number in range(count):
        log.write({"event": "request", "source": f"10.0.0.{number}"})
    log.close()
    return path


def test_a_line_tells_all_but_the_picture(gateway, recognizer: Recognizer) -> None:
    answer = post_picture(
        gateway.url, "/v1/recognize", cat_photo(), {"User-Agent": "shop/1"}, bank="seed18"
    )
    line = line_of(gateway, answer)
    found = recognizer.recognize(cat_photo(), bank="seed18")
    assert line["pictures"] == [
        {
            "sha256": hashlib.sha256(cat_photo()).hexdigest(),
            "bytes": len(cat_photo()),
            "format": "JPEG",
            "width": 451,
            "height": 300,
            "answers": [each.label for each in found.predictions],
            "scores": pytest.approx([each.score for each in found.predictions], abs=1e-5),
        }
    ]
    assert (line["agent"], 1024 <= line["port"] <= 65535) == ("shop/1", True)
    digest = recognizer.contract("seed18").bank.digest
    assert line["bank_digests"] == [digest[:16]]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/recognize", 200)
    assert (line["banks"], line["model"]) == (["seed18"], "wanwu-starter")
    assert line["fingerprint"] == str(recognizer.contract().fingerprint)
    assert line["source"] == line["principal"]["id"] == "127.0.0.1"
    assert line["ms"] > 0


def sha256_16(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_own_labels_are_written_as_hashes(gateway) -> None:
    answer = post_picture(gateway.url, "/v1/recognize", cat_photo(), labels="猫,王小明的身份证")
    line = line_of(gateway, answer)
    hashes = [sha256_16("猫"), sha256_16("王小明的身份证")]
    assert (line["labels"], line["asked_hashes"]) == (2, hashes)
    assert set(line["pictures"][0]["answers_hashes"]) == set(hashes)
    noted = gateway.audit.read_bytes()
    assert "王小明".encode() not in noted


def posted(gateway: Any, path: str, asked: object) -> Line:
    headers, body = {"Content-Type": "application/json"}, json.dumps(asked).encode()
    return line_of(gateway, request(gateway.url + path, "POST", headers=headers, body=body))


def embed(gateway: Any, *texts: str) -> Line:
    return posted(gateway, "/v1/embed", {"texts": texts})


def test_texts_are_written_as_hashes(gateway) -> None:
    assert embed(gateway, "一只猫")["asked_hashes"] == [sha256_16("一只猫")]


def test_a_setting_writes_own_labels_and_texts_as_they_are(server, start_gateway) -> None:
    with start_gateway(server.url, AUDIT_TEXTS="text") as gateway:
        image = base64.b64encode(cat_photo()).decode()
        asked = {"images": [image], "labels": {"猫": ["小猫"], "狗": []}}
        line = posted(gateway, "/v1/recognize", asked)
        embedded = embed(gateway, "一只猫", "x" * 9_000)
    assert (line["labels"], line["asked"]) == (2, ["猫", "小猫", "狗"])
    assert line["pictures"][0]["answers"][0] == "猫"
    # A text that is refused for its length is not written whole.
    assert (embedded["status"], embedded["asked"]) == (422, ["一只猫", "x" * 256])


def test_texts_may_be_hashed_by_sm3(server, start_gateway) -> None:
    with start_gateway(server.url, AUDIT_HASH="sm3") as gateway:
        (asked,) = embed(gateway, "abc")["asked_hashes"]
    assert asked == "sm3:66c7f0f462eeedd9"  # GB/T 32905, example 1


def test_the_settings_are_written_at_the_start_without_secrets(server, start_gateway) -> None:
    keys = "https://user:geheim@issuer.example/keys?token=geheim"
    issuer = {"issuer": "https://issuer.example", "audience": "a", "jwks": keys}
    tokens = ("--issuers", json.dumps([issuer]))
    with start_gateway(server.url, *tokens, MAX_PIXELS=9_000_000) as gateway:
        start = lines_of(gateway.audit)[0]
    assert start["settings"]["max_pixels"] == 9_000_000
    assert start["settings"]["issuers"][0]["jwks"] == "https://issuer.example/keys"
    assert start["triton"] == server.url
    assert start["user"]
    assert b"geheim" not in gateway.audit.read_bytes()


@pytest.mark.parametrize(
    ("method", "path", "data", "status", "code"),
    [
        ("POST", "/predict", b"no picture", 415, "picture_type_unsupported"),
        ("GET", "/predict", None, 405, "method_not_allowed"),
        ("GET", "/nowhere?secret=1", None, 404, "route_unknown"),
        ("GET", "/v1/banks/none/labels", None, 404, "bank_unknown"),
    ],
)
def test_a_refused_request_has_its_line(gateway, method, path, data, status, code) -> None:
    if data is None:
        answer = request(gateway.url + path, method)
    else:
        answer = post_picture(gateway.url, path, data)
    line = line_of(gateway, answer)
    assert (line["status"], line["code"]) == (status, code)
    assert "secret" not in json.dumps(line)


def test_a_line_says_whose_request_it_was_and_how_it_was_refused(
    server, start_gateway, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    key, token = create_key(keys, "前台", ("recognise",))
    with start_gateway(server.url, "--keys-file", str(keys), MAX_BODY_BYTES=100_000) as gateway:

        def line(data: bytes, **headers: str) -> Line:
            return line_of(gateway, post_picture(gateway.url, "/predict", data, headers))

        mine = {"X-API-Key": token}
        who = {"kind": "key", "id": key.id, "name": "前台"}
        assert line(cat_photo(), **mine)["principal"] == who
        damaged, large = line(cat_photo()[:-9000], **mine), line(bytes(200_000), **mine)
        unknown, forged = line(cat_photo()), line(cat_photo(), **{"X-API-Key": token[:-1] + "_"})
    assert (damaged["status"], damaged["code"]) == (422, "picture_damaged")
    assert damaged["pictures"][0]["code"] == "picture_damaged"
    assert (large["status"], large["code"]) == (413, "body_too_large")
    assert damaged["principal"] == large["principal"] == who
    assert (unknown["status"], unknown["code"]) == (401, "credentials_missing")
    assert (forged["status"], forged["code"]) == (401, "credentials_invalid")
    assert "principal" not in unknown | forged
    assert token.encode() not in gateway.audit.read_bytes()


def test_probes_have_no_line(gateway) -> None:
    before = len(lines_of(gateway.audit))
    for path in ("/healthz", "/readyz"):
        assert request(gateway.url + path).status == 200
    assert len(lines_of(gateway.audit)) == before


@pytest.mark.parametrize(
    ("given", "kept"), [("order-7.a_b", True), ("", False), ("x" * 65, False), ("a b", False)]
)
def test_a_callers_request_id_is_kept_where_it_is_plain(gateway, given, kept) -> None:
    answer = request(f"{gateway.url}/v1/banks", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept
    assert lines_of(gateway.audit)[-1]["request_id"] == answer.headers["X-Request-ID"]


def test_forwarded_addresses_are_believed_of_named_proxies_alone(server, start_gateway) -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
    with start_gateway(server.url) as plain:
        assert line_of(plain, request(plain.url, headers=headers))["source"] == "127.0.0.1"
    with start_gateway(server.url, TRUSTED_PROXIES="10.0.0.0/8,127.0.0.1") as behind:
        assert line_of(behind, request(behind.url, headers=headers))["source"] == "203.0.113.7"


def test_the_log_of_a_gateway_verifies_and_goes_on_after_a_restart(server, start_gateway) -> None:
    with start_gateway(server.url) as gateway:
        request(f"{gateway.url}/v1/banks")
        gateway.stop()
    with start_gateway(server.url, audit=gateway.audit) as again:
        request(f"{again.url}/v1/banks")
        again.stop()
    assert [line["event"] for line in lines_of(gateway.audit)] == ["start", "request", "stop"] * 2
    assert verify([gateway.audit]).lines == 6


def test_a_second_gateway_on_the_same_log_does_not_start(gateway, server) -> None:
    command = ["gateway", "--no-auth", "--port", "0", "--url", server.url]
    program = "from wanwu.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--audit", str(gateway.audit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 5
    assert "another process writes it" in done.stderr


def test_standard_output_has_the_lines_and_nothing_else(server, start_gateway) -> None:
    with start_gateway(server.url, audit=Path("-")) as gateway:
        request(f"{gateway.url}/v1/banks")
        gateway.stop()
    lines = [line for line in gateway.log.read_bytes().splitlines() if line.startswith(b"{")]
    assert [json.loads(line)["event"] for line in lines] == ["start", "request", "stop"]


def test_a_gateway_without_a_log_warns(server, start_gateway) -> None:
    with start_gateway(server.url, audit=Path("off")) as gateway:
        assert request(f"{gateway.url}/v1/banks").status == 200
        assert "the audit log is off" in gateway.log.read_text()
    assert not Path("off").exists()


TAMPERED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "another source": lambda all: [*all[:4], all[4].replace(b"10.0.0.4", b"10.0.0.5"), *all[5:]],
    "another time": lambda all: [all[0], all[1].replace(b'"time":"2', b'"time":"1'), *all[2:]],
    "a space": lambda all: [all[0], all[1].replace(b",", b", ", 1), *all[2:]],
    "another hash": lambda all: [*all[:4], all[4][:-5] + b'0"}\n', *all[5:]],
    "a line less": lambda all: [*all[:4], *all[5:]],
    "two lines changed over": lambda all: [*all[:4], all[5], all[4], *all[6:]],
    "a line twice": lambda all: [*all[:4], all[3], *all[4:]],
    "a line of another log": lambda all: [*all[:4], b'{"seq":5}\n', *all[4:]],
    "no end": lambda all: [*all[:-1], all[-1][:-1]],
    "not text": lambda all: [*all[:4], b"\xff\xfe\n", *all[4:]],
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_log_is_found(tmp_path: Path, how: str) -> None:
    path = written(tmp_path / "audit.jsonl", 9)
    assert verify([path]).lines == 9
    before = path.read_bytes()
    path.write_bytes(b"".join(TAMPERED[how](before.splitlines(keepends=True))))
    assert path.read_bytes() != before
    with pytest.raises(InputError, match=r"audit\.jsonl line \d"):
        verify([path])


def test_any_other_byte_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    before = path.read_bytes()
    for place in range(len(before)):
        path.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        with pytest.raises(InputError, match=r"audit\.jsonl line \d"):
            verify([path])


def test_a_line_that_was_put_there_does_not_fit_the_next(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    head_path(path).unlink()
    written(path, 1)  # which fits the three before it
    path.write_bytes(path.read_bytes() + b"".join(lines[3:]))
    with pytest.raises(InputError, match="line 6 is number 4 and does not follow number 5"):
        verify([path])


def test_a_line_hashed_again_does_not_fit_the_next(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    first, second, third = path.read_bytes().splitlines(keepends=True)
    head = second.rpartition(b',"hash"')[0].replace(b"10.0.0.1", b"10.0.0.9")
    digest = hashlib.sha256(head).hexdigest()
    path.write_bytes(first + head + f',"hash":"{digest}"}}\n'.encode() + third)
    with pytest.raises(InputError, match="line 3 is number 3 and does not follow number 2"):
        verify([path])


def run_verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = "from wanwu.cli import main; main()"
    command = [sys.executable, "-c", program, "audit", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_lines_cut_off_the_end_are_found_by_the_last_hash(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    last = verify([path]).last.hash
    assert run_verify(path, "--last", last).returncode == 0
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert run_verify(path, "--chain-only").returncode == 0  # the chain itself is whole
    cut = run_verify(path, "--chain-only", "--last", last)
    assert cut.returncode == 2
    assert "lines are missing at the end" in cut.stderr


def test_files_that_were_set_aside_belong_to_the_chain(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 200, rotate_bytes=10_000)
    files = files_of(path)
    assert len(files) > 3
    assert verify(files).lines == 200
    assert run_verify(path).returncode == 0
    alone = run_verify(path, path)
    assert alone.returncode == 2
    files[1].unlink()
    with pytest.raises(InputError, match="a line is missing"):
        verify(files_of(path))


def test_a_gateway_sets_files_aside_and_goes_on_with_the_chain(server, start_gateway) -> None:
    with start_gateway(server.url, AUDIT_ROTATE_BYTES=10_000) as gateway:
        answers = [request(f"{gateway.url}/v1/banks") for _ in range(80)]
        gateway.stop()
    files = files_of(gateway.audit)
    assert len(files) > 2
    noted = {line.get("request_id") for file in files for line in lines_of(file)}
    assert {answer.headers["X-Request-ID"] for answer in answers} <= noted
    assert run_verify(gateway.audit).returncode == 0


@pytest.mark.parametrize("left", [None, b"", b'{"seq":6,"half'])
def test_the_chain_goes_on_after_an_end_in_the_midst_of_setting_aside(
    tmp_path: Path, left: bytes | None
) -> None:
    path = written(tmp_path / "audit.jsonl", 5)
    path.rename(tmp_path / "audit.000000000005.jsonl")
    if left is not None:
        path.write_bytes(left)
    written(path, 2)
    assert verify(files_of(path)).lines == 7 + bool(left)


def test_the_first_line_that_is_missing_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    assert "lines before number 2 are in other files" in run_verify(path, "--chain-only").stdout


def test_the_beginning_that_was_not_checked_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 200, rotate_bytes=10_000)
    shutil.copy(path, tmp_path / "copy.jsonl")
    found = run_verify(tmp_path / "copy.jsonl", "--chain-only")
    assert "are in other files, which were not checked" in found.stdout


@pytest.mark.parametrize(("content", "says"), [(None, "no audit log"), (b"", "has no line")])
def test_no_log_is_told(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "audit.jsonl").write_bytes(content)
    done = run_verify(tmp_path / "audit.jsonl", "--chain-only")
    assert done.returncode == 2
    assert says in done.stderr


def test_half_a_line_is_removed_and_told(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    with path.open("ab") as file:
        file.write(b'{"seq":4,"half')
    AuditLog(path, rotate_bytes=10**9, fsync=True).close()
    assert lines_of(path)[-1] | {"time": "", "prev": "", "hash": ""} == {
        "seq": 4,
        "time": "",
        "event": "recovered",
        "half_line_bytes": 14,
        "prev": "",
        "hash": "",
    }
    assert verify([path]).lines == 4


def test_half_a_line_on_a_full_disk_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    with path.open("ab") as file:
        file.write(b'{"seq":4,"half')
    with (
        room_for(path, 20),
        pytest.raises(SetupError, match="File too large"),
    ):
        AuditLog(path, rotate_bytes=10**9, fsync=False)
    assert verify([path]).lines == 3


def test_a_log_whose_last_line_was_changed_is_not_continued(tmp_path: Path) -> None:
    path = written(tmp_path / "audit.jsonl", 3)
    path.write_bytes(path.read_bytes().replace(b"10.0.0.2", b"10.0.0.9"))
    with pytest.raises(SetupError, match=r"the last line of .* was changed"):
        AuditLog(path, rotate_bytes=10**9, fsync=False)


@pytest.mark.parametrize("content", [b'{"my":"data"}', b"hello", b"a: 1\nb: 2"])
def test_a_file_of_another_kind_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine").write_bytes(content)
    with pytest.raises(SetupError, match=r"no audit log|no line of an audit log"):
        AuditLog(tmp_path / "mine", rotate_bytes=10**9, fsync=False)
    assert (tmp_path / "mine").read_bytes() == content


@pytest.mark.parametrize("how", ["moved", "removed", "replaced", "emptied", "longer"])
def test_a_log_that_is_taken_away_lets_no_request_through(server, start_gateway, how) -> None:
    with start_gateway(server.url) as gateway:
        log, aside = gateway.audit, gateway.audit.with_name("aside")
        if how in ("moved", "replaced"):
            log.rename(aside)
        if how == "replaced":
            log.touch()
        elif how == "removed":
            log.unlink()
        elif how == "emptied":
            log.write_bytes(b"")
        elif how == "longer":
            log.write_bytes(log.read_bytes() + b"{}\n")
        answer = post_picture(gateway.url, "/predict", cat_photo())
        assert (answer.status, answer.json()["code"]) == (503, "audit_failed")
        assert request(f"{gateway.url}/readyz").status == 503


def test_the_first_line_follows_nothing(tmp_path: Path) -> None:
    assert lines_of(written(tmp_path / "audit.jsonl", 1))[0]["prev"] == GENESIS


def test_half_of_a_surrogate_pair_is_written_as_json_has_it(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", rotate_bytes=10**9, fsync=False)
    log.write({"event": "request", "label": "\ud800"})
    log.close()
    assert lines_of(tmp_path / "audit.jsonl")[0]["label"] == "\ud800"
    assert verify([tmp_path / "audit.jsonl"]).lines == 1


@contextmanager
def room_for(path: Path, size: int, process: int = 0) -> Iterator[None]:
    """Let a process write no file longer than the log is now and `size` bytes more.

    A write past that is cut short, and the next one fails: as on a full disk.
    """
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    held = path.stat().st_size if path.exists() else 0
    resource.prlimit(process, resource.RLIMIT_FSIZE, (held + size, before[1]))
    yield
    resource.prlimit(process, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_lets_no_request_through(server, start_gateway) -> None:
    with start_gateway(server.url) as gateway:

        def predict() -> Any:
            return post_picture(gateway.url, "/predict", cat_photo())

        assert predict().status == 200
        with room_for(gateway.audit, 2_000, gateway.process.pid):
            answers = [predict() for _ in range(8)]
            ready, alive = (request(gateway.url + path).status for path in ("/readyz", "/healthz"))
        assert (ready, alive) == (503, 200)
        assert request(f"{gateway.url}/readyz").status == 200
        assert predict().status == 200
    answered = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert {(each.status, each.json()["code"]) for each in refused} == {(503, "audit_failed")}
    assert len(answered) < len(answers)
    lines = lines_of(gateway.audit)
    assert sum(line.get("route") == "/predict" for line in lines) == len(answered) + 2
    assert verify([gateway.audit]).lines == len(lines)


def test_a_line_that_cannot_be_written_leaves_the_chain_whole(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", rotate_bytes=10**9, fsync=False)
    log.write({"event": "request"})
    with room_for(tmp_path / "audit.jsonl", 50), pytest.raises(AuditError, match="File too large"):
        log.write({"event": "request"})
    log.write({"event": "request"})
    log.close()
    assert verify([tmp_path / "audit.jsonl"]).lines == 2
