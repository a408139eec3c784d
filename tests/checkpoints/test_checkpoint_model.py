"""Loading a checkpoint: everything from its files, and a clear refusal of what cannot be served."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from support.checkpoints import families, make_checkpoint
from wanwu.contract import Image, Precision
from wanwu.errors import InputError, ModelError
from wanwu_export.checkpoint.images import read_geometry, read_scale
from wanwu_export.checkpoint.model import load_checkpoint
from wanwu_export.checkpoint.source import locate
from wanwu_export.checkpoint.texts import read_text_spec, read_tokenizer
from wanwu_export.dual_tower import DualTower
from wanwu_export.parity import Gate

FP32 = Precision(image="fp32", text="fp32")
Edit = Callable[..., Path]


def load(folder: Path, **options: Any) -> DualTower:
    return load_checkpoint(locate(str(folder), **options), FP32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function that makes each family's checkpoint once; tests only read it."""
    root, done = tmp_path_factory.mktemp("made"), {}

    def make(family: str) -> Path:
        if family not in done:
            done[family] = make_checkpoint(family, root / family)
        return done[family]

    return make


@pytest.fixture
def edited(made: Callable[[str], Path], tmp_path: Path) -> Edit:
    """Give a function that copies a checkpoint and edits one of its JSON files or its weights."""

    def edit(family: str = "chinese_clip", **files: Callable[[dict[str, Any]], object]) -> Path:
        folder = shutil.copytree(made(family), tmp_path / "checkpoint")
        for name, change in files.items():
            if name == "weights":
                path = folder / "model.safetensors"
                tensors = load_file(path)
                change(tensors)
                save_file(tensors, path, metadata={"format": "pt"})
            else:
                path = folder / f"{name}.json"
                values = json.loads(path.read_text())
                change(values)
                path.write_text(json.dumps(values))
        return folder

    return edit


@pytest.mark.parametrize("family", families())
def test_what_reaches_the_towers_is_the_originals(made, family):
    assert Gate(load(made(family))).check_preparation() <= 2.0


@pytest.mark.parametrize("family", families())
def test_scores_are_read_from_the_checkpoint(made, family):
    score = load(made(family)).score
    stored = load_file(made(family) / "model.safetensors")
    assert score.logit_scale == pytest.approx(math.exp(float(stored["logit_scale"])))
    if family.startswith("siglip"):
        assert (score.kind, score.logit_bias) == ("sigmoid", pytest.approx(-3.0))
    else:
        assert (score.kind, score.logit_bias) == ("softmax", 0.0)


@pytest.mark.parametrize("family", families())
def test_the_text_length_is_free_unless_the_last_token_is_read(made, family):
    spec = load(made(family)).text_spec
    fixed = family.startswith("siglip")
    assert spec.padding == ("max_length" if fixed else "longest")
    assert spec.pad_side == "right"


def test_roberta_positions_after_the_padding_are_left_out(made):
    # 34 positions, of which two lie before the first token's.
    tokenizer = transformers.AutoTokenizer.from_pretrained(made("altclip"))
    tokenizer.model_max_length = 512
    config = transformers.AutoConfig.from_pretrained(made("altclip")).text_config
    assert read_text_spec(tokenizer, config).max_length == 32


def test_a_maximum_length_that_no_file_names_is_refused(made):
    tokenizer = transformers.AutoTokenizer.from_pretrained(made("chinese_clip"))
    tokenizer.model_max_length = int(1e30)
    config = transformers.BertConfig(max_position_embeddings=0)
    with pytest.raises(InputError, match="names no maximum text length"):
        read_text_spec(tokenizer, config)


TEXTS = st.text(
    st.one_of(
        st.sampled_from("猫狗火锅高铁站 　abcXYZ019,.!?、。“”-_/|▁😀éÉ①ｱﾊﾟ臺灣\t"),
        st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")),
    ),
    max_size=30,
).map(str.strip)


@pytest.mark.parametrize("family", families())
def test_token_ids_are_the_tokenizers_own(made, family):
    theirs = transformers.AutoTokenizer.from_pretrained(made(family))
    ours = Tokenizer.from_str(read_tokenizer(theirs).decode())

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(TEXTS)
    def check(text: str) -> None:
        special = any(token in text for token in theirs.all_special_tokens)
        if text and not special:  # a client refuses blank labels, and nobody calls a thing </s>
            assert ours.encode(text).ids == theirs(text)["input_ids"]

    check()


def test_an_untokenizable_kind_is_refused():
    class OnlyInPython:
        backend_tokenizer = None

    with pytest.raises(InputError, match="is a OnlyInPython, which runs only in Python"):
        read_tokenizer(OnlyInPython())


def test_a_missing_weight_is_refused(edited):
    folder = edited(weights=lambda weights: weights.pop("logit_scale"))
    with pytest.raises(ModelError, match="lacks 1 weights: logit_scale"):
        load(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused(edited, value):
    def spoil(weights: dict[str, Any]) -> None:
        weights["text_projection.weight"][0, 0] = value

    with pytest.raises(ModelError, match=r"weight text_projection.weight holds NaN or infinity"):
        load(edited(weights=spoil))


def test_weights_of_another_size_are_refused(edited):
    folder = edited(config=lambda config: config.update(projection_dim=8))
    with pytest.raises(ModelError, match=r"weights do not fit config.json: .*projection"):
        load(folder)


@pytest.mark.parametrize("model_type", ["bert", "blip", "my_own_model"])
def test_a_model_that_is_no_dual_tower_is_refused(edited, model_type):
    folder = edited(config=lambda config: config.update(model_type=model_type))
    with pytest.raises(InputError, match=f"says model_type '{model_type}', which is no dual tower"):
        load(folder)


def test_naflex_is_refused_with_its_reason(edited):
    folder = edited(config=lambda config: config.update(model_type="siglip2"))
    with pytest.raises(InputError, match=r"NaFlex .*lists of patches.* fixed resolution"):
        load(folder)


def test_remote_code_is_never_run(edited):
    def point(config: dict[str, Any]) -> None:
        config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}

    folder = edited(config=point)
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    assert load(folder).model.name == "checkpoint"


def test_pickled_weights_are_read_only_when_allowed(made, edited):
    folder = edited()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="--allow-pickle"):
        load(folder)
    pickled, plain = load(folder, allow_pickle=True), load(made("chinese_clip"))
    assert pickled.fingerprint == plain.fingerprint


def test_a_pickle_that_runs_code_is_refused_even_when_allowed(edited, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    folder = edited()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights of .* cannot be loaded"):
        load(folder, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def test_half_precision_weights_are_read_as_fp32(edited):
    def halve(weights: dict[str, Any]) -> None:
        for name in weights:
            weights[name] = weights[name].half()

    tower = load(edited(weights=halve))
    assert {weight.dtype for weight in tower.image.parameters()} == {torch.float32}


def test_the_licence_is_read_from_the_model_card(edited, made):
    folder = edited()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert load(folder).model.licence == "apache-2.0"
    assert load(made("chinese_clip")).model.licence == "unknown"


def test_every_part_of_the_path_changes_the_fingerprint(edited, made):
    plain = load(made("chinese_clip")).fingerprint

    def change_mean(config: dict[str, Any]) -> None:
        config["image_processor"]["image_mean"][0] = 0.5

    assert load(edited(processor_config=change_mean)).fingerprint != plain
    assert load(made("chinese_clip")).fingerprint == plain


SQUASH = {"do_resize": True, "size": {"height": 8, "width": 6}, "resample": 3}
CROP = {"size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": 8, "resample": 2}


def test_geometry_of_both_kinds():
    assert read_geometry(SQUASH) == Image(height=8, width=6, resize="squash", resample="bicubic")
    assert read_geometry(CROP) == Image(
        height=8, width=8, resize="shortest_edge", shortest_edge=9, resample="bilinear"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"do_pad": True}, "do_pad is true"),
        ({"resample": 9}, "resample is 9"),
        ({"size": {"longest_edge": 9}}, "expected height and width, or shortest_edge"),
        ({"size": {"shortest_edge": 9}}, "without a crop"),
        ({"do_center_crop": True, "crop_size": 4}, "squashed to .* and then cropped"),
        (CROP | {"crop_size": 10}, "smaller than the 10x10 crop"),
    ],
)
def test_geometry_that_a_contract_cannot_say_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        read_geometry(SQUASH | change)


@pytest.mark.parametrize(
    "change", [{"image_mean": [0.5]}, {"image_std": None}, {"image_std": [0.5, 0, 0.5]}]
)
def test_scaling_that_is_not_three_numbers_is_refused(change):
    with pytest.raises(InputError, match=f"{next(iter(change))} is"):
        read_scale({"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | change)


def test_scaling_is_left_out_where_the_processor_leaves_it_out():
    scale = read_scale({"do_rescale": False, "do_normalize": False})
    pixels = torch.arange(12.0).reshape(1, 3, 2, 2)
    assert torch.equal(scale(pixels), pixels)


NO_NETWORK = """
import os, sys
def guard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        os.write(2, f"NETWORK {event} {arguments}".encode())
        os._exit(77)
sys.addaudithook(guard)
from wanwu.cli import main
sys.argv = ["wanwu", *sys.argv[1:]]
main()
"""


def test_a_whole_export_of_a_folder_makes_no_network_call(made, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("猫\n狗\n", encoding="utf-8")
    arguments = ["export", made("chinese_clip"), "--output", tmp_path / "out", "--labels", labels]
    command = [sys.executable, "-c", NO_NETWORK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "published as version 1" in done.stdout


def test_the_guard_of_that_test_works():
    probe = "import socket; socket.create_connection(('127.0.0.1', 9))"
    code = NO_NETWORK.replace("from wanwu.cli import main", probe)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 77, done.stderr
