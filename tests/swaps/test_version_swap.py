"""A new version is loaded while clients run: no request fails, no score mixes two versions."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton
from torch import Tensor, nn

from support.serving import server_options
from wanwu import ModelError, Recognition, Recognizer
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.repository import Manifest, read_manifest, write_manifest
from wanwu.samples import cat_photo, sample_photos
from wanwu_export.banks import BankPlan, built_in_plans
from wanwu_export.dual_tower import DualTower
from wanwu_export.publish import publish

CLIENTS = 8
OWN_LABELS = ("猫", "汽车", "咖啡", "宫殿")
MODELS = ("image_encoder", "text_encoder", "label_bank", "label_bank_seed18", "label_bank_luxury")


class Turned(nn.Module):
    """Turns embeddings to the opposite side."""

    def forward(self, embeddings: Tensor) -> Tensor:
        return -embeddings


def turned(tower: DualTower, plans: list[BankPlan]) -> tuple[DualTower, list[BankPlan]]:
    """Make a second version that answers the same, and the opposite when mixed with the first.

    Both towers give opposite embeddings, and the default bank holds its labels in another order.
    """
    second = replace(
        tower,
        image=nn.Sequential(tower.image, Turned()).eval(),
        text=nn.Sequential(tower.text, Turned()).eval(),
        model=msgspec.structs.replace(tower.model, revision="2"),
    )
    default, *others = plans
    half = len(default.concepts) // 2
    concepts = [*default.concepts[half:], *default.concepts[:half]]
    return second, [replace(default, concepts=concepts), *others]


@pytest.fixture(scope="module")
def two_versions(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, starter: DualTower
) -> Path:
    """A repository with both versions published."""
    folder = tmp_path_factory.mktemp("swap") / "model_repository"
    shutil.copytree(repository, folder)
    published = publish(*turned(starter, built_in_plans()), folder, step=lambda text: None)
    assert published.version == 2
    assert published.release.served == dict.fromkeys(MODELS, 2)
    return folder


@pytest.fixture
def first_version(two_versions: Path, tmp_path: Path) -> Iterator[tuple[EmbeddedServer, Path]]:
    """A server that knows version 1 only, and its repository."""
    folder = tmp_path / "model_repository"
    shutil.copytree(two_versions, folder, ignore=shutil.ignore_patterns("2", "manifest.json"))
    both = read_manifest(two_versions)
    assert both is not None
    write_manifest(folder, Manifest(releases={"1": both.releases["1"]}))
    options = server_options(folder, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as server:
        yield server, folder


def add_second_version(two_versions: Path, folder: Path, models: tuple[str, ...]) -> None:
    for model in models:
        shutil.copytree(two_versions / model / "2", folder / model / "2")


def load(server: EmbeddedServer, model: str) -> None:
    with triton.InferenceServerClient(server.url) as admin:
        admin.load_model(model, headers=server.admin_headers)


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
        first_pictures, first_texts = embeddings(probe, photos)
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
        pictures, texts = embeddings(probe, photos)
    assert failures == []
    wrong = [
        (place, own, answer.top.label)
        for place, own, answer in answers
        if answer.top.label != expected[answer.fingerprint, own, place]
    ]
    assert wrong == []
    first, second = dict.fromkeys(answer.fingerprint for _, _, answer in answers)
    assert first != second
    for own in (False, True):
        of_each = [(expected[first, own, n], expected[second, own, n]) for n in range(len(photos))]
        assert all(one == two for one, two in of_each)
    # The two versions really differ: whatever is mixed comes out wrong.
    right = (pictures @ texts.T).argmax(1)
    assert ((first_pictures @ first_texts.T).argmax(1) == right).all()
    assert ((first_pictures @ texts.T).argmax(1) != right).all()
    assert ((pictures @ first_texts.T).argmax(1) != right).all()


def embeddings(client: Recognizer, photos: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Give what the served towers make of the pictures and of the own labels."""
    pictures = np.stack([client.embed_image(photo) for photo in photos])
    return pictures, client.embed_texts(OWN_LABELS)


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
