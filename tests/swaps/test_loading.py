"""A running Triton follows the model repository while clients use it."""

from __future__ import annotations

import importlib.util
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from support.serving import server_options
from support.tiny import tiny_tower
from wanwu import ModelError, Recognition, Recognizer, ServerError, SetupError
from wanwu.embedded.admin import default_key_file
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.loading import find_admin_key, load_published
from wanwu.repository import check_repository, newest_release

Need = Callable[[bool, str], None]

MODELS = {"image_encoder", "text_encoder", "label_bank", "label_bank_pets"}
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
CLIENTS = 3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Path:
    """A repository whose version 2 is of another model than its version 1."""
    need(importlib.util.find_spec("torch") is not None, "torch: pip install 'wanwu[export]'")
    from wanwu_export import parity
    from wanwu_export.banks import BankPlan
    from wanwu_export.concepts import Concept
    from wanwu_export.publish import publish

    folder = tmp_path_factory.mktemp("loading") / "model_repository"
    banks = [
        BankPlan(name, [Concept("猫"), Concept("狗")], None, "2026-11-22")
        for name in ("default", "pets")
    ]
    with pytest.MonkeyPatch.context() as patch:
        # Both gates try the same pictures, and encoding them takes longer than a tiny tower.
        patch.setattr(parity, "parity_pictures", cache(parity.parity_pictures))
        for seed in (0, 1):
            publish(tiny_tower(seed), banks, folder, step=lambda text: None)
    return folder


@pytest.fixture(scope="module")
def server(exported: Path, need: Need) -> Iterator[EmbeddedServer]:
    """A Triton of this file's own over that repository, which the tests change."""
    need(importlib.util.find_spec("pytriton") is not None, "Triton: pip install 'wanwu[server]'")
    options = server_options(exported, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as running:
        yield running


def build_bank(repository: Path, name: str, *labels: str, opset: int | None = None) -> int:
    """Publish a bank; with another operator set it is one that Triton cannot load."""
    from wanwu_export.banks import BankPlan, published_builder
    from wanwu_export.concepts import Concept
    from wanwu_export.store import writing

    plan = BankPlan(name, [Concept(label) for label in labels], None, "2026-11-23")
    with writing(repository) as workshop:
        release = newest_release(repository)
        builder = published_builder(repository, release)
        built = builder.build(plan, workshop, lambda bank, done, total: None)
        if opset is not None:
            path = workshop.staged / f"label_bank_{name}" / "version" / "model.onnx"
            model = onnx.load(path)
            model.opset_import[0].version = opset
            onnx.save(model, path)
        draft = msgspec.structs.replace(release, banks={**release.banks, name: built})
        return workshop.commit(draft, keep=9).version


def load(server: EmbeddedServer, repository: Path) -> list[str]:
    return load_published(server.url, server.admin_key, repository, 60)


class Clients:
    """Clients that recognise in a loop, and what they got."""

    def __init__(self, url: str) -> None:
        self.answers: list[Recognition] = []
        self.failures: list[BaseException] = []
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(url, labels))
            for labels in [None, None, ("猫", "狗")][:CLIENTS]
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for_more(self) -> None:
        """Wait until every client has had time to answer once more."""
        wanted, deadline = len(self.answers) + 2 * CLIENTS, time.monotonic() + 30
        while len(self.answers) < wanted and not self.failures and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self, url: str, labels: tuple[str, ...] | None) -> None:
        with Recognizer(url, timeout_s=30, refresh_s=0.2) as client:
            while not self._ending.is_set():
                try:
                    self.answers.append(client.recognize(PICTURE, labels=labels))
                except BaseException as error:
                    self.failures.append(error)
                    return


def test_no_request_fails_while_the_server_follows_the_repository(
    exported: Path, server: EmbeddedServer
) -> None:
    from wanwu_export.versions import remove_bank, rollback

    newest = newest_release(exported)
    with Clients(server.url) as clients, Recognizer(server.url, refresh_s=0) as probe:
        clients.wait_for_more()
        assert build_bank(exported, "food", "鸟") == 3
        assert load(server, exported) == ["label_bank_food 3 is new"]
        assert probe.labels("food") == ("鸟",)
        clients.wait_for_more()

        assert build_bank(exported, "food", "鸟", "猫") == 4
        assert load(server, exported) == ["label_bank_food 3 → 4"]
        assert probe.labels("food") == ("鸟", "猫")

        assert remove_bank(exported, "food", 9) == 5
        assert load(server, exported) == ["label_bank_food 4 is no longer served"]
        assert probe.banks() == ("default", "pets")
        clients.wait_for_more()
        assert {answer.fingerprint for answer in clients.answers} == {newest.fingerprint}

        back = rollback(exported, 1, keep=9)
        assert set(load(server, exported)) == {f"{model} 2 → 6" for model in MODELS}
        assert probe.contract().fingerprint == back.release.fingerprint
        clients.wait_for_more()
        assert load(server, exported) == []
        clients.wait_for_more()
    assert clients.failures == []
    assert {answer.fingerprint for answer in clients.answers[-2 * CLIENTS :]} == {
        back.release.fingerprint
    }
    assert back.release.fingerprint != newest.fingerprint


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_serving(
    exported: Path, server: EmbeddedServer
) -> None:
    from wanwu_export.versions import rollback

    load(server, exported)
    before = newest_release(exported).served["label_bank_pets"]
    version = build_bank(exported, "many", *(f"鸟{number}" for number in range(2000)))
    build_bank(exported, "pets", "鸟", opset=999)
    with pytest.raises(ModelError, match="label_bank_pets could not be loaded") as told:
        load(server, exported)
    assert "999" in str(told.value)  # Triton's own reason
    assert f"changed before it: label_bank_many {version} is new" in str(told.value)
    with Recognizer(server.url) as client:
        assert client.labels("pets") == ("猫", "狗")
        assert client.recognize(PICTURE, bank="pets").banks == ("pets",)
    fixed = rollback(exported, version, keep=9).version
    assert load(server, exported) == [f"label_bank_pets {before} → {fixed}"]


def test_a_damaged_repository_is_not_loaded(
    exported: Path, server: EmbeddedServer, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(exported, damaged)
    release = newest_release(damaged)
    path = damaged / "text_encoder" / str(release.served["text_encoder"]) / "model.onnx"
    path.write_bytes(b"half")
    with pytest.raises(SetupError, match="has 4 bytes"):
        load(server, damaged)
    assert check_repository(exported) == release


def test_a_server_over_another_repository_is_told(
    exported: Path, server: EmbeddedServer, tmp_path: Path
) -> None:
    load(server, exported)
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    build_bank(other, "pets", "狗", "鸟")
    with pytest.raises(ModelError, match=r"of label_bank_pets, and version .* --model-repository"):
        load(server, other)


@pytest.mark.parametrize("url", ["127.0.0.1", "localhost", "ipv4:127.0.0.1", "dns:///localhost"])
def test_the_key_that_serve_keeps_is_found(
    exported: Path, server: EmbeddedServer, url: str
) -> None:
    port = server.options.grpc_port
    path = default_key_file(port)
    path.parent.mkdir(parents=True)
    path.write_text(server.admin_key)
    load_published(f"{url}:{port}", None, exported, 60)


def test_the_key_may_come_from_the_environment(
    exported: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANWU_ADMIN_KEY", server.admin_key)
    load_published(server.url, None, exported, 60)


def test_a_missing_key_is_a_setup_error(exported: Path, server: EmbeddedServer) -> None:
    with pytest.raises(SetupError, match=r"none was found .*admin-key-\d+: No such file") as told:
        load_published(server.url, None, exported, 60)
    assert "--admin-key or WANWU_ADMIN_KEY" in str(told.value)


def test_a_wrong_key_is_a_server_error(exported: Path, server: EmbeddedServer) -> None:
    with pytest.raises(ServerError, match="refused the admin key") as told:
        load_published(server.url, "wrong", exported, 60)
    assert "wrong" not in str(told.value)


def test_a_server_that_is_down_is_a_server_error(exported: Path) -> None:
    url = f"127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match=f"no Triton answers gRPC at {url}"):
        load_published(url, "key", exported, 60)


@pytest.mark.parametrize("host", ["10.1.2.3", "triton", "dns:///triton.example"])
def test_the_kept_key_is_not_sent_to_another_machine(host: str) -> None:
    path = default_key_file(8001)
    path.parent.mkdir(parents=True)
    path.write_text("secret")
    assert find_admin_key(None, "127.0.0.1:8001").key == "secret"
    found = find_admin_key(None, f"{host}:8001")
    assert found.key is None
    assert "another machine" in found.source
    assert find_admin_key("given", f"{host}:8001").key == "given"
