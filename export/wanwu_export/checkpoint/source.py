"""Find the checkpoint that `wanwu export SOURCE` names: a local folder, fetched where need be.

It knows where a checkpoint comes from, not what is in it; no code is ever fetched.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from wanwu.errors import InputError, SetupError, WanwuError
from wanwu_export.checkpoint.files import check_files, content_hash, first_line, read_licence

FORMS = "a folder, ORG/NAME, modelscope:ORG/NAME or starter"
MODELSCOPE = "modelscope:"

_FETCHED = ("*.json", "*.txt", "*.model", "*.safetensors", "README.md")
_PICKLED = "*.bin"
# A checkpoint lies at the top; folders hold other formats and training states, often larger.
_NOT_FETCHED = ("*/*",)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_BY_HAND = "fetch it on a machine that has network and give the folder"


@dataclass(frozen=True)
class Checkpoint:
    """A Hugging Face style checkpoint on this machine.

    Attributes:
        folder: holds config.json, the weights, the tokenizer's and the processor's files.
        name: `ORG/NAME`, or the folder's name.
        revision: what was exported, exactly. Hub: the commit. Folder: `sha256:` and 12 digits
            over config.json and the weights. ModelScope: its branch or tag, `@`, and that hash.
        source: `folder`, `hub` or `modelscope`.
        licence: as the model card names it, or `unknown`.
        pickled: whether its weights are pickled.
    """

    folder: Path
    name: str
    revision: str
    source: str
    licence: str
    pickled: bool


def locate(source: str, *, revision: str | None = None, allow_pickle: bool = False) -> Checkpoint:
    """Find a checkpoint, fetch it if it is not a folder, and check that it is whole.

    Args:
        source: a folder, `ORG/NAME` on the hub, or `modelscope:ORG/NAME`. A folder wins.
        revision: a branch, tag or commit of the hub's repository; its default branch if None.
        allow_pickle: accept `*.bin` weights where there are no safetensors.

    Raises:
        InputError: there is no such checkpoint, or its files do not make one.
        SetupError: it could not be fetched.
    """
    folder = _given_folder(source)
    if folder is not None:
        if revision is not None:
            raise InputError(
                "--revision {0} was given and {1} is a folder, which has no revisions; leave "
                "--revision out, or check that revision out in the folder",
                revision,
                source,
            )
        paths = check_files(folder, allow_pickle)
        return _checkpoint(folder, folder.resolve().name, content_hash(paths), "folder", paths)
    name = source.removeprefix(MODELSCOPE)
    if not _REPOSITORY.fullmatch(name):
        raise InputError("{0} names no checkpoint; expected {1}", repr(source), FORMS)
    patterns = [*_FETCHED, _PICKLED] if allow_pickle else [*_FETCHED]
    if name == source:
        folder = _fetch_from_hub(name, revision, patterns)
        return _checkpoint(folder, name, folder.name, "hub", check_files(folder, allow_pickle))
    folder = _fetch_from_modelscope(name, revision, patterns)
    paths = check_files(folder, allow_pickle)
    # The client tells no commit, and a branch moves: the hash says what was really fetched.
    exact = f"{revision or 'master'}@{content_hash(paths)}"
    return _checkpoint(folder, name, exact, "modelscope", paths)


def _checkpoint(
    folder: Path, name: str, revision: str, source: str, paths: tuple[Path, ...]
) -> Checkpoint:
    pickled = paths[-1].suffix == ".bin"
    return Checkpoint(folder, name, revision, source, read_licence(folder), pickled)


def _given_folder(source: str) -> Path | None:
    """Give the folder a source names, or None where it names something to fetch."""
    if not source:
        return None
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return path
        found = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long, or the home of an unknown user
        raise InputError(
            "there is no folder {0}: {1}; expected {2}", source, error, FORMS
        ) from error
    if found:
        raise InputError("{0} is a file; expected the folder that holds the checkpoint", source)
    if source.startswith(("./", "../", "/", "~")) or source.endswith("/") or source.count("/") > 1:
        raise InputError("there is no folder {0}; expected {1}", source, FORMS)
    return None


def _fetch_from_hub(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Fetch into the hub's own cache, whose settings (HF_HOME, HF_ENDPOINT, …) are the user's."""
    from huggingface_hub import constants, snapshot_download

    # Set here because the environment is read at the first import, which may lie behind us.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=list(_NOT_FETCHED),
            )
        )
    # Beyond its own errors the client lets those of its HTTP, lock and storage layers through.
    except Exception as error:
        raise _hub_error(error, name, revision) from error


def _hub_error(error: Exception, name: str, revision: str | None) -> WanwuError:
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(
            "{0} has no revision {1}; expected a branch, a tag or a full commit in --revision",
            name,
            revision or "main",
        )
    refused = isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403)
    if isinstance(error, errors.GatedRepoError) or (
        refused and not isinstance(error, errors.RepositoryNotFoundError)
    ):
        return SetupError(
            "the hub does not let you read {0} ({1}); accept its terms on its page and give your "
            "token in HF_TOKEN, or give a folder",
            name,
            first_line(error),
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return InputError(
            "there is neither a folder {0} here nor a model of that name on the hub; check the "
            "name, or give your token in HF_TOKEN if the model is private",
            name,
        )
    return SetupError(
        "{0} could not be fetched ({1}: {2}); {3}, or set HF_ENDPOINT to your mirror",
        name,
        type(error).__name__,
        first_line(error),
        _BY_HAND,
    )


def _fetch_from_modelscope(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Fetch into ModelScope's own cache (MODELSCOPE_CACHE, MODELSCOPE_ENDPOINT, …)."""
    try:
        from modelscope_hub import HubApi
    except ImportError as error:
        raise SetupError(
            "{0}{1} needs ModelScope's client; run: pip install modelscope-hub, or give a folder",
            MODELSCOPE,
            name,
        ) from error
    # On by default, it asks the server for an address and asks that for this machine's region.
    os.environ.setdefault("MODELSCOPE_DOWNLOAD_INTRA_CLOUD", "false")
    try:
        return HubApi().download_repo(
            name,
            "model",
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=list(_NOT_FETCHED),
        )
    # As with the hub's client: lower layers' errors come through too.
    except Exception as error:
        raise _modelscope_error(error, name, revision) from error


def _modelscope_error(error: Exception, name: str, revision: str | None) -> WanwuError:
    from modelscope_hub import errors

    if isinstance(error, errors.FileDownloadError) and error.failed_files:
        path, cause = next(iter(error.failed_files.items()))
        reason = f"{path}: {first_line(cause)}"
    else:
        cause, reason = error, f"{type(error).__name__}: {first_line(error)}"
    if isinstance(cause, errors.AuthenticationError | errors.PermissionDeniedError):
        return SetupError(
            "ModelScope does not let you read {0} ({1}); accept its terms on its page and give "
            "your token in MODELSCOPE_API_TOKEN, or give a folder",
            name,
            reason,
        )
    if isinstance(error, errors.NotExistError | errors.InvalidParameter):
        return InputError(
            "ModelScope has no model {0} with a revision {1} ({2}); check both, or give your "
            "token in MODELSCOPE_API_TOKEN if the model is private",
            name,
            revision or "master",
            reason,
        )
    return SetupError(
        "{0}{1} could not be fetched ({2}); {3}, or set MODELSCOPE_ENDPOINT to your mirror",
        MODELSCOPE,
        name,
        reason,
        _BY_HAND,
    )
