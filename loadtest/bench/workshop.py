"""What every system of the benchmark is given: one checkpoint, its exports, labels, photographs.

Made once and kept, for 50,000 labels take minutes to embed.
"""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image, ImageOps

from wanwu.bank import bank_model
from wanwu.gateway.keys import create_key
from wanwu.repository import newest_release
from wanwu.samples import cat_photo, sample_photos
from wanwu_export.banks import model_file
from wanwu_export.concepts import built_in_banks, imagenet_concepts
from wanwu_export.onnx_bank import read_bank

ROOT = Path(__file__).parents[2]
PRECISIONS = ("fp32", "int8")
WORDS = "红白黑蓝绿黄大小旧新圆方长短木铁银金古软厚薄湿干冷热野家"
MAKE = (
    "import sys; from pathlib import Path; from support.checkpoints import make_checkpoint; "
    "make_checkpoint(sys.argv[1], Path(sys.argv[2]))"
)
PHOTO_KINDS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Workshop:
    """A folder with all of it, and the sizes of the label lists."""

    folder: Path
    family: str
    sizes: tuple[int, ...]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint as transformers 5 saves it."""
        return self.folder / "checkpoint"

    @property
    def hub_checkpoint(self) -> Path:
        """The same files as a hub has them, for older transformers."""
        return self.folder / "checkpoint-hub"

    def repository(self, precision: str) -> Path:
        """Give the model repository of an export."""
        return self.folder / precision

    def prepare(self) -> str:
        """Make what is not there yet, and give a key of the gateway."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._labels()
        self._photos()
        if not (self.checkpoint / "processor_config.json").is_file():
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
            command = [sys.executable, "-c", MAKE, self.family, str(self.checkpoint)]
            run(command, environment)
        self._hub_checkpoint()
        for precision in PRECISIONS:
            self._export(precision)
        self._vectors()
        keys = self.folder / "keys.json"
        keys.unlink(missing_ok=True)
        return create_key(keys, "bench", ("recognise",), rate="1000000/minute")[1]

    def _labels(self) -> None:
        folder = self.folder / "labels"
        folder.mkdir(exist_ok=True)
        for count in self.sizes:
            (folder / f"{count}.txt").write_text("\n".join(make_labels(count)), encoding="utf-8")

    def _photos(self) -> None:
        folder = self.folder / "photos"
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.jpg"):
            old.unlink()
        for number, photo in enumerate(make_photos()):
            (folder / f"{number:04d}.jpg").write_bytes(photo)

    def _hub_checkpoint(self) -> None:
        self.hub_checkpoint.mkdir(exist_ok=True)
        for path in self.checkpoint.iterdir():
            link = self.hub_checkpoint / path.name
            if path.name != "processor_config.json" and not link.exists():
                link.symlink_to(path.resolve())
        processor = msgspec.json.decode((self.checkpoint / "processor_config.json").read_bytes())
        encoded = msgspec.json.encode(processor["image_processor"])
        (self.hub_checkpoint / "preprocessor_config.json").write_bytes(encoded)

    def _export(self, precision: str) -> None:
        output = self.repository(precision)
        wanwu = str(Path(sys.executable).with_name("wanwu"))
        for number, count in enumerate(self.sizes):
            file, bank = self.folder / "labels" / f"{count}.txt", f"l{count}"
            if (output / bank_model(bank)).is_dir():
                continue
            print(f"{precision}: embedding {count:,} labels", file=sys.stderr, flush=True)
            build = ["labels", "build", str(file), "--model-repository", str(output)]
            if number == 0:
                build = ["export", str(self.checkpoint), "--output", str(output)]
                build += ["--precision", precision, "--labels", str(file)]
            run([wanwu, *build, "--bank", bank, "--templates", "bare"])

    def _vectors(self) -> None:
        """Lay out the fp32 export's label vectors for peers that have stored labels."""
        (self.folder / "vectors").mkdir(exist_ok=True)
        repository = self.repository("fp32")
        release = newest_release(repository)
        for count in self.sizes:
            bank = read_bank(model_file(repository, release, bank_model(f"l{count}")))
            path = self.folder / "vectors" / f"{count}.npy"
            np.save(path, bank.embeddings.astype(np.float32))
            (self.folder / "scale.txt").write_text(str(bank.contract.score.logit_scale))


def make_labels(count: int) -> list[str]:
    """Give distinct labels: the seed's 18, ImageNet's 1,000, or these with words before them."""
    seed = [concept.label for concept in built_in_banks()["seed18"]]
    if count == len(seed):
        return seed
    names = [concept.label for concept in imagenet_concepts()]
    pairs = itertools.product(("", *WORDS), WORDS, names)
    longer = (f"{first}{second}{name}" for first, second, name in pairs)
    distinct = dict.fromkeys(itertools.chain(names, longer))
    return list(itertools.islice(distinct, count))


def make_photos() -> list[bytes]:
    """Give photographs as JPEGs of about 640 x 480: those of WANWU_PHOTOS, or the demo's."""
    if folder := os.environ.get("WANWU_PHOTOS"):
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in PHOTO_KINDS)
        if not paths:
            sys.exit(f"WANWU_PHOTOS={folder} has no {', '.join(PHOTO_KINDS)}; name another folder")
        originals = [path.read_bytes() for path in paths]
    else:
        originals = [cat_photo(), *(path.read_bytes() for path in sample_photos())]
    return [_small(data) for data in originals]


def _small(data: bytes) -> bytes:
    encoded = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        ImageOps.contain(upright, (640, 640)).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and give what it printed; end with its own words if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout
