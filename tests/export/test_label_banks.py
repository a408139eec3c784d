"""Label banks of an exported model: one is added or replaced, and the rest stays as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from wanwu.errors import InputError, LabelError, SetupError
from wanwu.repository import MANIFEST, check_repository, newest_release
from wanwu_export.bank_embedding import CHUNK
from wanwu_export.banks import BankPlan, file_plan, published_plan
from wanwu_export.concepts import Concept
from wanwu_export.label_banks import (
    BankSummary,
    build,
    diff,
    published_concepts,
    read_list,
    summaries,
)
from wanwu_export.onnx_bank import read_bank
from wanwu_export.store import Published, writing
from wanwu_export.templates import load_templates

CAT = Concept("猫", ("猫咪", "小猫"), category="动物", description="会叫的动物")
DOG = Concept("狗", category="动物")
PLAN = BankPlan("birds", [Concept("鸟"), CAT], None, "2026-11-01")

# The tiny tower of these tests knows few characters.
pytestmark = pytest.mark.filterwarnings("ignore:the model ")

#: Builds a bank where torch cannot be imported.
WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules["torch"] = sys.modules["transformers"] = None
from wanwu_export.banks import file_plan
from wanwu_export.label_banks import build
plan, _ = file_plan(Path(sys.argv[2]), "birds", None)
print(build(Path(sys.argv[1]), plan, step=len).version)
"""


@pytest.fixture(scope="module")
def exported(publish_tiny, tmp_path_factory) -> Path:
    """One export of two banks, made once; tests only read it."""
    folder = tmp_path_factory.mktemp("tiny") / "model_repository"
    publish_tiny(folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of that export, to be changed."""
    return shutil.copytree(exported, tmp_path / "model_repository")


def run(folder: Path, plan: BankPlan = PLAN, **changed: object) -> Published:
    return build(folder, plan, **{"step": len, **changed})


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Give the time and bytes of everything that is served, and the manifest."""
    paths = [*folder.glob("*/[0-9]*/*"), folder / MANIFEST]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in paths
    }


# Building


def test_a_warning_tells_of_labels_the_model_cannot_read(folder: Path):
    concepts = [Concept("猫"), Concept("鵸鵌"), Concept("鴟鴞", aliases=("猫",))]
    with pytest.warns(UserWarning, match="knows no character of 鵸鵌; such a label's score"):
        run(folder, BankPlan("birds", concepts, None, "2026-11-01"))


def test_a_new_bank_leaves_the_towers_and_the_other_banks_where_they_are(folder):
    before, files = newest_release(folder), snapshot(folder)
    built = run(folder)
    assert (built.version, built.unchanged) == (2, False)
    assert built.release.served == {**before.served, "label_bank_birds": 2}
    assert check_repository(folder) == built.release
    after = snapshot(folder)
    added = {f"label_bank_birds/2/{name}" for name in ("model.onnx", "model.py", "labels.tsv")}
    assert after.keys() - files.keys() == added
    assert {name for name in files if after[name] != files[name]} == {MANIFEST}


def test_the_release_says_what_was_built_and_is_otherwise_the_newest_one(folder):
    before = newest_release(folder)
    release = run(folder).release
    assert release.what == "bank birds"
    assert release.banks.keys() == {*before.banks, "birds"}
    assert (release.banks["birds"].count, release.banks["birds"].templates) == (2, None)
    ours = {"what", "published", "banks", "files"}
    kept = [name for name in before.__struct_fields__ if name not in ours]
    assert [getattr(release, name) for name in kept] == [getattr(before, name) for name in kept]


@pytest.mark.parametrize(
    ("name", "model"), [("pets", "label_bank_pets"), ("default", "label_bank")]
)
def test_a_bank_is_replaced_by_the_next_version_of_its_model_alone(folder, name, model):
    before = newest_release(folder)
    built = run(folder, replace(PLAN, name=name))
    assert built.release.served == {**before.served, model: 2}
    assert built.release.banks[name] != before.banks[name]
    assert published_concepts(folder, name) == PLAN.concepts
    assert published_concepts(folder, f"{name}@1") == [Concept("猫", category="动物"), DOG]


def test_a_bank_holds_what_an_export_would_have_put_there(folder, make_banks):
    old = (folder / "label_bank_pets" / "1" / "model.onnx").read_bytes()
    run(folder, replace(PLAN, name="pets"))
    (again,) = make_banks("pets")
    run(folder, again)
    assert (folder / "label_bank_pets" / "3" / "model.onnx").read_bytes() == old


def test_templates_are_kept_in_the_bank_and_the_release(folder):
    zh = load_templates("zh-food")
    release = run(folder, replace(PLAN, templates=zh)).release
    assert release.banks["birds"].templates == "zh-food"
    bank = read_bank(folder / "label_bank_birds" / "2" / "model.onnx").contract.bank
    assert (bank.templates, bank.created) == (zh.texts, "2026-11-01")


@pytest.mark.parametrize("created", ["2026-11-01", "2026-12-24"])
def test_the_same_bank_on_any_day_changes_nothing(folder, created):
    run(folder)
    before = snapshot(folder)
    built = run(folder, replace(PLAN, created=created))
    assert (built.version, built.unchanged) == (2, True)
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"concepts": PLAN.concepts[::-1]},
        {"concepts": [PLAN.concepts[0]]},
        {"concepts": [PLAN.concepts[0], replace(CAT, description="别的")]},
        {"concepts": [PLAN.concepts[0], replace(CAT, broader=("哺乳动物",))]},
        {"templates": load_templates("zh")},
    ],
    ids=["order", "fewer", "description", "a word that weighs nothing", "templates"],
)
def test_a_bank_that_differs_is_published_with_its_own_date(folder, changed):
    run(folder)
    built = run(folder, replace(PLAN, created="2026-12-24", **changed))
    assert (built.version, built.unchanged) == (3, False)
    path = folder / "label_bank_birds" / "3" / "model.onnx"
    assert read_bank(path).contract.bank.created == "2026-12-24"


def test_old_releases_are_dropped_but_what_is_served_stays(folder):
    run(folder)
    built = run(folder, replace(PLAN, name="fish"), keep=1)
    assert built.release.served["label_bank_birds"] == 2
    assert check_repository(folder) == built.release
    with pytest.raises(InputError, match="does not keep; it has 3"):
        published_concepts(folder, "birds@2")


def test_no_torch_is_needed(folder, tmp_path):
    labels = tmp_path / "birds.txt"
    labels.write_text("鸟\n", "utf-8")
    command = [sys.executable, "-c", WITHOUT_TORCH, folder, labels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


# What cannot be built


@pytest.mark.parametrize("name", ["", "Birds", "鸟", "a/b", "../x", "a" * 65])
def test_a_name_that_no_bank_can_have_is_refused(folder, name):
    before = snapshot(folder)
    with pytest.raises(InputError, match="cannot be a bank's name"):
        run(folder, replace(PLAN, name=name))
    assert snapshot(folder) == before


def test_a_label_of_too_many_tokens_is_named_before_the_long_work(folder):
    before, counted = snapshot(folder), []
    fine = [Concept(f"鸟{n}") for n in range(CHUNK)]
    plan = replace(PLAN, concepts=[*fine, Concept("很长" * 9)])
    with pytest.raises(LabelError, match=r"'很长很长.* is 18 tokens and the model reads 16"):
        run(folder, plan, progress=lambda *told: counted.append(told))
    assert counted == []
    assert snapshot(folder) == before


def test_templates_count_for_the_length_of_a_label(folder):
    plan = replace(PLAN, concepts=[Concept("很长" * 6)], templates=load_templates("zh"))
    with pytest.raises(LabelError, match=r"is .* tokens and the model reads 16"):
        run(folder, plan)
    assert run(folder, replace(plan, templates=None)).version == 2


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_a_folder_without_an_export_is_told_and_left_alone(tmp_path, made):
    folder = tmp_path / "model_repository"
    if made:
        folder.mkdir()
    with pytest.raises(SetupError, match=f"wanwu export starter --output {folder}"):
        run(folder)
    assert list(tmp_path.rglob("*")) == ([folder] if made else [])


@pytest.mark.parametrize("model", ["text_encoder", "label_bank"])
def test_a_model_that_is_damaged_builds_no_bank(folder, model):
    path = folder / model / "1" / "model.onnx"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(SetupError, match=rf"{model}/1/model.onnx has SHA-256"):
        run(folder)
    assert not (folder / "label_bank_birds").exists()


def test_two_builds_at_once_are_refused(folder):
    with writing(folder), pytest.raises(SetupError, match=r"another .* is writing to"):
        run(folder)
    assert run(folder).version == 2


def test_an_interrupted_build_leaves_the_old_bank_and_is_resumed(folder):
    before = snapshot(folder)
    plan = BankPlan("pets", [Concept(f"狗{n}") for n in range(2 * CHUNK)], None, "2026-11-01")
    told: list[tuple[str, int, int]] = []

    def stop(bank: str, done: int, total: int) -> None:
        if done == CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, plan, progress=stop)
    assert snapshot(folder) == before
    assert check_repository(folder).served["label_bank_pets"] == 1
    built = run(folder, plan, progress=lambda *counted: told.append(counted))
    assert told == [("pets", CHUNK, 2 * CHUNK), ("pets", 2 * CHUNK, 2 * CHUNK)]
    assert (built.version, built.release.banks["pets"].count) == (2, 2 * CHUNK)


# Listing and showing


def test_each_bank_is_summed_up(folder):
    run(folder, replace(PLAN, templates=load_templates("zh-food")))
    found = summaries(folder)
    size = sum(path.stat().st_size for path in (folder / "label_bank_birds" / "2").iterdir())
    assert [(bank.name, bank.templates, bank.version) for bank in found] == [
        ("birds", "zh-food", 2),
        ("default", "bare", 1),
        ("pets", "bare", 1),
    ]
    assert found[0] == BankSummary("birds", 2, "zh-food", 2, "2026-11-01", size)


@pytest.mark.parametrize(
    ("bank", "reason"),
    [
        ("nosuch", "no bank 'nosuch' .* it has birds, default, pets$"),
        ("birds@1", "no bank 'birds@1' .* it has default@1, pets@1$"),
        ("pets@7", "'pets@7' names version '7', .* it has 1, 2$"),
        ("pets@", "names version ''"),
        ("pets@x", "names version 'x'"),
        ("../pets", "no bank"),
    ],
)
def test_a_bank_that_is_not_there_is_told_with_those_that_are(folder, bank, reason):
    run(folder)
    with pytest.raises(InputError, match=reason):
        published_concepts(folder, bank)


@pytest.mark.parametrize("text", [None, "label\n猪\n"], ids=["lost", "edited"])
def test_published_labels_that_were_changed_are_told(folder, text):
    path = folder / "label_bank_pets" / "1" / "labels.tsv"
    path.unlink()
    if text:
        path.write_text(text, "utf-8")
    with pytest.raises(SetupError, match=r"label_bank_pets/1/labels.tsv.*export again"):
        published_concepts(folder, "pets")


def test_a_list_is_a_file_where_it_looks_like_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pets.TXT").write_text("鸟\n\n鱼\n", "utf-8")
    read = read_list(folder, "pets.TXT")
    assert read.concepts == [Concept("鸟"), Concept("鱼")]
    assert len(read.notes) == 1
    assert read_list(folder, "pets").concepts == published_concepts(folder, "pets")
    with pytest.raises(LabelError, match="x/pets is neither"):
        read_list(folder, "x/pets")


def test_a_published_bank_is_built_from_its_own_file_as_unchanged(folder):
    run(folder)
    path = folder / "label_bank_birds" / "2" / "labels.tsv"
    plan, notes = file_plan(path, "birds", None)
    assert run(folder, plan).unchanged
    assert notes == []
    assert published_plan(folder, newest_release(folder), "birds").concepts == PLAN.concepts


# Comparing


def test_a_diff_names_what_came_what_went_and_what_changed():
    bird, fish = Concept("鸟"), Concept("鱼")
    found = diff([CAT, DOG, bird], [fish, bird, replace(CAT, category="宠物")])
    assert (found.added, found.removed, found.same) == ([fish], [DOG], 1)
    assert [(each.before, each.after) for each in found.changed] == [
        (CAT, replace(CAT, category="宠物"))
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"aliases": ("小猫",)},
        {"aliases": ("小猫", "猫咪")},
        {"category": ""},
        {"broader": ("哺乳动物",)},
        {"description": "别的", "category": "宠物"},
    ],
    ids=lambda change: " ".join(change),
)
def test_a_change_names_the_columns_that_differ(change):
    (changed,) = diff([CAT], [replace(CAT, **change)]).changed
    assert set(changed.differing) == set(change)


def test_a_list_does_not_differ_from_itself_in_another_order():
    found = diff([CAT, DOG], [DOG, CAT])
    assert (found.added, found.removed, found.changed, found.same) == ([], [], [], 2)
