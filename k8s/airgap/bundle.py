"""Write one archive that installs Wanwu where there is no internet, or check one.

    make bundle                  # dist/wanwu.tar.gz; IMAGES="gateway loadtest export" adds wheels
    make bundle-verify           # of dist/wanwu.tar.gz

The archive is laid out as a checkout, so that k8s/airgap/install.sh works in both:

    helm/wanwu, k8s              the chart, and what it needs of a cluster
    model_repository             the models, as `wanwu export` published them
    wheels, requirements         every package with its hash, for k8s/images/build.sh
    images.txt                   the images to bring into your registry; fill the digests in
    sbom.cdx.json                what is in all this, as CycloneDX
    SHA256SUMS                   of every file
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import OutputFormat, make_outputter
from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL
from wheels import IMAGES, Package, collect

from wanwu import __version__
from wanwu.repository import newest_release

ROOT = Path(__file__).parents[2]
SUMS = "SHA256SUMS"
#: What a checkout holds and a cluster needs.
COPIED = ("helm/wanwu", "k8s", "docs/gateway.md", "docs/runbook.md", "LICENSE")


def main() -> None:
    """Write or verify."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--verify", action="store_true", help="check an archive, and write nothing")
    parser.add_argument("--models", type=Path, default=ROOT / "model_repository")
    parser.add_argument(
        "--images",
        nargs="+",
        choices=IMAGES,
        default=["gateway"],
        help="images to bring wheels for",
    )
    parser.add_argument("--extras", default="", help="more extras, such as parquet,large-banks")
    arguments = parser.parse_args()
    if arguments.verify:
        print(f"{verify(arguments.archive)} files of {arguments.archive} are as they were written")
        return
    write(arguments.archive, arguments.models, arguments.images, arguments.extras)
    size = arguments.archive.stat().st_size / 1e6
    print(f"{arguments.archive}: {size:.0f} MB, SHA-256 {_sha256(arguments.archive)}")


def write(archive: Path, models: Path, images: list[str], extras: str) -> None:
    """Put everything together. The archive appears whole, or not at all."""
    release = newest_release(models)
    with tempfile.TemporaryDirectory(prefix="wanwu-bundle-") as name:
        folder = Path(name) / f"wanwu-{__version__}"
        for part in COPIED:
            _copy(ROOT / part, folder / part)
        _copy(models, folder / "model_repository")
        packages = collect(folder, images, extras)
        listed = image_list(folder, images)
        (folder / "images.txt").write_text("".join(f"{line}\n" for line in listed))
        files = {f: file.sha256 for f, file in release.files.items()}
        (folder / "sbom.cdx.json").write_text(sbom(packages, files, release.model.name, listed))
        sums = [f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in _files(folder)]
        (folder / SUMS).write_text("".join(sums))
        archive.parent.mkdir(parents=True, exist_ok=True)
        half = archive.with_name(f".{archive.name}.half")
        with tarfile.open(half, "w:gz", compresslevel=1) as tar:
            tar.add(folder, folder.name)
        half.replace(archive)


def image_list(folder: Path, images: list[str]) -> list[str]:
    """Return the images that a cluster needs and those that are built, to be filled in."""
    values = yaml.safe_load((folder / "helm/wanwu/values.yaml").read_text())
    triton, gateway = values["triton"]["image"], values["gateway"]["image"]
    copier = values["repository"]["s3"]["image"]
    adapter = yaml.safe_load((folder / "k8s/prometheus-adapter/values.yaml").read_text())["image"]
    others = [image for image in images if image != "gateway"]
    return [
        "# Bring these into your registry and write their digests here, then into your values:",
        "# triton.image.digest, gateway.image.digest",
        f"{triton['repository']}:{triton['tag'] or triton['release'] + '-py3'}  sha256:",
        f"{gateway['repository']}:{gateway['tag'] or __version__}  sha256:",
        *(f"wanwu/{image}:{__version__}  sha256:" for image in others),
        "# For autoscaling.driver: prometheus-adapter, the default; set it in an overlay of",
        "# k8s/prometheus-adapter:",
        f"{adapter['repository']}:{adapter['tag']}  sha256:",
        "# Only for repository.source: s3; repository.s3.image.digest:",
        f"{copier['repository']}:{copier['tag']}  sha256:",
    ]


def sbom(packages: set[Package], models: dict[str, str], model: str, images: list[str]) -> str:
    """Describe the packages, the model's files and the images as CycloneDX 1.6, in JSON."""
    bom = Bom()
    bom.metadata.component = Component(
        name="wanwu", version=__version__, type=ComponentType.PLATFORM
    )
    for package in sorted(packages, key=lambda each: each.name.lower()):
        bom.components.add(
            Component(
                name=package.name,
                version=package.version,
                type=ComponentType.LIBRARY,
                purl=PackageURL("pypi", name=package.name.lower(), version=package.version),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
            )
        )
    for name, digest in sorted(models.items()):
        bom.components.add(
            Component(
                name=f"{model}/{name}",
                type=ComponentType.MACHINE_LEARNING_MODEL,
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
        )
    for line in images:
        if not line.startswith("#"):
            name, _, tag = line.split()[0].partition(":")
            bom.components.add(Component(name=name, version=tag, type=ComponentType.CONTAINER))
    bom.register_dependency(bom.metadata.component, bom.components)
    written: str = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(
        indent=2
    )
    return written


def verify(archive: Path) -> int:
    """Compare every file of an archive with its sum, without unpacking it; give their number."""
    try:
        with tarfile.open(archive) as tar:
            found = {
                member.name.partition("/")[2]: _sha256_of(tar.extractfile(member))
                for member in tar
                if not member.isdir()
            }
            sums = tar.extractfile(tar.getmember(f"{tar.getnames()[0]}/{SUMS}"))
            assert sums is not None
            lines = [line.partition("  ") for line in sums.read().decode().splitlines()]
    except (OSError, tarfile.TarError, KeyError, EOFError) as error:
        sys.exit(f"{archive} cannot be read as a bundle ({error}); write it again: make bundle")
    expected = {name: digest for digest, _, name in lines}
    found.pop(SUMS)
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if wrong:
        listed = "\n".join(f"  {name}: {_what(name, found, expected)}" for name in wrong)
        sys.exit(f"{archive} is not as it was written:\n{listed}\nfetch it again")
    return len(found)


def _what(name: str, found: dict[str, str], expected: dict[str, str]) -> str:
    if name not in found:
        return "is missing"
    return "was changed" if name in expected else "was put there"


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return
    # Who changed the models is for whoever did, not for the archive's readers.
    ours = ("__pycache__", ".lock", ".staging", ".work", "manifest.audit.*")
    ignored = shutil.ignore_patterns(*ours)
    shutil.copytree(source, target, ignore=ignored)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return _sha256_of(file)


def _sha256_of(file: Any) -> str:
    digest = hashlib.sha256()
    for part in iter(lambda: file.read(1 << 20), b""):
        digest.update(part)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
