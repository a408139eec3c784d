"""The gateway's image holds what it needs, and runs as the chart runs it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support import hostile
from support.http import Answer, form, request
from support.images import Image
from wanwu import __version__
from wanwu.embedded.server import EmbeddedServer, free_port
from wanwu.samples import cat_photo

JOB = Path(__file__).parents[2] / "k8s" / "bulk-job" / "job.yaml"
LIMIT_BYTES = 350_000_000
#: What a gateway never imports, and what only builds or tests it.
ABSENT = {"huggingface_hub", "numkong", "pip", "pyarrow", "pytest", "tests", "torch"}
BOMBS = [upload for upload in hostile.bombs() if upload.codes == hostile.TOO_LARGE]


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs in the image."""

    url: str

    def recognize(self, picture: bytes) -> Answer:
        body, kind = form(("file", picture), ("labels", "猫,狗,咖啡"))
        headers = {"Content-Type": kind}
        return request(f"{self.url}/v1/recognize", "POST", body=body, headers=headers)


@pytest.fixture(scope="module")
def environment(server: EmbeddedServer) -> dict[str, str]:
    port, metrics = free_port(), free_port()
    return {
        "WANWU_URL": server.url,
        "WANWU_LANG": "en",
        "WANWU_GATEWAY_PORT": str(port),
        "WANWU_GATEWAY_METRICS_PORT": str(metrics),
        "WANWU_GATEWAY_AUTH": "off",
    }


@pytest.fixture(scope="module")
def gateway(image: Image, environment: dict[str, str]) -> Iterator[Gateway]:
    found = Gateway(f"http://127.0.0.1:{environment['WANWU_GATEWAY_PORT']}")
    with image.start("wanwu", "gateway", **environment) as process:
        ends = time.monotonic() + 60
        while not ready(found):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < ends, "the gateway did not become ready"
            time.sleep(0.2)
        yield found
        # It is the first process of its container, which a signal ends only where it is handled.
        process.terminate()
        assert process.wait(60) == 0


def ready(gateway: Gateway) -> bool:
    try:
        return request(f"{gateway.url}/readyz").status == 200
    except OSError:
        return False


def test_the_image_is_small(image: Image) -> None:
    assert image.size_bytes <= LIMIT_BYTES


def test_nothing_that_built_or_tests_it_stays(image: Image) -> None:
    packages = next((image.root / "opt" / "wanwu" / "lib").glob("python3*/site-packages"))
    assert (packages / "wanwu").is_dir()
    assert not ABSENT & {path.name for path in packages.rglob("*")}
    for place in ("wheels", "requirements.txt", "root/.cache", "usr/bin/gcc", "usr/bin/pip3"):
        assert not (image.root / place).exists()
    assert not list((image.root / "var" / "lib" / "apt" / "lists").glob("*"))


def test_the_image_says_what_it_is(image: Image) -> None:
    labels = {name.rpartition(".")[2]: text for name, text in image.config["Labels"].items()}
    assert labels["title"] == "wanwu/gateway"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"


def test_the_image_starts_wanwu_as_user_1000(image: Image) -> None:
    assert image.config["User"] == "1000:1000"
    assert image.config["Entrypoint"] == ["wanwu"]
    assert image.config["StopSignal"] == "SIGTERM"
    done = image.run(*image.config["Entrypoint"], *image.config["Cmd"])
    assert done.returncode == 0, done.stderr
    assert "gateway" in done.stdout


def test_nothing_but_tmp_can_be_written(image: Image) -> None:
    done = image.run("sh", "-c", "id -u; id -g; touch /tmp/a && touch /opt/wanwu/a")
    assert done.stdout.split() == ["1000", "1000"]
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_doctor_finds_a_real_triton_in_order(image: Image, environment: dict[str, str]) -> None:
    done = image.run("wanwu", "doctor", **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gateway_names_a_real_photograph(gateway: Gateway) -> None:
    answer = gateway.recognize(cat_photo())
    assert answer.status == 200, answer.body
    (result,) = answer.json()["results"]
    assert result["predictions"][0]["label"] == "猫"


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_a_bomb_is_refused_and_the_gateway_serves_on(gateway: Gateway, bomb) -> None:
    refused = gateway.recognize(bomb.data)
    assert (refused.status, refused.json()["code"]) == (413, "picture_too_large")
    assert request(f"{gateway.url}/healthz").status == 200
    assert gateway.recognize(cat_photo()).status == 200


def test_the_bulk_jobs_command_runs_in_the_image(
    image: Image, environment: dict[str, str], tmp_path: Path
) -> None:
    (container,) = yaml.safe_load(JOB.read_text())["spec"]["template"]["spec"]["containers"]
    mounts = {"/pictures": tmp_path / "pictures", "/answers": tmp_path / "answers"}
    for folder in mounts.values():
        folder.mkdir()
    os.chown(mounts["/answers"], 1000, 1000)
    for number in range(40):
        (mounts["/pictures"] / f"{number}.jpg").write_bytes(cat_photo())
    words = [*container["command"], *container["args"]]
    command = [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in words]
    cache = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    done = image.run(*command, mounts=mounts, **(cache | environment))
    assert done.returncode == 0, done.stderr
    lines = (mounts["/answers"] / "part-0.jsonl").read_text().splitlines()
    assert lines
    assert all("猫" in json.loads(line)["predictions"][0]["label"] for line in lines)
