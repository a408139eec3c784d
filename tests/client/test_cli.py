from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import wanwu
from wanwu import Recognizer
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.samples import cat_photo

WANWU = Path(sys.executable).with_name("wanwu")

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of one photograph under two names, and a file that is none."""
    (tmp_path / "猫 一.jpg").write_bytes(cat_photo())
    (tmp_path / "猫二.jpg").write_bytes(cat_photo())
    (tmp_path / "坏.jpg").write_bytes("这不是图".encode())
    return tmp_path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `wanwu` in the test's own folder, as a person would."""

    def command(*arguments: str | bytes) -> Result:
        environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [WANWU, *arguments], cwd=tmp_path, env=environment, capture_output=True, timeout=60
        )
        output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert "Traceback" not in errors, errors[-3000:]
        return Result(done.args, done.returncode, output, errors)

    return command


# Without a server


def test_help_lists_every_command(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("recognize", "serve", "export", "doctor", "evaluate", "demo"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", ["recognize", "serve", "export", "doctor", "evaluate", "demo"])
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"wanwu {command}" in done.stdout


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout == f"wanwu {wanwu.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--labels", ""], "label 1 is blank"),
        (["--labels", "猫,,狗"], "label 2 is blank"),
        (["--labels", "猫，猫"], "label 2 '猫' repeats label 1"),
        (["--labels", "长" * 300], "300 characters"),
        (["--labels", "[猫,狗]"], "begin as JSON and are no list of texts"),
        (["--labels-file", "missing.txt"], "there is no label file missing.txt"),
        (["--labels-file", "."], "is a folder"),
        (["--labels", "猫", "--bank", "default"], "--labels and --bank were given together"),
        (["--labels", "猫", "--labels-file", "x"], "--labels and --labels-file were given"),
        (["--url", "http://127.0.0.1:8001"], "starts with http://"),
        (["--url", "triton"], "is not HOST:PORT"),
        (["--timeout-s", "0"], "the timeout is 0"),
        (["--top-k", "0"], "--top-k"),
        (["--format", "xml"], "--format"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_cannot_be_used_ends_with_code_2(run: Run, arguments: list[str], reason: str) -> None:
    done = run("recognize", "猫二.jpg", *arguments)
    assert done.returncode == 2
    assert reason in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["recognize", "doctor"])
def test_a_server_that_is_down_is_told(run: Run, photos: Path, command: str) -> None:
    url = f"127.0.0.1:{free_port()}"
    done = run(command, *(["猫二.jpg"] if command == "recognize" else []), "--url", url)
    assert done.returncode == (3 if command == "recognize" else 1)
    assert f"no Triton answers gRPC at {url}" in done.stderr + done.stdout


def test_the_address_may_come_from_the_environment(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("WANWU_URL", url)
    assert url in run("recognize", "猫二.jpg").stderr


def test_a_repository_that_is_missing_ends_with_code_5(run: Run) -> None:
    done = run("serve", "--model-repository", "nowhere", "--grpc-port", str(free_port()))
    assert done.returncode == 5
    assert "wanwu export starter --output nowhere" in done.stderr


def test_a_model_that_is_not_known_ends_with_code_2(run: Run) -> None:
    done = run("export", "gpt")
    assert done.returncode == 2
    assert "'gpt' names no checkpoint; expected a folder" in done.stderr
    assert "or starter" in done.stderr


# With the real server


def test_labels_may_have_full_width_commas(run: Run, photos: Path, server: EmbeddedServer) -> None:
    labels = "狗，猫,一杯咖啡， 摩托车"
    done = run("recognize", "猫二.jpg", "--labels", labels, "--format", "json", "--url", server.url)
    assert done.returncode == 0, done.stderr
    found = [item["label"] for item in json.loads(done.stdout)[0]["predictions"]]
    assert found[0] == "猫"
    assert set(found) == {"狗", "猫", "一杯咖啡", "摩托车"}


def test_labels_may_be_a_json_list(run: Run, photos: Path, server: EmbeddedServer) -> None:
    options = ("--labels", '["猫", "a, b"]', "--format", "json", "--url", server.url)
    (answer,) = json.loads(run("recognize", "猫二.jpg", *options).stdout)
    assert [each["label"] for each in answer["predictions"]] == ["猫", "a, b"]


def test_doubts_are_told_once_about_labels_and_for_each_picture_about_scores(
    run: Run, photos: Path, server: EmbeddedServer
) -> None:
    pictures = ("猫 一.jpg", "猫二.jpg")
    options = ("--labels", "饕餮,鵸鵌", "--format", "json", "--url", server.url)
    done = run("recognize", *pictures, *options)
    assert done.stderr.count("knows no character of 饕餮、鵸鵌") == 1
    assert all(f"{each}: the scores of all 2 labels" in done.stderr for each in pictures)
    for answer in json.loads(done.stdout):
        assert answer["warnings"][0]["code"] == "labels_unreadable"
        assert answer["uncertain"] is True


def test_a_table_shows_labels_and_shares(run: Run, photos: Path, server: EmbeddedServer) -> None:
    done = run("recognize", "猫 一.jpg", "--labels", "猫,一杯咖啡", "--url", server.url)
    assert done.returncode == 0, done.stderr
    for part in ("猫 一.jpg", "一杯咖啡", "%", "█", " ms"):
        assert part in done.stdout


@pytest.mark.parametrize("name", ["猫[red].jpg", "a[b].jpg", "c[/d].jpg"])
def test_brackets_in_a_file_name_are_shown_as_they_are(
    run: Run, photos: Path, server: EmbeddedServer, name: str
) -> None:
    target = photos / name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(cat_photo())
    done = run("recognize", name, "--labels", "猫,狗", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


def test_brackets_in_a_label_are_shown_as_they_are(
    run: Run, photos: Path, server: EmbeddedServer
) -> None:
    done = run("recognize", "猫二.jpg", "--labels", "[cat]猫,[/b]狗", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "[cat]猫" in done.stdout
    assert "[/b]狗" in done.stdout


def test_a_file_name_that_is_not_utf_8_is_no_crash(
    run: Run, photos: Path, server: EmbeddedServer
) -> None:
    name = "火锅.jpg".encode("gbk")
    (photos / os.fsdecode(name)).write_bytes(cat_photo())
    for form in ("table", "json", "jsonl", "csv"):
        done = run(b"recognize", name, "--labels", "猫,狗", "--format", form, "--url", server.url)
        assert done.returncode == 0, done.stderr
        assert "猫" in done.stdout


def test_a_label_that_is_not_utf_8_ends_with_code_2(
    run: Run, photos: Path, server: EmbeddedServer
) -> None:
    labels = "猫,狗".encode("gbk")
    done = run("recognize", "猫二.jpg", "--labels", labels, "--url", server.url)
    assert done.returncode == 2


def three(run: Run, server: EmbeddedServer, form: str) -> Result:
    names = ("猫 一.jpg", "坏.jpg", "猫二.jpg")
    done = run("recognize", *names, "--format", form, "--top-k", "2", "--url", server.url)
    assert done.returncode == 1, done.stderr
    assert "坏.jpg is not a picture" in done.stderr
    return done


def test_in_a_table_the_others_are_answered(run: Run, photos: Path, server: EmbeddedServer) -> None:
    done = three(run, server, "table")
    assert "猫 一.jpg" in done.stdout
    assert "猫二.jpg" in done.stdout


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_in_json_the_bad_one_carries_its_error_and_the_others_are_answered(
    run: Run, photos: Path, server: EmbeddedServer, form: str
) -> None:
    text = three(run, server, form).stdout
    lines = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert [line["picture"] for line in lines] == ["猫 一.jpg", "坏.jpg", "猫二.jpg"]
    assert [len(line.get("predictions", ())) for line in lines] == [2, 0, 2]
    assert "not a picture" in lines[1]["error"]
    assert int(lines[0]["fingerprint"]) > 0
    assert lines[0]["predictions"] == lines[2]["predictions"]


def test_in_csv_the_bad_one_carries_its_error_and_the_others_are_answered(
    run: Run, photos: Path, server: EmbeddedServer
) -> None:
    rows = list(csv.DictReader(io.StringIO(three(run, server, "csv").stdout)))
    assert [(row["picture"], row["rank"]) for row in rows] == [
        ("猫 一.jpg", "1"),
        ("猫 一.jpg", "2"),
        ("坏.jpg", ""),
        ("猫二.jpg", "1"),
        ("猫二.jpg", "2"),
    ]
    assert "not a picture" in rows[2]["error"]
    assert 0 < float(rows[1]["score"]) <= float(rows[0]["score"]) <= 1


def test_a_bank_that_is_not_served_ends_with_code_3_and_the_served_ones(
    run: Run, photos: Path, server: EmbeddedServer, recognizer: Recognizer
) -> None:
    done = run("recognize", "猫二.jpg", "--bank", "nosuch", "--url", server.url)
    assert done.returncode == 3
    assert f"anks served: {', '.join(recognizer.banks())}" in done.stderr


def test_another_bank_may_be_asked(
    run: Run, photos: Path, server: EmbeddedServer, recognizer: Recognizer
) -> None:
    bank = recognizer.banks()[1]
    done = run("recognize", "猫二.jpg", "--bank", bank, "--format", "jsonl", "--url", server.url)
    answer = json.loads(done.stdout)
    assert answer["banks"] == [bank]
    assert answer["predictions"][0]["label"] in recognizer.labels(bank)


def test_doctor_finds_nothing_wrong(run: Run, server: EmbeddedServer) -> None:
    done = run("doctor", "--url", server.url)
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    for part in ("ok   server", "ok   model text_encoder", "ok   fingerprint", "ok   picture"):
        assert part in done.stdout


def test_evaluate_gives_its_figures_and_the_pictures_that_failed(
    run: Run, photos: Path, server: EmbeddedServer
) -> None:
    (photos / "truth.csv").write_text("file,label\n猫二.jpg,猫\n坏.jpg,狗\n", encoding="utf-8")
    options = ("--truth", "truth.csv", "--truth-labels", "--format", "json")
    done = run("evaluate", ".", *options, "--url", server.url)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert (report["pictures"], report["labels"], report["top_1"]) == (1, 2, 1.0)
    assert "坏.jpg" in report["failures"][0]


def test_a_reader_that_stops_early_is_no_crash(photos: Path, server: EmbeddedServer) -> None:
    (photos / "坏.jpg").unlink()
    for number in range(60):
        (photos / f"{number}.jpg").write_bytes(cat_photo())
    command = [WANWU, "recognize", ".", "--format", "jsonl", "--url", server.url]
    with subprocess.Popen(
        command, cwd=photos, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(30) == 1


def test_answers_go_into_a_file_and_a_second_run_goes_on(
    run: Run, photos: Path, server: EmbeddedServer
) -> None:
    command = ("recognize", ".", "--bank", "seed18", "--url", server.url, "--output", "a.jsonl")
    done = run(*command)
    assert done.returncode == 1  # one of the three is no picture
    lines = [json.loads(line) for line in (photos / "a.jsonl").read_text("utf-8").splitlines()]
    assert [line["picture"] for line in lines] == ["./坏.jpg", "./猫 一.jpg", "./猫二.jpg"]
    assert "error" in lines[0]
    (photos / "猫三.jpg").write_bytes(cat_photo())
    done = run(*command, "--resume")
    assert done.returncode == 0
    assert "3 of 4 pictures are done already" in done.stderr
    assert len((photos / "a.jsonl").read_text("utf-8").splitlines()) == 4
    assert run(*command, "--bank", "seed18", "--resume").returncode == 0  # twice is once
    other = run("recognize", ".", "--url", server.url, "--output", "a.jsonl", "--resume")
    assert other.returncode == 2
    assert "this run asks" in other.stderr


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_embeddings_of_pictures_and_texts_are_written(
    run: Run, photos: Path, server: EmbeddedServer, recognizer: Recognizer, name: str
) -> None:
    done = run("embed", ".", "--output", name, "--url", server.url)
    assert done.returncode == 1
    assert "坏.jpg" in done.stderr
    names, rows, fingerprint = read_vectors(photos / name)
    assert names == ["./猫 一.jpg", "./猫二.jpg"]
    assert fingerprint == str(recognizer.contract().fingerprint)
    np.testing.assert_allclose(rows[0], recognizer.embed_image(cat_photo()), atol=1e-4)
    again = run("embed", "--labels", "猫,狗", "--output", name, "--url", server.url)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    (photos / name).unlink()
    assert run("embed", "--labels", "猫,狗", "--output", name, "--url", server.url).returncode == 0
    names, rows, _ = read_vectors(photos / name)
    assert names == ["猫", "狗"]
    np.testing.assert_allclose(rows, recognizer.embed_texts(["猫", "狗"]), atol=1e-4)


def read_vectors(path: Path) -> tuple[list[str], np.ndarray, str]:
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return stored["name"].tolist(), stored["embedding"], str(stored["fingerprint"])
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    rows = np.array(table["embedding"].to_pylist(), np.float32)
    return table["name"].to_pylist(), rows, table.schema.metadata[b"fingerprint"].decode()
