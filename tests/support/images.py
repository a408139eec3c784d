"""Images as a cluster runs them: by runc, without capabilities, /tmp alone writable."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TMP = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]}  # noqa: S108

Mounts = dict[str, Path]


def bind(place: str, folder: Path) -> dict[str, Any]:
    """Return a mount of a folder of this machine."""
    return {"destination": place, "type": "bind", "source": str(folder), "options": ["bind"]}


@dataclass(frozen=True)
class Image:
    """An image that was built and is mounted at `root`; `config` is that of its OCI document."""

    root: Path
    config: dict[str, Any]
    size_bytes: int
    folder: Path

    def run(
        self, *command: str, mounts: Mounts | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; what it printed is text."""
        with self.start(*command, mounts=mounts, **environment) as process:
            out, error = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, out, error)

    @contextmanager
    def start(
        self, *command: str, mounts: Mounts | None = None, **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a container, in the network of this machine, and remove it at the end.

        Args:
            command: what it runs.
            mounts: folders of this machine, by their place in the container.
            environment: variables besides those of the image.
        """
        number = len(list(self.folder.iterdir()))
        name, folder = f"wanwu-test-{self.folder.name}-{number}", self.folder / str(number)
        folder.mkdir()
        spec = self._spec(folder, command, environment)
        spec["mounts"] += [bind(*each) for each in (mounts or {}).items()]
        (folder / "config.json").write_text(json.dumps(spec))
        runc = ("runc", "--root", str(folder / "state"))
        with subprocess.Popen(
            [*runc, "run", "--bundle", folder, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                subprocess.run([*runc, "delete", "--force", name], capture_output=True)

    def _spec(
        self, folder: Path, command: tuple[str, ...], environment: dict[str, str]
    ) -> dict[str, Any]:
        subprocess.run(["runc", "spec", "--bundle", folder], check=True)
        path = folder / "config.json"
        spec = json.loads(path.read_text())
        spec["root"] = {"path": str(self.root), "readonly": True}
        user, group = map(int, self.config["User"].split(":"))
        set_in_image = dict(each.split("=", 1) for each in self.config["Env"])
        spec["process"] |= {
            "terminal": False,
            "args": list(command),
            "env": [f"{name}={value}" for name, value in (set_in_image | environment).items()],
            "cwd": self.config["WorkingDir"],
            "user": {"uid": user, "gid": group},
            "capabilities": {},
        }
        mounts = [each for each in spec["mounts"] if each["type"] not in ("cgroup", "sysfs")]
        spec["mounts"] = [*mounts, TMP]
        spaces = spec["linux"]["namespaces"]
        spec["linux"]["namespaces"] = [each for each in spaces if each["type"] != "network"]
        return spec
