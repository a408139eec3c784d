"""`wanwu keys`: the file keeps hashes alone, and no change of it is lost."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from wanwu.errors import SetupError
from wanwu.gateway.keys import Key, KeyFile, create_key, read_keys, revoke_key, rotate_key

WANWU = Path(sys.executable).with_name("wanwu")

PAST = datetime(2024, 5, 6, 7, 8, tzinfo=timezone.utc)

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


@pytest.fixture
def keys(tmp_path: Path) -> Run:
    """Run `wanwu keys` in the test's own folder, as an operator would."""

    def command(*arguments: str) -> Result:
        done = subprocess.run(
            [WANWU, "keys", *arguments],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        return done

    return command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def key(name: str, **values: object) -> Key:
    written = datetime(2024, 1, 1, tzinfo=timezone.utc)
    known = {"id": "0" * 12, "sha256": "0" * 64, "scopes": ("embed",), "created": written}
    return Key.model_validate({**known, "name": name, **values})


def write(file: Path, *keys: Key) -> None:
    file.write_text(KeyFile(keys=keys).model_dump_json())


# Making keys


def test_a_key_is_told_once_and_its_hash_alone_is_kept(keys: Run, file: Path) -> None:
    done = keys("create", "--name", "门店一", "--scope", "recognise", "--scope", "embed")
    token = done.stdout.strip()
    assert done.returncode == 0
    assert token.startswith("wanwu_")
    assert "shown this once" in done.stderr
    assert token not in done.stderr
    assert token[-40:] not in file.read_text()
    (kept,) = read_keys(file).keys
    assert kept.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert (kept.name, kept.scopes, kept.expires) == ("门店一", ("recognise", "embed"), None)


def test_a_key_may_recognise_and_no_more_unless_told(keys: Run, file: Path) -> None:
    keys("create", "--name", "shop")
    assert read_keys(file).keys[0].scopes == ("recognise",)


def test_a_key_may_expire_and_have_a_rate_of_its_own(keys: Run, file: Path) -> None:
    keys("create", "--name", "shop", "--days", "1.5", "--rate", "100/minute")
    (kept,) = read_keys(file).keys
    assert kept.expires is not None
    assert kept.expires - kept.created < timedelta(days=1.5, seconds=1)
    assert kept.expires - kept.created > timedelta(days=1.5, seconds=-5)
    assert kept.rate == "100/minute"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--scope", "write"], "the scope is 'write'; expected one of recognise, embed, admin"),
        (["--rate", "often"], "the key's rate is 'often'"),
        (["--rate", "9/minute;1/second"], "several rates came; give one"),
        (["--days", "0"], "which is past; give a later time"),
        (["--days", "inf"], "--days is inf, which is past the year 9999"),
        (["--days", "1e12"], "--days is 1e+12, which is past the year 9999"),
        (["--name", ""], "the key's name is ''"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_used_makes_no_key(
    keys: Run, file: Path, arguments: list[str], reason: str
) -> None:
    done = keys("create", "--name", "shop", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert not file.exists()


def test_two_valid_keys_never_share_a_name(keys: Run, file: Path) -> None:
    create_key(file, "shop", ("recognise",))
    done = keys("create", "--name", "shop")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is a valid key named 'shop'" in done.stderr
    revoke_key(file, "shop")
    create_key(file, "shop", ("recognise",))
    assert len(read_keys(file).keys) == 2


def test_a_new_file_is_for_its_owner_alone(keys: Run, tmp_path: Path) -> None:
    keys("create", "--name", "shop", "--file", "new/folder/keys.json")
    assert (tmp_path / "new/folder/keys.json").stat().st_mode & 0o777 == 0o600


def test_a_file_keeps_its_permissions(file: Path) -> None:
    create_key(file, "shop", ("recognise",))
    file.chmod(0o640)
    create_key(file, "another", ("recognise",))
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes files for others")
def test_root_leaves_the_file_to_its_owner(file: Path) -> None:
    create_key(file, "shop", ("recognise",))
    os.chown(file, 4321, 1234)
    create_key(file, "another", ("recognise",))
    assert (file.stat().st_uid, file.stat().st_gid) == (4321, 1234)


def test_keys_that_are_made_at_the_same_time_are_all_kept(keys: Run, file: Path) -> None:
    names = [f"shop {number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda name: keys("create", "--name", name), names)
    assert [done.returncode for done in made] == [0] * 4
    assert sorted(key.name for key in read_keys(file).keys) == names
    left = {each.name for each in file.parent.iterdir() if each.is_file()}
    assert left == {"keys.json", "keys.audit.jsonl", "keys.audit.jsonl.head"}


def test_names_are_kept_whatever_the_terminal_writes(file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from wanwu.gateway.keys import create_key;"
        "create_key(Path(sys.argv[1]), '\\u95e8\\u5e97', ('recognise',))"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment = os.environ | ascii_only
    subprocess.run([sys.executable, "-c", program, file], env=environment, check=True, timeout=60)
    assert read_keys(file).keys[0].name == "门店"


# Listing and revoking them


def test_the_list_tells_what_each_may_do_and_whether_it_may(keys: Run, file: Path) -> None:
    past = datetime(2024, 5, 6, 7, 8, tzinfo=timezone.utc)
    write(
        file,
        key("shop", id="a" * 12, scopes=("recognise", "admin"), rate="9/second"),
        key("former shop", id="b" * 12, expires=past),
        key("stolen", id="c" * 12, revoked=past),
    )
    valid, expired, revoked = keys("list").stdout.splitlines()
    assert valid.split() == ["a" * 12, "valid", "-", "recognise,admin", "9/second", "shop"]
    assert expired.startswith(f"{'b' * 12}  expired   2024-05-06 07:08Z  embed")
    assert expired.endswith("  former shop")
    assert revoked.split() == ["c" * 12, "revoked", "-", "embed", "-", "stolen"]


@pytest.mark.parametrize("which", ["name", "id"])
def test_a_key_is_revoked_by_its_name_or_its_id(keys: Run, file: Path, which: str) -> None:
    shop, _ = create_key(file, "shop", ("recognise",))
    create_key(file, "another", ("recognise",))
    done = keys("revoke", getattr(shop, which))
    assert done.stdout == f"wanwu: revoked key {shop.id} of shop\n"
    assert [each.revoked is None for each in read_keys(file).keys] == [False, True]


def test_of_two_keys_of_a_name_the_valid_one_is_revoked(keys: Run, file: Path) -> None:
    past = datetime(2024, 5, 6, tzinfo=timezone.utc)
    write(file, key("shop", id="a" * 12, expires=past), key("shop", id="b" * 12))
    assert keys("revoke", "shop").stdout == f"wanwu: revoked key {'b' * 12} of shop\n"


def test_of_two_expired_keys_of_a_name_the_operator_chooses(keys: Run, file: Path) -> None:
    past = datetime(2024, 5, 6, tzinfo=timezone.utc)
    write(file, *(key("shop", id=each * 12, expires=past) for each in "ab"))
    done = keys("revoke", "shop")
    assert done.returncode == 2
    assert f"2 keys are named 'shop': {'a' * 12}, {'b' * 12}; give the id of one" in done.stderr


def test_a_key_is_revoked_once(keys: Run, file: Path) -> None:
    create_key(file, "shop", ("recognise",))
    revoke_key(file, "shop")
    kept = file.read_bytes()
    done = keys("revoke", "shop")
    assert done.returncode == 2
    assert "no valid key has the id or name 'shop'" in done.stderr
    assert file.read_bytes() == kept


def test_a_key_stays_as_it_is_when_another_is_made_or_revoked(file: Path) -> None:
    soon = datetime.now(timezone.utc) + timedelta(days=1)
    create_key(file, "shop", ("recognise", "admin"), soon, "9/second")
    before = read_keys(file).keys[0]
    create_key(file, "another", ("recognise",))
    revoke_key(file, "another")
    assert read_keys(file).keys[0] == before


# Rotating them


def test_a_rotated_key_has_another_secret_and_the_old_one_for_a_day(keys: Run, file: Path) -> None:
    create_key(file, "门店一", ("recognise", "embed"), rate="9/second")
    done = keys("rotate", "门店一")
    old, new = read_keys(file).keys
    assert hashlib.sha256(done.stdout.strip().encode()).hexdigest() == new.sha256 != old.sha256
    assert (new.name, new.scopes, new.rate) == ("门店一", ("recognise", "embed"), "9/second")
    assert (new.expires, new.revoked, old.revoked) == (None, None, None)
    assert old.expires is not None
    assert timedelta(hours=23.9) < old.expires - new.created <= timedelta(hours=24)
    assert f"key {old.id} of 门店一 ends at {old.expires:%Y-%m-%d %H:%M}Z" in done.stderr
    assert f"key {new.id} for 门店一 in keys.json; it is shown this once:" in done.stderr


def test_the_new_key_lives_as_long_as_the_old_one_was_meant_to(file: Path) -> None:
    now = datetime.now(timezone.utc)
    create_key(file, "shop", ("recognise",), now + timedelta(hours=1))
    create_key(file, "kitchen", ("recognise",), datetime.max.replace(tzinfo=timezone.utc))
    old, new, _ = rotate_key(file, "shop", timedelta(days=1))
    assert old.expires == now + timedelta(hours=1)  # a grace makes no life longer
    assert new.expires is not None
    assert abs(new.expires - now - timedelta(hours=1)) < timedelta(seconds=10)
    _, last, _ = rotate_key(file, "kitchen", timedelta(0))
    assert last.expires is not None
    assert last.expires.year == 9999


def test_without_a_grace_the_old_secret_ends_at_once(keys: Run, file: Path) -> None:
    create_key(file, "shop", ("recognise",))
    keys("rotate", "shop", "--grace-hours", "0")
    states = [key.state(datetime.now(timezone.utc)) for key in read_keys(file).keys]
    assert states == ["expired", "valid"]


def test_of_two_keys_of_a_name_the_operator_says_which_to_rotate(keys: Run, file: Path) -> None:
    create_key(file, "shop", ("recognise",))
    old, new, _ = rotate_key(file, "shop", timedelta(days=1))
    done = keys("rotate", "shop")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"2 keys are named 'shop': {old.id}, {new.id}; give the id of one" in done.stderr
    assert keys("rotate", new.id).returncode == 0


@pytest.mark.parametrize("values", [{"revoked": PAST}, {"expires": PAST}], ids=str)
def test_a_key_that_is_not_valid_is_not_rotated(
    keys: Run, file: Path, values: dict[str, object]
) -> None:
    write(file, key("shop", **values))
    done = keys("rotate", "shop")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no valid key has the id or name 'shop'" in done.stderr
    assert len(read_keys(file).keys) == 1


# When they were used


def used(identity: str, time: str, kind: str = "key") -> str:
    principal = {"kind": kind, "id": identity, "name": "n"}
    line = {"seq": 1, "time": time, "event": "request", "principal": principal}
    return json.dumps(line, separators=(",", ":")) + "\n"


def test_the_list_has_the_last_use_of_each_key_in_an_audit_log(
    keys: Run, file: Path, tmp_path: Path
) -> None:
    write(file, *(key(name, id=name * 12) for name in "abc"))
    (tmp_path / "1.jsonl").write_text(
        used("a" * 12, "2026-01-02T03:04:05.000001Z")
        + used("b" * 12, "2026-05-01T00:00:00.000000Z")
    )
    (tmp_path / "2.jsonl").write_text(
        '{"seq":2,"event":"stop"}\n'
        + used("a" * 12, "2026-03-02T03:04:05.000001Z")
        + used("c" * 12, "2026-03-02T03:04:05.000001Z", "token")
    )
    done = keys("list", "--audit", "2.jsonl", "--audit", "1.jsonl")
    found = [line[-20:].rstrip() for line in done.stdout.splitlines()]
    assert found == ["2026-03-02 03:04Z  a", "2026-05-01 00:00Z  b", "-                  c"]


def test_a_line_that_is_no_audit_logs_is_shown(keys: Run, file: Path, tmp_path: Path) -> None:
    write(file, key("shop"))
    (tmp_path / "log").write_text('{"principal":{"kind":"key"}\n')
    done = keys("list", "--audit", "log")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a line is no audit log's: b'{" in done.stderr


# Files that cannot be used


@pytest.mark.parametrize("command", [["list"], ["revoke", "shop"]], ids=" ".join)
def test_a_file_that_is_missing_ends_with_code_5(keys: Run, command: list[str]) -> None:
    done = keys(*command)
    assert done.returncode == 5
    assert "there is no file of keys keys.json; make one with `wanwu keys create" in done.stderr


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "the file"),
        ('{"keys": [', "the file"),
        ('{"version": 2, "keys": []}', "version"),
        ('{"keys": [{"name": "shop"}]}', "keys.0.id"),
        ('{"keys": [], "more": 1}', "more"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(file: Path, content: str, place: str) -> None:
    file.write_text(content)
    with pytest.raises(SetupError, match=rf"keys.json is not a file of keys \({place}: "):
        read_keys(file)


@pytest.mark.parametrize(
    "command",
    [["list"], ["create", "--name", "shop"], ["revoke", "shop"], ["rotate", "shop"]],
    ids=" ".join,
)
def test_a_broken_file_is_left_as_it_is(keys: Run, file: Path, command: list[str]) -> None:
    file.write_text('{"keys": [')
    done = keys(*command)
    assert (done.returncode, done.stdout) == (5, "")
    assert "is not a file of keys" in done.stderr
    assert file.read_text() == '{"keys": ['
