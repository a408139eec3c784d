"""Runs rendered containers here: mounts become folders, Secrets their files, ports free ones."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from chart.rendering import Object, environment, one, pod_of
from wanwu.embedded.server import EmbeddedServer, ServerOptions

Secrets = dict[str, dict[str, bytes]]
#: Programs of the environment that runs the tests, such as `wanwu`, come first.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@dataclass
class Container:
    """A container's command, arguments and environment, as they are on this machine."""

    command: list[str]
    arguments: list[str]
    environment: dict[str, str]

    @property
    def words(self) -> list[str]:
        return [*self.command, *self.arguments]

    def run(self, **changed: str | None) -> subprocess.CompletedProcess[str]:
        """Run it to its end, with some of its environment changed or, by None, left out."""
        found = {name: each for name, each in (self.environment | changed).items() if each}
        return subprocess.run(self.words, env=found, capture_output=True, text=True)


@dataclass
class Machine:
    """What stands in for the node: Secrets, a folder for mounts, and texts that differ here."""

    folder: Path
    secrets: Secrets = field(default_factory=dict)
    #: Mount paths that are already somewhere.
    places: dict[str, Path] = field(default_factory=dict)

    def container(self, workload: Object, **changed: str) -> Container:
        """Give the workload's first container, its environment changed where names are given."""
        pod = pod_of(workload)
        rendered = pod["containers"][0]
        places = self._mount(pod, rendered)
        found = {each["name"]: self._value(each) for each in rendered["env"]}
        found = {name: _moved(each, places) for name, each in found.items()} | changed
        words = [_moved(each, places) for each in rendered.get("args", [])]
        # Kubernetes fills these in.
        words = [re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], each) for each in words]
        return Container(rendered["command"], words, {"PATH": PATH, "WANWU_LANG": "en", **found})

    def _mount(self, pod: Object, container: Object) -> dict[str, Path]:
        volumes = {each["name"]: each for each in pod["volumes"]}
        places = {}
        for mount in container["volumeMounts"]:
            place = self.places.get(mount["mountPath"], self.folder / mount["name"])
            place.mkdir(exist_ok=True)
            places[mount["mountPath"]] = place
            if secret := volumes[mount["name"]].get("secret"):
                data = self.secrets[secret["secretName"]]
                items = secret.get("items") or [{"key": each, "path": each} for each in data]
                for item in items:
                    (place / item["path"]).write_bytes(data[item["key"]])
        return places

    def _value(self, variable: Object) -> str:
        if "value" in variable:
            return str(variable["value"])
        wanted = variable["valueFrom"]["secretKeyRef"]
        return self.secrets[wanted["name"]][wanted["key"]].decode()


def _moved(text: str, places: dict[str, Path]) -> str:
    """Put folders of this machine in the place of mount paths."""
    longest = sorted(places, key=len, reverse=True)
    pattern = rf"(?<![\w.])({'|'.join(map(re.escape, longest))})(?=/|$)"
    return re.sub(pattern, lambda found: str(places[found[1]]), text)


def secrets_of(objects: list[Object]) -> Secrets:
    """Give what the rendered Secrets hold."""
    return {
        each["metadata"]["name"]: {
            name: base64.b64decode(value) for name, value in each["data"].items()
        }
        for each in objects
        if each["kind"] == "Secret"
    }


#: Options that came after 2.51, the release that PyPI has.
NEWER = ("--grpc-max-response-pool-size",)


class ChartServer(EmbeddedServer):
    """The Triton that PyPI ships, started by the chart's command line."""

    def __init__(self, options: ServerOptions, container: Container) -> None:
        super().__init__(options)
        self.admin_key = container.environment["WANWU_ADMIN_KEY"]
        self._rendered = [each for each in container.arguments if not each.startswith(NEWER)]
        (folder,) = (each for each in self._rendered if each.startswith("--model-repository="))
        self.models = Path(folder.partition("=")[2])

    def _arguments(self, backends: Path, models: Path) -> list[str]:
        options = self.options
        ports = {8000: options.http_port, 8001: options.grpc_port, 8002: options.metrics_port}
        line = "\n".join(self._rendered)
        for rendered, here in ports.items():
            line = re.sub(rf"-port={rendered}$", f"-port={here}", line, flags=re.MULTILINE)
        own = [f"--backend-directory={backends}"]
        own.append(f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}")
        return [*line.split("\n"), *own]


def for_python(config: str) -> str:
    """Put the Python backend in onnxruntime's place, whose parameters it does not know."""
    lines = config.replace('backend: "onnxruntime"', 'backend: "python"').splitlines()
    return "\n".join(line for line in lines if not line.startswith("parameters"))


def lay(objects: list[Object], repository: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the rendered init container here, over `repository` into folder/models."""
    configs = folder / "configs"
    configs.mkdir(exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    for name, text in one(objects, "ConfigMap", "-triton")["data"].items():
        (configs / name).write_text(for_python(text) if name.endswith(".pbtxt") else text)
    (container,) = pod_of(one(objects, "Deployment", "-triton"))["initContainers"]
    paths = {"/repository": repository, "/configs": configs, "/models": folder / "models"}
    found = environment(container)
    here = {name: str(paths.get(value, value)) for name, value in found.items()}
    command = [each.replace("/configs", str(configs)) for each in container["command"]]
    return subprocess.run(
        command, env={**here, "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
