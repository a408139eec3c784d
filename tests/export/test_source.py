"""Sources of checkpoints: folders, and both hubs' real clients against a server on loopback."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

from wanwu.errors import InputError, SetupError
from wanwu_export.checkpoint.source import Checkpoint, check_files, locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
LOCATE = """
import dataclasses, json, sys
from wanwu.errors import WanwuError
from wanwu_export.checkpoint.source import locate
try:
    found = dataclasses.asdict(locate(sys.argv[1], **json.loads(sys.argv[2])))
except WanwuError as error:
    found = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(found, default=str))
"""
NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
"""

Locate = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The smallest whole checkpoint: its weights are real, the rest is what is looked at."""
    folder = tmp_path / "tiny-clip"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "chinese_clip"}')
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "vocab.txt").write_text("[UNK]\n猫\n")
    write_weights(folder / "model.safetensors")
    return folder


def write_weights(path: Path) -> None:
    save_file({"weight": np.arange(12, dtype=np.float32)}, path)


def shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    names = {f"layer.{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    for name in names.values():
        write_weights(folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK pickled")


# --- folders


def test_a_folder_is_located_with_a_hash_of_what_it_holds(folder: Path) -> None:
    found = locate(str(folder))
    assert found == Checkpoint(
        folder, "tiny-clip", found.revision, "folder", licence="unknown", pickled=False
    )
    assert len(found.revision) == len("sha256:") + 12
    assert found.revision == locate(f"{folder}/").revision


@pytest.mark.parametrize("changed", ["config.json", "model.safetensors"])
def test_the_hash_of_a_folder_follows_its_config_and_weights(folder: Path, changed: str) -> None:
    before = locate(str(folder)).revision
    (folder / "vocab.txt").write_text("[UNK]\n狗\n")
    assert locate(str(folder)).revision == before
    if changed == "config.json":
        (folder / changed).write_text('{"model_type": "clip"}')
    else:
        save_file({"weight": np.ones(12, dtype=np.float32)}, folder / changed)
    assert locate(str(folder)).revision != before


def test_a_folder_wins_over_a_repository_of_the_same_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "org").mkdir()
    folder.rename(folder.parent / "org" / "model")
    monkeypatch.chdir(folder.parent)
    assert locate("org/model").source == "folder"
    monkeypatch.chdir("org/model")
    assert locate(".").name == "model"


def test_a_folder_of_links_is_located_as_its_files_are(folder: Path) -> None:
    linked = folder.parent / "linked"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    assert locate(str(linked)).revision == locate(str(folder)).revision


def test_a_folder_with_shards_is_whole_when_every_shard_is_there(folder: Path) -> None:
    shard(folder)
    assert [path.name for path in check_files(folder)] == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of the 2 .* model-00002-of-00002\.safetensors;"):
        check_files(folder)


def test_pickled_weights_are_refused_unless_they_are_allowed(folder: Path) -> None:
    pickle(folder)
    with pytest.raises(InputError, match=r"pytorch_model.bin\), which can run code .*allow-pickle"):
        locate(str(folder))
    assert check_files(folder, allow_pickle=True)[1].name == "pytorch_model.bin"


def test_safetensors_are_preferred_to_pickled_weights(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"PK pickled")
    assert check_files(folder, allow_pickle=True)[1].name == "model.safetensors"


@pytest.mark.parametrize(
    "tokenizer",
    [
        ["tokenizer.json"],
        ["vocab.json", "merges.txt"],
        ["spiece.model"],
        ["sentencepiece.bpe.model"],
        ["tokenizer.model"],
    ],
)
def test_every_kind_of_tokenizer_will_do(folder: Path, tokenizer: list[str]) -> None:
    (folder / "vocab.txt").unlink()
    for name in tokenizer:
        with pytest.raises(InputError, match=r"no tokenizer; .* vocab.json\+merges.txt"):
            check_files(folder)
        (folder / name).write_text("{}")
    check_files(folder)


def test_a_processor_config_of_either_name_will_do(folder: Path) -> None:
    (folder / "preprocessor_config.json").rename(folder / "processor_config.json")
    check_files(folder)
    (folder / "processor_config.json").unlink()
    with pytest.raises(InputError, match=r"neither preprocessor_config\.json nor processor_"):
        check_files(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no config.json"),
        (b"", "config.json is no JSON"),
        (b"\xff\xfe{", "config.json is no JSON"),
        (b"[1]", "holds a JSON list; expected an object"),
        (b"{}", "has no model_type"),
        (b'{"model_type": 7}', "has no model_type"),
        (POINTER, "config.json is a Git LFS pointer"),
    ],
)
def test_a_config_that_names_no_model_type_is_refused(
    folder: Path, content: bytes | None, message: str
) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        check_files(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"", "is cut short or no safetensors file"),
        (lambda whole: whole[:20], "is cut short or no safetensors file"),
        (lambda whole: whole[:-1], "is cut short or no safetensors file"),
        (lambda whole: b"x" * 100, "is cut short or no safetensors file"),
        (lambda whole: POINTER, "model.safetensors is a Git LFS pointer .* `git lfs pull`"),
    ],
)
def test_weights_that_are_not_whole_are_refused(
    folder: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        check_files(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "vocab.txt", "preprocessor_config.json"])
def test_a_pointer_in_place_of_any_file_is_refused(folder: Path, name: str) -> None:
    pickle(folder)
    (folder / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=f"{name} is a Git LFS pointer"):
        check_files(folder, allow_pickle=True)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        (
            '{"weight_map": {"a": "../model.safetensors"}}',
            "expected .safetensors files of its own folder",
        ),
        ('{"weight_map": {"a": "pytorch_model.bin"}}', "safetensors files of its own folder"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "lacks 1 of the 1"),
        ('{"weight_map": {"a": null}}', "safetensors files of its own folder"),
    ],
)
def test_an_index_that_lists_no_shards_of_the_folder_is_refused(
    folder: Path, index: str, message: str
) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=message):
        check_files(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"has no weights; expected model\.safetensors"):
        check_files(folder)


def test_a_link_to_nothing_is_a_missing_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "gone")
    with pytest.raises(InputError, match="has no weights"):
        check_files(folder)


def test_a_revision_of_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"--revision v1 was given and .* is a folder"):
        locate(str(folder), revision="v1")


@pytest.mark.parametrize("form", ["./a", "../a", "/nowhere/a", "~/a", "~nobody/a", "a/", "a/b/c"])
def test_a_path_to_nothing_is_not_looked_up_on_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"there is no folder {form}"):
        locate(form)


def test_a_file_is_no_checkpoint(folder: Path) -> None:
    with pytest.raises(InputError, match=r"model\.safetensors is a file; expected the folder"):
        locate(str(folder / "model.safetensors"))


@pytest.mark.parametrize(
    "source", ["", " ", "foo", "modelscope:", "modelscope:foo", "中/文", "-a/b", "hf:a/b", "a b/c"]
)
def test_a_source_of_no_known_form_is_told_the_forms(source: str) -> None:
    forms = "a folder, ORG/NAME, modelscope:ORG/NAME or starter"
    with pytest.raises(InputError, match=f"names no checkpoint; expected {forms}"):
        locate(source)


def test_a_name_too_long_for_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="there is no folder"):
        locate("a/" + "b" * 5000)


@pytest.mark.parametrize("from_hub", [False, True], ids=["folder", "hub"])
def test_the_network_is_touched_for_a_hub_and_never_for_a_folder(
    folder: Path, closed_port: str, from_hub: bool
) -> None:
    source = "org/model" if from_hub else str(folder)
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", NO_NETWORK + LOCATE, source, "{}"],
        env={**os.environ, "HF_ENDPOINT": closed_port, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
    )
    if from_hub:  # the guard does see what a client does
        assert "socket.getaddrinfo" in completed.stderr
    else:
        assert json.loads(completed.stdout)["source"] == "folder"


# --- hubs


class Request(NamedTuple):
    method: str
    path: str
    agent: str


class Hub(ThreadingHTTPServer):
    """What both hubs' clients ask for, over the files of one folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.folder = folder
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def names_asked_for(self) -> set[str]:
        """The names of the files whose content was asked for, on either hub."""
        urls = [urlsplit(request.path) for request in self.requests]
        named = {Path(url.path).name for url in urls if "/resolve/" in url.path}
        return named.union(*(parse_qs(url.query).get("FilePath", []) for url in urls))


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        agent = self.headers.get("User-Agent", "")
        self.server.requests.append(Request(self.command, self.path, agent))
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path.startswith("/api/v1/"):
            self.modelscope(path, {key: value[0] for key, value in parse_qs(url.query).items()})
        else:
            self.hub(path)

    def hub(self, path: str) -> None:
        if "/absent" in path:
            self.fail(404, "RepoNotFound")
        elif "/hidden" in path:  # what the hub answers on absent models to who has no token
            self.fail(401, "RepoNotFound")
        elif "/wrong-token" in path:
            self.fail(401, "", "Invalid credentials in Authorization header")
        elif "/portal" in path:
            self.answer(b"<html>please log in to this wireless network</html>", "text/html")
        elif "/broken" in path:
            self.fail(501, "")
        elif "/revision/" in path and not path.endswith(("/main", "/v1", COMMIT)):
            self.fail(404, "RevisionNotFound")
        elif "/resolve/" in path and "/gated" in path:
            self.fail(403, "GatedRepo")
        elif "/revision/" in path:
            siblings = [{"rfilename": str(file.name)} for file in self.server.files()]
            self.answer_json({"id": "org/model", "sha": COMMIT, "siblings": siblings})
        elif "/tree/" in path:
            self.answer_json([self.entry(file) for file in self.server.files()])
        else:
            self.answer((self.server.folder / path.partition(f"/{COMMIT}/")[2]).read_bytes())

    def entry(self, file: Path) -> dict[str, object]:
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        path = file.relative_to(self.server.folder).as_posix()
        both = {"type": "file", "path": path, "size": len(content), "oid": digest[:40]}
        return {**both, "Type": "blob", "Path": path, "Size": len(content), "Sha256": digest}

    def modelscope(self, path: str, query: dict[str, str]) -> None:
        if "/absent" in path or query.get("Revision") not in ("master", "v1"):
            self.fail(404, "", "Not found")
        elif "/gated" in path and "FilePath" in query:
            self.fail(403, "", "Access denied")
        elif path.endswith("/repo/files"):
            files = [self.entry(file) for file in self.server.files()]
            self.answer_json({"Code": 200, "Data": {"Files": files}})
        else:
            self.answer((self.server.folder / query["FilePath"]).read_bytes())

    def fail(self, status: int, code: str, message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        content = json.dumps({"Code": status, "Message": message, "error": message}).encode()
        self.answer(content, "application/json", status, headers)

    def answer_json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), "application/json")

    def answer(
        self,
        content: bytes,
        kind: str = "application/octet-stream",
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    """A hub that has the checkpoint, and beside it what must never be fetched."""
    (folder / "onnx").mkdir()
    for name in (
        "modeling_evil.py",
        "training_args.bin",
        "pytorch_model.bin",
        "flax_model.msgpack",
        "tf_model.h5",
        "model.onnx",
        "clip.pt",
        "onnx/config.json",
        "onnx/model.safetensors",
    ):
        (folder / name).write_bytes(b"never to be fetched")
    with Hub(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def locate_with(tmp_path: Path) -> Locate:
    """Give a function that locates in a new process: the clients read settings at import."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "MODELSCOPE_", "TRANSFORMERS_"))
        and not name.lower().endswith("_proxy")
    }
    homes = {
        name: str(tmp_path / name)
        for name in ("HOME", "HF_HOME", "MODELSCOPE_CACHE", "MODELSCOPE_HOME")
    }

    def run(source: str, settings: dict[str, str], **options: object) -> dict[str, str]:
        command = [sys.executable, "-W", "error", "-c", LOCATE, source, json.dumps(options)]
        completed = subprocess.run(
            command, env={**kept, **homes, **settings}, capture_output=True, text=True, timeout=60
        )
        assert "Traceback" not in completed.stderr
        found: dict[str, str] = json.loads(completed.stdout)
        return found

    return run


FETCHED = {"config.json", "model.safetensors", "preprocessor_config.json", "vocab.txt"}


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_checkpoint_is_fetched_from_the_hub_at_a_commit(
    hub: Hub, locate_with: Locate, revision: str
) -> None:
    found = locate_with("org/model", {"HF_ENDPOINT": hub.url}, revision=revision)
    assert (found["name"], found["revision"], found["source"]) == ("org/model", COMMIT, "hub")
    assert {path.name for path in Path(found["folder"]).iterdir()} == FETCHED
    assert (Path(found["folder"]) / "config.json").is_symlink()
    assert hub.names_asked_for() == FETCHED


def test_the_hub_is_told_no_more_than_it_must_know(hub: Hub, locate_with: Locate) -> None:
    found = locate_with("org/model", {"HF_ENDPOINT": hub.url})
    assert found["revision"] == COMMIT
    assert not [request for request in hub.requests if "telemetry" in request.path]
    assert not [request for request in hub.requests if "torch" in request.agent]
    assert {request.method for request in hub.requests} == {"HEAD", "GET"}


def test_pickled_weights_are_fetched_from_the_hub_only_when_allowed(
    hub: Hub, locate_with: Locate
) -> None:
    (hub.folder / "model.safetensors").unlink()
    refused = locate_with("org/model", {"HF_ENDPOINT": hub.url})
    assert refused["error"] == "InputError"
    assert "has no weights" in refused["message"]
    assert "--allow-pickle" in refused["message"]
    assert not [name for name in hub.names_asked_for() if name.endswith((".bin", ".py"))]
    found = locate_with("org/model", {"HF_ENDPOINT": hub.url}, allow_pickle=True)
    assert (Path(found["folder"]) / "pytorch_model.bin").is_file()
    assert not [name for name in hub.names_asked_for() if name.endswith(".py")]


def test_a_fetched_checkpoint_is_found_again_without_network(hub: Hub, locate_with: Locate) -> None:
    first = locate_with("org/model", {"HF_ENDPOINT": hub.url})
    asked = len(hub.requests)
    again = locate_with("org/model", {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"})
    assert again == first
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("org/absent", {}, "InputError", "neither a folder org/absent here nor a model"),
        ("org/hidden", {}, "InputError", "HF_TOKEN if the model is private"),
        ("org/a--b", {}, "InputError", "neither a folder org/a--b here nor a model"),
        ("org/model", {"revision": "v9"}, "InputError", "org/model has no revision v9"),
        ("org/gated", {}, "SetupError", "does not let you read org/gated"),
        ("org/wrong-token", {}, "SetupError", "your token in HF_TOKEN"),
        ("org/portal", {}, "SetupError", "org/portal could not be fetched"),
        ("org/broken", {}, "SetupError", "org/broken could not be fetched"),
    ],
)
def test_what_the_hub_refuses_is_told_in_our_words(
    hub: Hub,
    locate_with: Locate,
    name: str,
    options: dict[str, str],
    error: str,
    message: str,
) -> None:
    found = locate_with(name, {"HF_ENDPOINT": hub.url}, **options)
    assert found["error"] == error
    assert message in found["message"]
    assert "\n" not in found["message"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "mirror.invalid"}],
    ids=["refused", "offline", "no-scheme"],
)
def test_a_hub_out_of_reach_is_told_with_the_ways_around(
    locate_with: Locate, closed_port: str, settings: dict[str, str]
) -> None:
    found = locate_with("org/model", {"HF_ENDPOINT": closed_port, **settings})
    assert found["error"] == "SetupError"
    assert "org/model could not be fetched (" in found["message"]
    assert "fetch it on a machine that has network and give the folder" in found["message"]
    assert "HF_ENDPOINT" in found["message"]


# --- ModelScope


@pytest.fixture
def _modelscope(need: Callable[[bool, str], None]) -> None:
    available = importlib.util.find_spec("modelscope_hub") is not None
    need(available, "ModelScope client: pip install modelscope-hub")


@pytest.mark.usefixtures("_modelscope")
@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_checkpoint_is_fetched_from_modelscope_and_hashed(
    hub: Hub, locate_with: Locate, revision: str | None
) -> None:
    found = locate_with("modelscope:org/model", {"MODELSCOPE_ENDPOINT": hub.url}, revision=revision)
    assert (found["name"], found["source"]) == ("org/model", "modelscope")
    assert {path.name for path in Path(found["folder"]).iterdir()} == FETCHED
    assert found["revision"] == f"{revision or 'master'}@{locate(found['folder']).revision}"
    assert hub.names_asked_for() == FETCHED
    assert {urlsplit(request.path).path for request in hub.requests} == {
        "/api/v1/models/org/model/repo/files",
        "/api/v1/models/org/model/repo",
    }


@pytest.mark.usefixtures("_modelscope")
@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("org/absent", {}, "InputError", "no model org/absent with a revision master"),
        ("org/model", {"revision": "v9"}, "InputError", "no model org/model with a revision v9"),
        ("org/gated", {}, "SetupError", "does not let you read org/gated"),
    ],
)
def test_what_modelscope_refuses_is_told_in_our_words(
    hub: Hub,
    locate_with: Locate,
    name: str,
    options: dict[str, str],
    error: str,
    message: str,
) -> None:
    found = locate_with(f"modelscope:{name}", {"MODELSCOPE_ENDPOINT": hub.url}, **options)
    assert found["error"] == error
    assert message in found["message"]
    assert "\n" not in found["message"]


@pytest.mark.usefixtures("_modelscope")
def test_modelscope_out_of_reach_is_told_with_the_ways_around(
    locate_with: Locate, closed_port: str
) -> None:
    settings = {"MODELSCOPE_ENDPOINT": closed_port, "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1"}
    found = locate_with("modelscope:org/model", settings)
    assert found["error"] == "SetupError"
    assert "modelscope:org/model could not be fetched (" in found["message"]
    assert "MODELSCOPE_ENDPOINT" in found["message"]


def test_a_missing_modelscope_client_is_told_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(SetupError, match="run: pip install modelscope-hub"):
        locate("modelscope:org/model")
