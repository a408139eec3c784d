"""The gateway's image, built by the real buildah on a base made of Debian's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.images import Image

ROOT = Path(__file__).parents[2]
BASE = "localhost/wanwu-base"
TAG = "of-the-tests"
#: Packages of Debian.
TOOLS = ("make", "buildah", "debootstrap", "runc")


@pytest.fixture(scope="session")
def image(need) -> Iterator[Image]:
    """The image of `make images`, in a storage of its own that ends with the tests."""
    for tool in TOOLS:
        need(shutil.which(tool) is not None, f"{tool}: apt-get install {tool}")
    need(os.geteuid() == 0, "user root here, which debootstrap and mounts need")
    need(sys.version_info[:2] == (3, 11), "Python 3.11, for which Debian 12 takes the wheels")
    # Not below /tmp, which may be of a kind that takes no devices and no overlay.
    with tempfile.TemporaryDirectory(prefix="wanwu-image-", dir="/var/tmp") as name:
        folder = Path(name)
        environment = _engine(folder)
        _run(["sh", ROOT / "k8s" / "images" / "debian-base.sh", BASE], environment)
        _run(_make_images(folder / "context"), environment)
        try:
            yield _mounted(folder, environment)
        finally:
            _run(["buildah", "rm", "--all"], environment)


def _engine(folder: Path) -> dict[str, str]:
    (folder / "tmp").mkdir()
    storage = folder / "storage.conf"
    places = f'graphroot = "{folder / "images"}"\nrunroot = "{folder / "running"}"\n'
    storage.write_text(f'[storage]\ndriver = "overlay"\n{places}')
    return os.environ | {
        "ENGINE": "buildah",
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(storage),
        "TMPDIR": str(folder / "tmp"),
    }


def _make_images(context: Path) -> list[str]:
    # The environment that runs the tests is the one that `make install` would make.
    installed = ["-o", f"{sys.prefix}/.installed", f"VENV={sys.prefix}"]
    settings = [f"BASE={BASE}", f"TAG={TAG}", f"CONTEXT={context}"]
    return ["make", "-C", str(ROOT), *installed, "images", "IMAGES=gateway", *settings]


def _mounted(folder: Path, environment: Mapping[str, str]) -> Image:
    name = f"wanwu/gateway:{TAG}"
    about = json.loads(_run(["buildah", "inspect", "--type", "image", name], environment))
    container = _run(["buildah", "from", "--pull-never", name], environment).strip()
    root = Path(_run(["buildah", "mount", container], environment).strip())
    files = {(at.st_dev, at.st_ino): at.st_size for at in map(Path.lstat, root.rglob("*"))}
    (folder / "containers").mkdir()
    return Image(root, about["OCIv1"]["config"], sum(files.values()), folder / "containers")


def _run(command: list[str | Path], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
