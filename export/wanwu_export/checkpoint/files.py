"""The files a checkpoint consists of: that they are all there, whole, and of a kind to be exported.

Only headers are read: no weight is loaded, and no code of the checkpoint is ever run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import metadata_load
from safetensors import SafetensorError, safe_open

from wanwu.errors import InputError
from wanwu.repository import describe_file

#: What the tests export and compare, by `model_type` of config.json. A fixed-resolution SigLIP 2
#: is a `siglip` with Gemma's tokenizer.
FAMILIES = ("altclip", "chinese_clip", "clip", "siglip", "vision-text-dual-encoder")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("tokenizer.model",),
)

_LFS_POINTER = b"version https://git-lfs"


def check_files(folder: Path, allow_pickle: bool = False) -> tuple[Path, ...]:
    """Check that a folder holds a whole checkpoint, and give config.json and the weight files.

    Only headers are read. Safetensors are preferred to pickled weights, as when they are loaded.

    Raises:
        InputError: a file is missing, cut short, or not of its kind.
    """
    try:
        config = _check_config(folder)
        weights = _weights(folder, allow_pickle)
        for path in weights:
            _check_weight_file(path)
        _check_processor(folder)
        _check_tokenizer(folder)
    except OSError as error:
        raise InputError("{0} cannot be read: {1}", folder, error) from error
    return (config, *weights)


def content_hash(paths: Sequence[Path]) -> str:
    """Give `sha256:` and 12 digits over the names and the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {describe_file(path).sha256}\n".encode())
    return f"sha256:{digest.hexdigest()[:12]}"


def _check_config(folder: Path) -> Path:
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            "{0} has no config.json; expected a checkpoint as `save_pretrained` writes it", folder
        )
    model_type = _read_object(path).get("model_type")
    if not isinstance(model_type, str):
        raise InputError(
            "{0} has no model_type; expected a string such as chinese_clip there", path
        )
    _check_family(path, model_type)
    return path


def _check_family(path: Path, model_type: str) -> None:
    if model_type in FAMILIES:
        return
    if model_type == "siglip2":
        raise InputError(
            "{0} is of a NaFlex checkpoint of SigLIP 2: it takes pictures of any shape as lists "
            "of patches, which one PIXELS tensor cannot carry. Export the same model at a fixed "
            "resolution, such as siglip2-base-patch16-224",
            path,
        )
    raise InputError(
        "{0} says model_type {1}, which is no dual tower of pictures and texts that this release "
        "exports; expected one of {2}",
        path,
        repr(model_type),
        ", ".join(FAMILIES),
    )


def _read_object(path: Path) -> dict[str, object]:
    _refuse_pointer(path)
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError("{0} is no JSON: {1}; fetch it again", path, error) from error
    if not isinstance(value, dict):
        raise InputError("{0} holds a JSON {1}; expected an object", path, type(value).__name__)
    return value


def _weights(folder: Path, allow_pickle: bool) -> list[Path]:
    weights = _weight_files(folder, "model.safetensors")
    if weights:
        return weights
    pickled = sorted(folder.glob("pytorch_model*.bin*"))
    if pickled and not allow_pickle:
        raise InputError(
            "{0} has pickled weights only ({1}), which can run code when they are loaded; convert "
            "them to safetensors, or pass --allow-pickle to load them with torch's weights_only",
            folder,
            pickled[0].name,
        )
    weights = _weight_files(folder, "pytorch_model.bin")
    if weights:
        return weights
    raise InputError(
        "{0} has no weights; expected model.safetensors, or model.safetensors.index.json and its "
        "shards. Pickled pytorch_model.bin is fetched and read only with --allow-pickle",
        folder,
    )


def _weight_files(folder: Path, name: str) -> list[Path]:
    """Give the file of that name, else the shards that its index lists, else nothing."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file():
        return [folder / name]
    if not index.is_file():
        return []
    names = _shard_names(index)
    missing = [shard for shard in names if not (folder / shard).is_file()]
    if missing:
        raise InputError(
            "{0} lacks {1} of the {2} weight files that {3} lists: {4}; fetch them",
            folder,
            len(missing),
            len(names),
            index.name,
            ", ".join(missing),
        )
    return [folder / shard for shard in names]


def _shard_names(index: Path) -> list[str]:
    shards = _read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InputError("{0} has no weight_map; expected each tensor's file there", index)
    names = sorted(set(map(str, shards.values())))
    # A loader goes by each file's own ending: a pickle must not come in as a shard of safetensors.
    ending = Path(index.name.removesuffix(".index.json")).suffix
    for name in names:
        if "/" in name or not name.endswith(ending):
            raise InputError(
                "{0} lists {1}; expected {2} files of its own folder", index, repr(name), ending
            )
    return names


def _check_weight_file(path: Path) -> None:
    _refuse_pointer(path)
    if path.suffix != ".safetensors":
        return
    try:
        # Opening compares the header with the file's size, and reads nothing else.
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise InputError(
            "{0} is cut short or no safetensors file ({1}); fetch it again", path, first_line(error)
        ) from error


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise InputError(
            "{0} is a Git LFS pointer instead of the file; run `git lfs pull` in {1}",
            path,
            path.parent,
        )


def _check_processor(folder: Path) -> None:
    found = [folder / name for name in PROCESSORS if (folder / name).is_file()]
    if not found:
        raise InputError(
            "{0} has neither {1}, which say how the model's pictures are prepared; copy it from "
            "where the model comes from",
            folder,
            " nor ".join(PROCESSORS),
        )
    for path in found:
        _read_object(path)


def _check_tokenizer(folder: Path) -> None:
    for names in TOKENIZERS:
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            for path in paths:
                _refuse_pointer(path)
            return
    expected = ", ".join("+".join(names) for names in TOKENIZERS)
    raise InputError("{0} has no tokenizer; expected one of {1}", folder, expected)


def read_licence(folder: Path) -> str:
    """Give the licence that the model card, README.md, names; `unknown` where it names none."""
    try:
        card = metadata_load(folder / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return "unknown"
    return str(card.get("license_name") or card.get("license") or "unknown")


def first_line(error: BaseException) -> str:
    """Give an error's first line, without its final dot."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
