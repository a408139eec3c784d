from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wanwu.bank import bank_model
from wanwu.errors import InputError, ModelError, SetupError
from wanwu.repository import (
    MANIFEST,
    Release,
    check_repository,
    newest_release,
    read_manifest,
    write_manifest,
)
from wanwu_export import store
from wanwu_export.banks import BankPlan, model_file, published_builder, published_plan
from wanwu_export.concepts import Concept
from wanwu_export.onnx_bank import read_bank
from wanwu_export.store import contents, writing
from wanwu_export.versions import prune, remove_bank, rollback, verify

MODELS = ("image_encoder", "label_bank", "label_bank_pets", "text_encoder")

ROLL_BACK_AND_BE_KILLED = """
import os, signal, sys
from pathlib import Path
from wanwu_export.versions import rollback

left, rename = int(sys.argv[2]), Path.replace

def counted(source, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(source, target)

Path.replace = counted
rollback(Path(sys.argv[1]))
"""

ROLL_BACK_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from wanwu.errors import SetupError
from wanwu_export.versions import rollback

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    rollback(Path(sys.argv[1]))
except SetupError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def exports(publish_tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two repositories, each with version 1 of another model."""
    folders = tuple(tmp_path_factory.mktemp("exports") / name for name in ("first", "second"))
    for seed, folder in enumerate(folders):
        publish_tiny(folder, seed)
    return folders


@pytest.fixture
def repository(exports: tuple[Path, Path], tmp_path: Path) -> Path:
    """A repository whose version 2 is of another model than its version 1."""
    folder = tmp_path / "model_repository"
    shutil.copytree(exports[0], folder)
    publish_copy(folder, exports[1])
    return folder


def publish_copy(repository: Path, source: Path, *, keep: int = 3) -> int:
    """Publish another repository's model, with the banks that the repository has."""
    release = newest_release(source)
    with writing(repository) as workshop:
        for name in release.files:
            model, _, file = name.split("/")
            staged = workshop.staged / model / "version"
            if not staged.exists():
                workshop.stage(model)
            shutil.copyfile(source / name, staged / file)
        builder = published_builder(source, release)
        banks = dict(release.banks)
        newest = workshop.newest
        for name in newest.banks if newest else ():
            if name not in banks:
                plan = published_plan(repository, newest, name)
                banks[name] = builder.build(plan, workshop, lambda bank, done, total: None)
        return workshop.commit(msgspec.structs.replace(release, banks=banks), keep=keep).version


def build_bank(repository: Path, name: str, *labels: str, keep: int = 3) -> int:
    """Publish a bank of labels."""
    plan = BankPlan(name, [Concept(label) for label in labels], None, "2026-11-23")
    with writing(repository) as workshop:
        release = workshop.newest
        assert release is not None
        builder = published_builder(repository, release)
        built = builder.build(plan, workshop, lambda bank, done, total: None)
        draft = msgspec.structs.replace(release, banks={**release.banks, name: built})
        return workshop.commit(draft, keep=keep).version


def releases(repository: Path) -> dict[str, Release]:
    manifest = read_manifest(repository)
    assert manifest is not None
    return manifest.releases


def snapshot(repository: Path) -> dict[str, bytes]:
    """Every file but the lock and half-made banks."""
    return {
        path.relative_to(repository).as_posix(): path.read_bytes()
        for path in sorted(repository.rglob("*"))
        if path.is_file() and path.name != ".lock" and ".work" not in path.parts
    }


def folders(repository: Path) -> set[str]:
    return {
        path.relative_to(repository).as_posix()
        for path in repository.glob("*/*")
        if path.name.isdecimal()
    }


# Going back


def test_a_rollback_publishes_the_old_files_as_the_next_version(repository):
    done = rollback(repository)
    assert (done.version, done.to, done.unchanged) == (3, 1, False)
    assert done.release == check_repository(repository)
    assert done.release.what == "rollback to 1"
    assert done.release.served == dict.fromkeys(MODELS, 3)
    assert verify(repository, all_versions=True) == []
    for name in releases(repository)["1"].files:
        model, _, file = name.split("/")
        assert (repository / model / "3" / file).read_bytes() == (repository / name).read_bytes()
    before = releases(repository)["1"]
    assert done.release.fingerprint == before.fingerprint != releases(repository)["2"].fingerprint
    assert done.release.banks == before.banks


def test_a_rollback_takes_no_space(repository):
    rollback(repository)
    tower = repository / "image_encoder"
    assert (tower / "3" / "model.onnx").samefile(tower / "1" / "model.onnx")


def test_a_rollback_of_one_bank_leaves_the_others_where_they_are(repository):
    assert build_bank(repository, "pets", "猫", "狗", "鸟") == 3
    done = rollback(repository)
    assert (done.version, done.to) == (4, 2)
    served = {"image_encoder": 2, "text_encoder": 2, "label_bank": 2, "label_bank_pets": 4}
    assert done.release.served == served
    assert folders(repository) >= {"label_bank_pets/4"}
    assert "image_encoder/4" not in folders(repository)
    assert done.release.banks["pets"].count == 2


def test_two_rollbacks_go_there_and_back(repository):
    second = contents(newest_release(repository))
    rollback(repository)
    done = rollback(repository)
    assert (done.version, done.to) == (4, 2)
    assert contents(check_repository(repository)) == second


def test_a_version_that_differs_in_a_younger_bank_alone_is_passed_over(repository):
    build_bank(repository, "food", "面条")
    assert rollback(repository).to == 1


def test_a_younger_bank_is_kept_as_it_is(repository):
    build_bank(repository, "food", "面条")
    build_bank(repository, "pets", "猫", "狗", "鸟")
    done = rollback(repository, 2, keep=9)
    assert done.release.served["label_bank_food"] == 3
    assert done.release.served["label_bank_pets"] == 5
    assert sorted(done.release.banks) == ["default", "food", "pets"]
    assert check_repository(repository) == done.release


def test_a_younger_bank_is_built_anew_for_the_older_model(repository, exports, tmp_path):
    build_bank(repository, "food", "面条", "猫")
    done = rollback(repository, 1)
    built = read_bank(model_file(repository, done.release, "label_bank_food"))
    assert built.contract.fingerprint == done.release.fingerprint
    assert built.contract.fingerprint == newest_release(exports[0]).fingerprint
    shutil.copytree(exports[0], tmp_path / "other")
    build_bank(tmp_path / "other", "food", "面条", "猫")
    there = newest_release(tmp_path / "other").banks["food"]
    assert done.release.banks["food"] == there
    assert verify(repository, all_versions=True) == []


def test_a_damaged_label_file_of_a_younger_bank_is_not_built_from(repository):
    build_bank(repository, "food", "面条", "猫")
    (repository / "label_bank_food" / "3" / "labels.tsv").write_text("label\n别的\n")
    before = snapshot(repository)
    with pytest.raises(SetupError, match=r"nothing was published: .*labels\.tsv has"):
        rollback(repository, 1)
    assert snapshot(repository) == before


@pytest.mark.parametrize("damage", [None, b"half", "flip"], ids=["missing", "short", "flipped"])
def test_a_damaged_old_version_is_refused(repository, damage):
    path = repository / "text_encoder" / "1" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage is not None:
        path.write_bytes(data if damage == "flip" else damage)
    before = snapshot(repository)
    with pytest.raises(SetupError, match="version 1 cannot be used, nothing was published") as told:
        rollback(repository)
    assert str(path) in str(told.value)
    assert snapshot(repository) == before
    assert check_repository(repository) == releases(repository)["2"]


def test_only_what_was_published_comes_back(repository):
    (repository / "text_encoder" / "1" / "__pycache__").mkdir()
    (repository / "text_encoder" / "1" / "notes.txt").write_text("left by a person")
    rollback(repository)
    names = {path.name for path in (repository / "text_encoder" / "3").iterdir()}
    assert names == {"model.onnx", "model.py"}


def test_the_old_entry_point_comes_back_though_the_package_has_a_newer(
    repository, tmp_path, monkeypatch
):
    shutil.copytree(store.static_configs(), tmp_path / "newer")
    for path in (tmp_path / "newer").rglob("model.py"):
        path.write_text("# of a later release\n")
    monkeypatch.setattr(store, "static_configs", lambda: tmp_path / "newer")
    rollback(repository)
    old, new = (repository / "text_encoder" / version / "model.py" for version in "13")
    assert old.read_bytes() == new.read_bytes()
    assert b"later" not in new.read_bytes()


def test_versions_beyond_those_to_keep_go_and_their_linked_files_stay(repository):
    expected = contents(releases(repository)["1"])
    done = rollback(repository, keep=1)
    assert list(releases(repository)) == ["3"]
    assert folders(repository) == {f"{model}/3" for model in MODELS}
    assert contents(check_repository(repository)) == contents(done.release) == expected


def test_label_edits_do_not_take_away_the_model_before(repository):
    expected = contents(releases(repository)["1"])
    for edit in range(5):
        build_bank(repository, "pets", *LABELS[: 1 + edit % 2])
    assert sorted(releases(repository)) == ["1", "5", "6", "7"]
    assert prune(repository) == []
    assert verify(repository, all_versions=True) == []
    done = rollback(repository, 1)
    assert contents(check_repository(repository)) == contents(done.release) == expected
    assert sorted(releases(repository)) == ["6", "7", "8"]


def test_of_each_model_before_the_newest_version_is_kept(repository):
    build_bank(repository, "pets", "鸟")
    rollback(repository, 1)  # version 4, of the first model again
    for _ in range(2):
        build_bank(repository, "pets", "猫", "鸟")
        build_bank(repository, "pets", "鸟")
    assert sorted(releases(repository)) == ["3", "6", "7", "8"]
    assert verify(repository, all_versions=True) == []


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_no_more_than_twice_as_many_versions_are_kept(repository, exports, keep):
    for model in (0, 1, 0, 1):
        publish_copy(repository, exports[model], keep=9)
        for labels in (("鸟",), ("猫", "鸟")):
            build_bank(repository, "pets", *labels, keep=9)
    assert len(releases(repository)) > 6
    prune(repository, keep)
    kept = releases(repository)
    assert len(kept) <= 2 * keep
    models = {release.fingerprint for release in kept.values()}
    assert len(models) == min(2, keep)
    assert folders(repository) == {
        name.rpartition("/")[0] for release in kept.values() for name in release.files
    }


def test_a_version_that_is_not_kept_is_an_input_error(repository):
    before = snapshot(repository)
    with pytest.raises(InputError, match="does not keep version 7; it keeps 2, 1"):
        rollback(repository, 7)
    assert snapshot(repository) == before


def test_one_version_alone_has_nothing_to_go_back_to(exports, tmp_path):
    shutil.copytree(exports[0], tmp_path / "one")
    with pytest.raises(InputError, match="nothing to go back to"):
        rollback(tmp_path / "one")


def test_after_a_removal_alone_the_message_says_to_build_the_bank_again(exports, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(exports[0], folder)
    remove_bank(folder, "pets")
    with pytest.raises(InputError, match=r"removed one is gone from every version: build it"):
        rollback(folder)
    assert rollback(folder, 1).unchanged


def test_going_back_to_what_is_served_changes_nothing(repository):
    before = snapshot(repository)
    done = rollback(repository, 2)
    assert (done.version, done.to, done.unchanged) == (2, 2, True)
    assert snapshot(repository) == before
    rollback(repository, 1)
    again = rollback(repository, 1)
    assert (again.version, again.to, again.unchanged) == (3, 1, True)
    assert list(releases(repository)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "command",
    [rollback, verify, prune, lambda folder: remove_bank(folder, "pets")],
    ids=["rollback", "verify", "prune", "remove"],
)
def test_a_folder_that_is_no_repository_is_told_and_not_made(tmp_path, command):
    with pytest.raises(SetupError, match="there is no model repository"):
        command(tmp_path / "typo")
    assert list(tmp_path.glob("typo")) == []


def test_without_a_manifest_nothing_is_removed(repository):
    (repository / MANIFEST).unlink()
    before = snapshot(repository)
    with pytest.raises(SetupError, match="holds no exported model"):
        prune(repository)
    assert snapshot(repository) == before


# Removing a bank


def test_a_removed_bank_is_gone_from_every_version(repository):
    build_bank(repository, "pets", "猫", "鸟")
    assert remove_bank(repository, "pets") == 4
    assert not (repository / "label_bank_pets").exists()
    for release in releases(repository).values():
        assert "pets" not in release.banks
        assert "label_bank_pets" not in release.served
    assert newest_release(repository).what == "without bank pets"
    assert verify(repository, all_versions=True) == []
    assert "pets" not in rollback(repository, 2, keep=9).release.banks


def test_a_rollback_past_a_removed_bank_works(repository):
    remove_bank(repository, "pets")
    done = rollback(repository, 1)
    assert sorted(done.release.served) == ["image_encoder", "label_bank", "text_encoder"]
    assert check_repository(repository) == done.release


@pytest.mark.parametrize(
    ("name", "reason"),
    [("default", "labels build FILE --bank default"), ("food", "no bank 'food'.*default, pets")],
)
def test_a_bank_that_cannot_be_removed_is_an_input_error(repository, name, reason):
    before = snapshot(repository)
    with pytest.raises(InputError, match=reason):
        remove_bank(repository, name)
    assert snapshot(repository) == before


# Checking


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def make_folder(path: Path) -> None:
    path.mkdir(parents=True)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("label_bank/2/model.onnx", Path.unlink, "is missing although"),
    "truncated": ("label_bank/2/labels.tsv", lambda path: path.write_text("l"), "has 1 bytes"),
    "one bit": ("text_encoder/2/model.onnx", flip, "has SHA-256"),
    "stray version": ("image_encoder/3", make_folder, "in place of version 2.*repository prune"),
    "stray bank": ("label_bank_food/1", make_folder, "of no bank.*repository prune"),
    "config": ("label_bank_pets/config.pbtxt", Path.unlink, "is missing.*repeat the export"),
    "profile": ("text_encoder/configs/gpu.pbtxt", Path.unlink, "is missing.*repeat the export"),
}


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_verify_names_what_is_wrong(repository, name, damage, reason):
    assert verify(repository) == []
    damage(repository / name)
    (problem,) = verify(repository)
    assert problem.startswith(str(repository / name).removesuffix("/1"))
    assert re.search(reason, problem)


def test_verify_looks_at_older_versions_when_asked(repository):
    flip(repository / "image_encoder" / "1" / "model.onnx")
    assert verify(repository) == []
    (problem,) = verify(repository, all_versions=True)
    assert "image_encoder/1/model.onnx has SHA-256" in problem


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("name", ["image_encoder/7", "label_bank_pets/3"])
def test_what_is_no_folder_is_pruned_as_verify_says(repository, exports, kind, name):
    before = snapshot(repository)
    if kind == "file":
        (repository / name).write_text("a person's notes")
    else:
        (repository / name).symlink_to(exports[0])
    (problem,) = verify(repository)
    assert problem.startswith(str(repository / name))
    assert "wanwu repository prune" in problem
    assert prune(repository) == [name]
    assert verify(repository) == []
    assert snapshot(repository) == before
    assert check_repository(exports[0])  # a link's target is left alone


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_does_not_stop_the_next_version(repository, exports, kind):
    if kind == "file":
        (repository / "label_bank_pets" / "3").write_text("a person's notes")
    else:
        (repository / "label_bank_pets" / "3").symlink_to(exports[0])
    assert build_bank(repository, "pets", "鸟") == 3
    assert check_repository(repository).banks["pets"].count == 1
    assert check_repository(exports[0])


def test_verify_names_every_problem(repository):
    for name in ("image_encoder", "text_encoder"):
        (repository / name / "2" / "model.onnx").unlink()
    (repository / "label_bank" / "config.pbtxt").unlink()
    assert len(verify(repository)) == 3


def test_verify_tells_models_of_another_export(repository):
    manifest = read_manifest(repository)
    assert manifest is not None
    newest = msgspec.structs.replace(manifest.releases["2"], fingerprint=5)
    changed = msgspec.structs.replace(manifest, releases={**manifest.releases, "2": newest})
    write_manifest(repository, changed)
    problems = verify(repository)
    assert [problem.split()[0] for problem in problems] == [
        str(repository / model / "2" / "model.onnx") for model in MODELS
    ]
    found = manifest.releases["2"].fingerprint
    for problem in problems:
        assert f"fingerprint {found} and {MANIFEST} says 5 of version 2" in problem


def test_other_models_beside_ours_are_left_alone(repository):
    (repository / "resnet" / "7").mkdir(parents=True)
    (repository / "resnet" / "7" / "model.onnx").write_bytes(b"another team's")
    assert verify(repository) == []
    rollback(repository, keep=1)
    prune(repository, 1)
    assert (repository / "resnet" / "7" / "model.onnx").read_bytes() == b"another team's"


# Publishing


def test_a_bank_of_another_model_is_never_published(repository, exports):
    before = snapshot(repository)
    other = newest_release(exports[0])
    builder = published_builder(exports[0], other)
    plan = BankPlan("food", [Concept("面条")], None, "2026-11-23")
    release = newest_release(repository)
    with writing(repository) as workshop:
        built = builder.build(plan, workshop, lambda bank, done, total: None)
        draft = msgspec.structs.replace(release, banks={**release.banks, "food": built})
        with pytest.raises(ModelError, match="nothing was published") as told:
            workshop.commit(draft, keep=3)
    assert f"label_bank_food has fingerprint {other.fingerprint}" in str(told.value)
    assert str(release.fingerprint) in str(told.value)
    assert snapshot(repository) == before


def test_towers_never_leave_a_bank_of_another_model_behind(repository, exports):
    before = snapshot(repository)
    other = newest_release(exports[0])
    with writing(repository) as workshop:
        for model in ("image_encoder", "text_encoder", "label_bank"):
            shutil.copyfile(
                exports[0] / model / "1" / "model.onnx", workshop.stage(model) / "model.onnx"
            )
        with pytest.raises(ModelError, match="label_bank_pets has fingerprint"):
            workshop.commit(other, keep=3)
    assert snapshot(repository) == before


def test_a_manifest_that_cannot_be_written_leaves_everything_as_it_was(repository, monkeypatch):
    build_bank(repository, "food", "面条")
    before = snapshot(repository)

    def fail(folder: Path, manifest: object) -> None:
        (folder / f".{MANIFEST}.1").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_manifest", fail)
    with pytest.raises(SetupError, match="No space left on device; nothing was published"):
        build_bank(repository, "cars", "汽车")
    with pytest.raises(SetupError, match="nothing was published"):
        rollback(repository, 1)
    assert snapshot(repository) == before
    assert not (repository / "label_bank_cars").exists()
    assert verify(repository, all_versions=True) == []


def test_an_old_folder_that_cannot_be_removed_is_told(repository, monkeypatch):
    remove = shutil.rmtree

    def stuck(folder: Path, ignore_errors: bool = False) -> None:
        if folder.name == "1":
            raise PermissionError(13, "Permission denied")
        remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(store.shutil, "rmtree", stuck)
    with pytest.raises(SetupError, match=r"version 3 is what .*image_encoder/1.*Permission denied"):
        rollback(repository, keep=2)
    monkeypatch.undo()
    assert check_repository(repository) == releases(repository)["3"]
    assert prune(repository, 2) == [f"{model}/1" for model in MODELS]
    assert verify(repository, all_versions=True) == []


def run(script: str, repository: Path, argument: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, str(repository), str(argument)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("renamed", range(len(MODELS) + 1))
def test_a_killed_rollback_is_cleared_away_by_prune(repository, renamed):
    before = snapshot(repository)
    done = run(ROLL_BACK_AND_BE_KILLED, repository, renamed)
    assert done.returncode == -9, done.stderr
    assert releases(repository) == {"1": releases(repository)["1"], "2": newest_release(repository)}
    if renamed:
        with pytest.raises(SetupError, match="run `wanwu repository prune`"):
            check_repository(repository)
        assert len(verify(repository)) == renamed
    assert prune(repository) == [f"{model}/3" for model in MODELS[:renamed]]
    assert snapshot(repository) == before
    assert check_repository(repository) == releases(repository)["2"]
    assert verify(repository, all_versions=True) == []
    assert rollback(repository).version == 3


def test_a_rollback_that_is_not_killed_ends_well(repository):
    done = run(ROLL_BACK_AND_BE_KILLED, repository, len(MODELS) + 1)
    assert done.returncode == 0, done.stderr
    assert check_repository(repository).what == "rollback to 1"


@pytest.mark.parametrize("limit", [10, 1000, 4000])
def test_a_full_disk_leaves_everything_as_it_was(repository, limit):
    build_bank(repository, "food", "面条")
    before = snapshot(repository)
    done = run(ROLL_BACK_ON_A_FULL_DISK, repository, limit)
    assert done.returncode == 1
    assert f"{repository} cannot be written: [Errno 27]" in done.stderr
    assert "nothing was published" in done.stderr
    assert snapshot(repository) == before
    assert check_repository(repository) == releases(repository)["3"]
    assert verify(repository, all_versions=True) == []


def test_a_disk_with_room_takes_the_rollback(repository):
    build_bank(repository, "food", "面条")
    done = run(ROLL_BACK_ON_A_FULL_DISK, repository, 10**6)
    assert done.returncode == 0, done.stderr
    assert check_repository(repository).what == "rollback to 1"


# Whatever the order


LABELS = ("面条", "汽车", "鸟")
steps = st.one_of(
    st.tuples(st.just("export"), st.integers(0, 1)),
    st.tuples(
        st.just("bank"),
        st.sampled_from(["default", "pets", "food"]),
        st.lists(st.sampled_from(LABELS), min_size=1, unique=True).map(tuple),
    ),
    st.tuples(st.just("rollback"), st.integers(0, 9)),
    st.tuples(st.just("prune"), st.integers(1, 3)),
    st.tuples(st.just("remove"), st.sampled_from(["pets", "food"])),
)


@given(st.lists(steps, min_size=2, max_size=8))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@example([("export", 1), ("bank", "food", ("鸟",)), ("rollback", 0), ("remove", "food")])
@example([("bank", "food", ("鸟",)), ("export", 1), ("prune", 1), ("export", 0), ("rollback", 0)])
def test_whatever_is_done_the_right_bytes_are_served(exports, plan):
    with tempfile.TemporaryDirectory() as temporary:
        repository = Path(temporary) / "model_repository"
        shutil.copytree(exports[0], repository)
        for step in plan:
            before = releases(repository)
            newest = check_repository(repository)
            DO[step[0]](repository, exports, newest, before, *step[1:])
            check_invariants(repository, before)


def check_invariants(repository: Path, before: dict[str, Release]) -> None:
    release = check_repository(repository)
    assert verify(repository, all_versions=True) == []
    after = releases(repository)
    assert max(map(int, after)) >= max(map(int, before))
    listed = {name.rpartition("/")[0] for kept in after.values() for name in kept.files}
    assert folders(repository) == listed
    assert sorted(map(bank_model, release.banks)) == sorted(release.served)[1:-1]
    for model, version in release.served.items():
        assert version == max(int(path.name) for path in (repository / model).glob("[1-9]*"))


def do_export(repository, exports, newest, before, seed):
    publish_copy(repository, exports[seed])
    now, source = check_repository(repository), newest_release(exports[seed])
    assert contents(now) | contents(source) == contents(now)
    assert now.fingerprint == source.fingerprint
    assert set(now.banks) == set(newest.banks) | set(source.banks)


def do_bank(repository, exports, newest, before, name, labels):
    build_bank(repository, name, *labels)
    now = check_repository(repository)
    assert read_bank(model_file(repository, now, bank_model(name))).labels == list(labels)
    others = set(newest.served) - {bank_model(name)}
    assert {now.served[model] for model in others} == {newest.served[model] for model in others}


def do_rollback(repository, exports, newest, before, place):
    number = sorted(map(int, before))[place % len(before)]
    target = before[str(number)]
    done = rollback(repository, number)
    now, then = contents(check_repository(repository)), contents(target)
    assert now | then == now
    assert set(now) == set(then) | set(newest.served)
    assert done.release.fingerprint == target.fingerprint
    for model in set(newest.served) - set(then):
        same = now[model] == contents(newest)[model]
        assert same is (newest.fingerprint == target.fingerprint)


def do_prune(repository, exports, newest, before, keep):
    prune(repository, keep)
    assert check_repository(repository) == newest
    kept, all_kept = releases(repository), sorted(before, key=int)
    assert set(all_kept[-keep:]) <= set(kept)
    of_models = {before[number].fingerprint: number for number in all_kept}
    assert set(kept) - set(all_kept[-keep:]) <= set(of_models.values())
    assert len({release.fingerprint for release in kept.values()}) == min(keep, len(of_models))


def do_remove(repository, exports, newest, before, name):
    if name not in newest.banks:
        with pytest.raises(InputError):
            remove_bank(repository, name)
        return
    remove_bank(repository, name)
    now = check_repository(repository)
    assert not (repository / bank_model(name)).exists()
    expected = contents(newest)
    del expected[bank_model(name)]
    assert contents(now) == expected


DO = {
    "export": do_export,
    "bank": do_bank,
    "rollback": do_rollback,
    "prune": do_prune,
    "remove": do_remove,
}
