"""The systems that are compared: how each is started, and how it is spoken to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from environments import PEERS, interpreter
from jobs import Wire
from workshop import ROOT, Workshop

from wanwu.embedded.server import free_port

WANWU = str(Path(sys.executable).with_name("wanwu"))
SEED_SERVICE = ROOT / "client" / "bench" / "seed_service.py"
#: A cosine of 0.999, which an export promises at least, moves a logit by a few hundredths of 100.
INT8_TOLERANCE = 0.25
#: No peer reports to anybody, or looks for a model on a hub.
QUIET = {
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True)
class Place:
    """What a system is given to start with."""

    workshop: Workshop
    environments: Path
    gateway_key: str

    def python(self, name: str) -> str:
        """Give the Python of a peer's environment."""
        return str(interpreter(name, self.environments))


@dataclass(frozen=True)
class Launch:
    """The commands of a system and the way to it."""

    commands: tuple[tuple[str, ...], ...]
    wire: Wire
    environment: Mapping[str, str] = field(default_factory=lambda: QUIET)


@dataclass(frozen=True)
class System:
    """One row of the table.

    `environment` is the folder in `peers` with its pins; Wanwu has none. `tolerance` is how far a
    probability may be from Wanwu's in fp32. One that `encodes_labels` does so for every request.
    """

    name: str
    title: str
    launch: Callable[[Place], Launch]
    environment: str | None = None
    tolerance: float = 0.01
    encodes_labels: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is Wanwu."""
        return self.environment is None


def _triton(place: Place, precision: str, port: int) -> tuple[str, ...]:
    repository = str(place.workshop.repository(precision))
    options = ("--model-repository", repository, "--metrics-port", "0")
    return (WANWU, "serve", *options, "--grpc-port", str(port))


def _grpc(precision: str) -> Callable[[Place], Launch]:
    def launch(place: Place) -> Launch:
        port = free_port()
        return Launch((_triton(place, precision, port),), Wire("grpc", port), {})

    return launch


def _gateway(precision: str) -> Callable[[Place], Launch]:
    def launch(place: Place) -> Launch:
        triton, port = free_port(), free_port()
        folder = place.workshop.folder
        gateway = (
            *(WANWU, "gateway", "--url", f"127.0.0.1:{triton}", "--port", str(port)),
            *("--timeout-s", "120", "--keys-file", str(folder / "keys.json")),
            *("--audit", str(folder / "audit.jsonl")),
        )
        wire = Wire("form", port, "/v1/recognize", token=place.gateway_key)
        return Launch((_triton(place, precision, triton), gateway), wire, {})

    return launch


def _seed(place: Place) -> Launch:
    port = free_port()
    script = (str(SEED_SERVICE), str(place.workshop.checkpoint), "--port", str(port))
    wire = Wire("form", port, "/predict", field="labels")
    return Launch(((place.python("seed"), *script),), wire)


def _precomputed(place: Place) -> Launch:
    return _own(place, "seed", "precomputed_service.py")


def _litserve(place: Place) -> Launch:
    return _own(place, "litserve", "serve.py")


def _own(place: Place, name: str, script: str) -> Launch:
    port, workshop = free_port(), place.workshop
    paths = (str(PEERS / name / script), str(workshop.checkpoint), str(workshop.folder))
    command = (place.python(name), *paths, "--port", str(port))
    return Launch((command,), Wire("form", port, "/predict"))


def _infinity(place: Place) -> Launch:
    port = free_port()
    program = Path(place.python("infinity")).with_name("infinity_emb")
    command = (
        *(str(program), "v2", "--model-id", str(place.workshop.hub_checkpoint)),
        *("--served-model-name", "clip", "--engine", "torch", "--no-bettertransformer"),
        *("--device", "cpu", "--no-model-warmup", "--host", "127.0.0.1", "--port", str(port)),
    )
    return Launch((command,), Wire("vectors", port, "/embeddings", model="clip"))


SYSTEMS = (
    System("wanwu-grpc-fp32", "Wanwu, gRPC, fp32", _grpc("fp32"), tolerance=0.001),
    System("wanwu-grpc-int8", "Wanwu, gRPC, int8", _grpc("int8"), tolerance=INT8_TOLERANCE),
    System("wanwu-rest-fp32", "Wanwu, REST, fp32", _gateway("fp32"), tolerance=0.001),
    System("wanwu-rest-int8", "Wanwu, REST, int8", _gateway("int8"), tolerance=INT8_TOLERANCE),
    System("seed", "the seed's script", _seed, "seed", encodes_labels=True),
    System("precomputed", "the script, labels stored", _precomputed, "seed"),
    System("litserve", "LitServe, labels stored", _litserve, "litserve"),
    System("infinity", "infinity, labels stored", _infinity, "infinity"),
)
REFERENCE = SYSTEMS[0]
#: Systems that users have, but that could not be compared, and why.
LEFT_OUT = {
    "clip-as-service (clip-server 0.8.3)": (
        "it imports torchvision, whose wheels do not load beside the CPU build of torch 2.13 "
        "(operator torchvision::nms does not exist); it takes Chinese-CLIP by name from a hub, not "
        "from a folder; and it crops the middle of a picture where Chinese-CLIP squashes it, so "
        "its answers are others"
    ),
}
