"""Collect the wheels of the images: what k8s/images/Dockerfile installs, each with its hash.

    make images                  # collects them, and builds the images

It does not know how an image is built, or what else an archive for no internet holds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ("-c", str(ROOT / "constraints.txt"))
BINARY = ("--only-binary", ":all:")
#: The images of k8s/images, and the extras of each.
IMAGES = {
    "gateway": "gateway",
    "export": "export",
    "loadtest": "loadtest",
}
#: Dependencies that are left out unless another package has them too. `tokenizers` imports the
#: hub's client, which brings 30 MB, in `from_pretrained` alone: no image that serves downloads.
NOT_FOLLOWED = {("tokenizers", "huggingface-hub")}


@dataclass(frozen=True)
class Package:
    """One wheel."""

    name: str
    version: str
    sha256: str


def main() -> None:
    """Write the build context of images."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="gets the folders wheels and requirements")
    parser.add_argument("--images", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--extras", default="", help="more extras, such as parquet,large-banks")
    arguments = parser.parse_args()
    for name in ("wheels", "requirements"):
        shutil.rmtree(arguments.folder / name, ignore_errors=True)
    packages = collect(arguments.folder, arguments.images, arguments.extras)
    print(f"{arguments.folder}: {len(packages)} wheels for {', '.join(arguments.images)}")


def collect(folder: Path, images: list[str], extras: str = "") -> set[Package]:
    """Fetch the wheels of images, and write the requirements of each with their hashes.

    Args:
        folder: where `wheels` and `requirements` are written.
        images: names of IMAGES.
        extras: extras of wanwu besides those of IMAGES, with commas between them.

    Returns:
        Every package that was written, pip among them, by which they are installed.
    """
    wheels, requirements = folder / "wheels", folder / "requirements"
    for each in (wheels, requirements):
        each.mkdir(parents=True, exist_ok=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    (ours,) = wheels.glob("wanwu-*.whl")
    found = set(_fetch(["pip"], wheels, requirements / "pip.txt", "--no-deps"))
    for image in images:
        chosen = ",".join(filter(None, (IMAGES[image], extras)))
        wanted = f"wanwu[{chosen}] @ {ours.as_uri()}"
        found |= set(_fetch([wanted], wheels, requirements / f"{image}.txt"))
    return found


def _fetch(wanted: list[str], wheels: Path, written: Path, *options: str) -> list[Package]:
    packages = _resolve(wanted, *options)
    lines = [f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in packages]
    written.write_text("".join(sorted(lines)))
    fetch = ("download", "--no-deps", "--require-hashes", "--find-links", str(wheels))
    _pip(*fetch, *BINARY, "-d", str(wheels), "-r", str(written))
    return packages


def _resolve(wanted: list[str], *options: str) -> list[Package]:
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        dry = ("install", "--dry-run", "--ignore-installed", "--report", report.name)
        _pip(*dry, *CONSTRAINTS, *BINARY, *options, *wanted)
        resolved = json.load(report)["install"]
    items = {canonicalize_name(item["metadata"]["name"]): item for item in resolved}
    metadata = {name: item["metadata"] for name, item in items.items()}
    kept = _reached(metadata, map(Requirement, wanted))
    return [_package(items[name]) for name in sorted(kept)]


def _package(item: dict[str, Any]) -> Package:
    about, archive = item["metadata"], item["download_info"]["archive_info"]
    hashes = archive.get("hashes") or dict([archive["hash"].split("=")])  # pip before 23.1
    return Package(about["name"], about["version"], hashes["sha256"])


def _reached(metadata: dict[Any, Any], wanted: Iterable[Requirement]) -> set[str]:
    """Return the names of the packages that requirements lead to, but by NOT_FOLLOWED."""
    reached: set[tuple[str, str]] = set()
    todo = list(wanted)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in reached:
                reached.add((name, extra))
                todo += _required(name, metadata[name], extra)
    return {name for name, _ in reached}


def _required(name: str, about: dict[str, Any], extra: str) -> Iterator[Requirement]:
    for requirement in map(Requirement, about.get("requires_dist", ())):
        followed = (name, canonicalize_name(requirement.name)) not in NOT_FOLLOWED
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if followed and applies:
            yield requirement


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


if __name__ == "__main__":
    main()
