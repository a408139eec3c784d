"""A swap between models that have nothing in common loses no request of callers with own labels."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from support.serving import server_options
from support.tiny import tiny_tower
from wanwu import ModelError, Recognizer
from wanwu.contract import Precision
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.repository import Manifest, read_manifest, write_manifest
from wanwu_export import parity
from wanwu_export.banks import BankPlan
from wanwu_export.concepts import Concept
from wanwu_export.publish import publish
from wanwu_export.versions import rollback

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
TOWERS, BANK = ("image_encoder", "text_encoder"), ("label_bank",)
ORDERS = {"towers first": (*TOWERS, *BANK), "banks first": (*BANK, *reversed(TOWERS))}
FP16 = Precision(image="fp16", text="fp16")
#: What the second model has otherwise than the first, each way of being unlike by itself.
UNLIKE = {
    "everything": {"words": 400, "longest": 7, "side": 24, "width": 16},
    "vocabulary": {"words": 400},
    "length": {"longest": 7},
    "size": {"side": 24},
    "dimension": {"width": 16},
    "precision": {"precision": FP16},
}
#: Each model is loaded this long after the one before, as large ones are.
STEP_S = 0.7


@pytest.fixture(scope="module", autouse=True)
def _images_are_encoded_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "parity_pictures", cache(parity.parity_pictures))
        yield


@pytest.fixture(scope="module", params=UNLIKE)
def versions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository: version 1, the unlike version 2, and version 3, which is 1 again."""
    folder = tmp_path_factory.mktemp(request.param) / "model_repository"
    bank = [BankPlan("default", [Concept("猫"), Concept("狗")], None, "2026-11-27")]
    for tower in (tiny_tower(0), tiny_tower(1, **UNLIKE[request.param])):
        publish(tower, bank, folder, step=lambda text: None)
    rollback(folder, 1, keep=9)
    return folder


@pytest.fixture
def served(versions: Path, tmp_path: Path):
    """A server that has version 1 alone, and a function that loads another in some order."""
    folder = tmp_path / "served" / "model_repository"
    shutil.copytree(versions, folder, ignore=shutil.ignore_patterns("2", "3", "manifest.json"))
    both = read_manifest(versions)
    write_manifest(folder, Manifest(releases={"1": both.releases["1"]}))
    options = server_options(folder, grpc_port=free_port(), metrics_port=None)
    with EmbeddedServer(options) as server, triton.InferenceServerClient(server.url) as admin:

        def load(version: int, models: tuple[str, ...]) -> None:
            for model in models:
                shutil.copytree(versions / model / str(version), folder / model / str(version))
            for model in models:
                admin.load_model(model, headers=server.admin_headers)
                time.sleep(STEP_S)

        yield server.url, load


class Callers:
    """Callers whose labels are others in every call, so that each is encoded by the text tower."""

    def __init__(self, url: str) -> None:
        self.fingerprints: list[int] = []
        self.failures: list[BaseException] = []
        self._ending = threading.Event()
        self._numbers = itertools.count()
        self._threads = [
            threading.Thread(target=self._call, args=(url, refresh_s)) for refresh_s in (1, 60) * 2
        ]

    def _call(self, url: str, refresh_s: float) -> None:
        with Recognizer(url, timeout_s=30, refresh_s=refresh_s) as recognizer:
            while not self._ending.is_set():
                number = next(self._numbers)
                try:
                    # One of them has ids that the small vocabulary lacks.
                    labels = [f"猫{number % 977}", f"狗Ｃ{number}"[:6]]
                    answer = recognizer.recognize(IMAGE, labels=labels, top_k=1)
                    self.fingerprints.append(answer.fingerprint)
                except BaseException as error:
                    self.failures.append(error)

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.filterwarnings("ignore:the model")
@pytest.mark.parametrize("order", ORDERS)
def test_callers_with_their_own_labels_lose_nothing_there_and_back(served, order: str) -> None:
    url, load = served
    with Callers(url) as callers:
        time.sleep(STEP_S)
        for version in (2, 3):
            load(version, ORDERS[order])
            time.sleep(STEP_S)
    assert callers.failures == []
    seen = [fingerprint for fingerprint, _ in itertools.groupby(callers.fingerprints)]
    assert len(set(seen)) == 2
    assert callers.fingerprints[0] == callers.fingerprints[-1]


@pytest.mark.parametrize("versions", ["size"], indirect=True)
def test_a_tower_that_refuses_for_good_is_named_after_the_deadline(served) -> None:
    url, load = served
    load(2, TOWERS)
    with (
        Recognizer(url, timeout_s=1) as recognizer,
        pytest.raises(ModelError, match="model 'image_encoder' refused the request"),
    ):
        recognizer.recognize(IMAGE)
