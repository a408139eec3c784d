"""A new version is loaded while clients run: no request fails, no score mixes two versions."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
import tritonclient.grpc as triton

from wanwu import ModelError, Recognition, Recognizer
from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
from wanwu.repository import Manifest, read_manifest, write_manifest
from wanwu.samples import cat_photo, sample_photos
from wanwu_export.dual_tower import BankSource, DualTower
from wanwu_export.publish import publish
from wanwu_export.starter.joining import JoinedClassifier

CLIENTS = 8
OWN_LABELS = ("猫", "汽车", "咖啡", "宫殿")


def permuted(tower: DualTower, banks: list[BankSource]) -> tuple[DualTower, list[BankSource]]:
    """Make a second version that answers the same, and nonsense when mixed with the first.

    Class i gets the description of class p(i), and row p(i) of the bank gets the label of class i.
    """
    places = torch.roll(torch.arange(1000), 500)
    joined = tower.image[1]
    assert isinstance(joined, JoinedClassifier)
    descriptions = joined.descriptions[places]
    image = torch.nn.Sequential(tower.image[0], JoinedClassifier(joined.classifier, descriptions))
    default = banks[0]
    concepts = [default.concepts[int(place)] for place in torch.argsort(places)]
    model = msgspec.structs.replace(tower.model, revision="2")
    second = replace(tower, image=image.eval(), model=model)
    return second, [replace(default, concepts=concepts), *banks[1:]]


@pytest.fixture(scope="module")
def two_versions(
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    starter: tuple[DualTower, list[BankSource]],
) -> Path:
    """A repository with both versions published."""
    folder = tmp_path_factory.mktemp("swap") / "model_repository"
    shutil.copytree(repository, folder)
    published = publish(*permuted(*starter), folder, step=lambda text: None)
    assert published.version == 2
    return folder


@pytest.fixture
def first_version(two_versions: Path, tmp_path: Path) -> Iterator[tuple[EmbeddedServer, Path]]:
    """A server that knows version 1 only, and its repository."""
    folder = tmp_path / "model_repository"
    shutil.copytree(two_versions, folder, ignore=shutil.ignore_patterns("2", "manifest.json"))
    both = read_manifest(two_versions)
    assert both is not None
    write_manifest(folder, Manifest(exports={"1": both.exports["1"]}))
    options = ServerOptions(folder, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as server:
        yield server, folder


def add_second_version(two_versions: Path, folder: Path, models: tuple[str, ...]) -> None:
    for model in models:
        shutil.copytree(two_versions / model / "2", folder / model / "2")


def load(server: EmbeddedServer, model: str) -> None:
    with triton.InferenceServerClient(server.url) as admin:
        admin.load_model(model, headers=server.admin_headers)


MODELS = ("image_encoder", "text_encoder", "label_bank", "label_bank_seed18", "label_bank_luxury")


@pytest.mark.parametrize("order", [MODELS, MODELS[::-1]], ids=["towers first", "banks first"])
def test_no_request_fails_and_no_answer_mixes_versions(
    two_versions: Path, first_version: tuple[EmbeddedServer, Path], order: tuple[str, ...]
) -> None:
    server, folder = first_version
    photos = [cat_photo(), *(photo.read_bytes() for photo in sample_photos())]
    answers: list[tuple[int, bool, Recognition]] = []
    failures: list[BaseException] = []
    ending = threading.Event()

    def call(client: Recognizer, own: bool) -> None:
        while not ending.is_set():
            for place, photo in enumerate(photos):
                try:
                    labels = OWN_LABELS if own else None
                    answer = client.recognize(photo, labels=labels, top_k=1)
                    answers.append((place, own, answer))
                except BaseException as error:
                    failures.append(error)
                    return

    with Recognizer(server.url) as probe:
        expected = expected_answers(probe, photos)
        clients = [Recognizer(server.url, timeout_s=30) for _ in range(CLIENTS)]
        threads = [
            threading.Thread(target=call, args=(client, number % 4 == 0))
            for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        add_second_version(two_versions, folder, MODELS)
        for model in order:
            load(server, model)
        time.sleep(2.0)
        ending.set()
        for thread in threads:
            thread.join(60)
        expected |= expected_answers(probe, photos)
    assert failures == []
    wrong = [
        (place, own, answer.top.label)
        for place, own, answer in answers
        if answer.top.label != expected[answer.fingerprint, own, place]
    ]
    assert wrong == []
    first, second = dict.fromkeys(answer.fingerprint for _, _, answer in answers)
    assert first != second
    by_bank = [(expected[first, False, n], expected[second, False, n]) for n in range(len(photos))]
    assert all(one == two for one, two in by_bank)
    own = [(expected[first, True, n], expected[second, True, n]) for n in range(len(photos))]
    assert any(one != two for one, two in own)  # the two versions really differ


def expected_answers(client: Recognizer, photos: list[bytes]) -> dict[tuple[int, bool, int], str]:
    """Ask at rest, when one version alone is served."""
    expected = {}
    for place, photo in enumerate(photos):
        for own in (False, True):
            answer = client.recognize(photo, labels=OWN_LABELS if own else None, top_k=1)
            expected[answer.fingerprint, own, place] = answer.top.label
    return expected


def test_a_bank_of_another_model_is_never_scored(
    two_versions: Path, first_version: tuple[EmbeddedServer, Path]
) -> None:
    server, folder = first_version
    add_second_version(two_versions, folder, ("label_bank_seed18",))
    load(server, "label_bank_seed18")
    with Recognizer(server.url, timeout_s=2) as client:
        assert client.recognize(cat_photo()).top.label.endswith("猫")
        with pytest.raises(ModelError, match=r"did not come to agree.*'seed18'"):
            client.recognize(cat_photo(), bank="seed18")


def test_a_swapped_bank_is_seen_without_a_restart(
    two_versions: Path, first_version: tuple[EmbeddedServer, Path]
) -> None:
    server, folder = first_version
    with Recognizer(server.url, refresh_s=0.2) as client:
        before = client.labels()
        add_second_version(two_versions, folder, MODELS)
        for model in MODELS:
            load(server, model)
        time.sleep(0.3)
        after = client.labels()
        assert before != after
        assert sorted(before) == sorted(after)
