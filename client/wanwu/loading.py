"""Tell a running Triton to serve what a model repository publishes.

It needs a Triton under explicit model control, and the admin key where its admin calls are closed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from wanwu.catalog import Message
from wanwu.channel import CHANNEL_ARGS, Address, check_url
from wanwu.embedded.admin import default_key_file
from wanwu.embedded.server import ADMIN_KEY_NAME
from wanwu.errors import ModelError, ServerError, SetupError, WanwuError
from wanwu.repository import Release, check_repository
from wanwu.transport import GrpcTransport

#: A large tower takes a while to be read and made ready.
LOAD_TIMEOUT_S = 600.0
#: Asking what is served is quick, or the server is not well.
ANSWER_TIMEOUT_S = 10.0

_OWN_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::]")  # noqa: S104 - not bound here


@dataclass(frozen=True)
class AdminKey:
    """An admin key, None where there is none, and where it is from or was looked for."""

    key: str | None
    source: str

    @property
    def headers(self) -> dict[str, str]:
        """The gRPC metadata that lets a caller load models."""
        return {f"triton-grpc-protocol-{ADMIN_KEY_NAME}": self.key} if self.key else {}


def find_admin_key(given: str | None, url: str) -> AdminKey:
    """Take the key given, else WANWU_ADMIN_KEY, else the one `wanwu serve` keeps for that port.

    The kept key is for this machine's server: another machine is never sent it.

    Raises:
        InputError: the address is not HOST:PORT.
    """
    if given:
        return AdminKey(given, "the one given")
    if key := os.environ.get("WANWU_ADMIN_KEY"):
        return AdminKey(key, "WANWU_ADMIN_KEY")
    address, _, port = check_url(url).rpartition(":")
    if address.rpartition("/")[2].removeprefix("ipv4:") not in _OWN_HOSTS:
        return AdminKey(None, "WANWU_ADMIN_KEY is not set, and the server is on another machine")
    path = default_key_file(int(port))
    try:
        return AdminKey(path.read_text().strip(), str(path))
    except OSError as error:
        return AdminKey(
            None, Message("WANWU_ADMIN_KEY is not set, and {0}: {1}", path, error.strerror)
        )


def load_published(
    url: str, admin_key: str | None, repository: Path, timeout_s: float = LOAD_TIMEOUT_S
) -> list[str]:
    """Make a running Triton serve a repository's newest version, and nothing it no longer has.

    Clients go on meanwhile: each model's old version serves until its new one is ready.

    Args:
        url: HOST:PORT of Triton's gRPC service.
        admin_key: the key; without one, `find_admin_key` looks for it.
        repository: the model repository, which the server reads too.
        timeout_s: how long loading one model may take.

    Returns:
        What changed, a sentence for each model: `label_bank_pets 3 → 4`.

    Raises:
        SetupError: the repository is not whole, or the server wants a key and none was found.
        ServerError: no answer, a wrong key, or the server cannot load models while it runs.
        ModelError: a model cannot be loaded; its old version goes on serving.
    """
    release = check_repository(repository)
    key = find_admin_key(admin_key, url)
    changed: list[str] = []
    address = Address(url)
    with closing(GrpcTransport(address)) as wire, closing(_Admin(url, key, timeout_s)) as admin:
        before = _served(wire)
        admin.check_key()
        try:
            for change in _changes(admin, wire, before, release):
                changed.append(change)  # kept also when a later one fails
        except WanwuError as error:
            why = Message("{0} (no model changed)", error)
            if changed:
                why = Message("{0} (changed before it: {1})", error, ", ".join(changed))
            raise type(error)(why) from error
    return changed


def _changes(
    admin: _Admin, wire: GrpcTransport, before: dict[str, int], release: Release
) -> Iterator[str]:
    """Load and unload one model after another, and give a sentence for each."""
    for model in _by_size(release):
        published = release.served[model]
        if before.get(model) == published:
            continue
        admin.load(model)
        found = _served(wire).get(model)
        if found != published:
            raise ModelError(
                "the server loaded version {0} of {1}, and version {2} is published: it reads "
                "another model repository; name that one by --model-repository",
                found,
                model,
                published,
            )
        old = before.get(model)
        yield f"{model} {old} → {published}" if old else Message("{0} {1} is new", model, published)
    for model in sorted(set(before) - set(release.served)):
        if model.startswith("label_bank_"):  # this Triton may serve others' models too
            admin.unload(model)
            yield Message("{0} {1} is no longer served", model, before[model])


class _Admin:
    """The calls that change a server, and their errors as ours."""

    def __init__(self, url: str, key: AdminKey, timeout_s: float) -> None:
        self._url, self._key, self._timeout_s = url, key, timeout_s
        self._client = triton.InferenceServerClient(url, channel_args=CHANNEL_ARGS)

    def check_key(self) -> None:
        with self._translated(None):
            self._client.get_model_repository_index(
                headers=self._key.headers, client_timeout=ANSWER_TIMEOUT_S
            )

    def load(self, model: str) -> None:
        with self._translated(model):
            self._client.load_model(
                model, headers=self._key.headers, client_timeout=self._timeout_s
            )

    def unload(self, model: str) -> None:
        with self._translated(model):
            self._client.unload_model(
                model, headers=self._key.headers, client_timeout=self._timeout_s
            )

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _translated(self, model: str | None) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            raise self._translate(error, model) from error

    def _translate(self, error: InferenceServerException, model: str | None) -> WanwuError:
        status, message = error.status() or "", error.message() or str(error)
        if "protocol is restricted" in message:
            return self._refused()
        if "explicit model load / unload is not allowed" in message:
            return ServerError(
                "{0} cannot load models while it runs ({1}); start it with "
                "--model-control-mode=explicit --load-model=*, as `wanwu serve` does, or start it "
                "anew",
                self._url,
                message,
            )
        if model is None or status.endswith("UNAVAILABLE"):
            return ServerError(
                "{0} ended the call ({1}); is it still running? `wanwu doctor` tells what is wrong",
                self._url,
                message.strip(),
            )
        if status.endswith("DEADLINE_EXCEEDED"):
            return ServerError(
                "{0} took longer than {1} s to load {2}; it may still finish: run the command "
                "again, with a longer --timeout-s",
                self._url,
                f"{self._timeout_s:.0f}",
                model,
            )
        return ModelError(
            "{0} could not be loaded, and its old version, if any, goes on: {1}\nExport or build "
            "it again, or go back by `wanwu repository rollback`; then load again",
            model,
            message.strip(),
        )

    def _refused(self) -> WanwuError:
        ways = "give the key of that server by --admin-key or WANWU_ADMIN_KEY"
        if self._key.key is None:
            return SetupError(
                "{0} wants an admin key and none was found ({1}); {2}",
                self._url,
                self._key.source,
                ways,
            )
        return ServerError(
            "{0} refused the admin key ({1}); {2}", self._url, self._key.source, ways
        )


def _served(wire: GrpcTransport) -> dict[str, int]:
    """Give the version of each served model.

    The statistics tell: the repository index leaves out a served model whose folder is gone.
    """
    served = wire.models(timeout_s=ANSWER_TIMEOUT_S)
    return {model: max(map(int, versions)) for model, versions in served.items()}


def _by_size(release: Release) -> list[str]:
    """Give the models, largest first.

    The time in which towers and banks disagree begins when the first is ready; the rest should
    then be quick.
    """
    sizes: dict[str, int] = {}
    for name, file in release.files.items():
        model = name.partition("/")[0]
        sizes[model] = sizes.get(model, 0) + file.bytes
    return sorted(sizes, key=lambda model: (-sizes[model], model))
