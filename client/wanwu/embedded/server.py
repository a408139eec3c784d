"""Start, watch and end the real `tritonserver` that the package nvidia-pytriton carries.

Nothing is written into site-packages: the backend directory is a temporary folder of links.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import platform
import re
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import venv
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from wanwu.catalog import Message
from wanwu.channel import Address, Tls
from wanwu.embedded import GPU_MEMORY_VARIABLE, THREADS_VARIABLE
from wanwu.embedded.device import CPU, Device
from wanwu.embedded.profiles import Profile, check_backends
from wanwu.errors import SetupError, WanwuError
from wanwu.repository import check_repository
from wanwu.transport import GrpcTransport

#: What nvidia-pytriton 0.7 ships.
TRITON_VERSION = "2.51.0"
INSTALL_SERVER = "pip install 'wanwu[server]'"
#: Triton's model instances of `image_encoder` in configs/embedded.pbtxt.
INSTANCES = 2
#: Triton gets this long to finish what it has; then its processes are killed.
EXIT_TIMEOUT_S = 5
KILL_AFTER_S = 7.0
#: Protocols that change the server. Only a holder of the admin key may speak them.
ADMIN_PROTOCOLS = "model-repository,shared-memory,trace,logging"
ADMIN_KEY_NAME = "wanwu-admin-key"


@dataclass(frozen=True)
class ServerOptions:
    """How to run the embedded Triton. Ports of None are not opened.

    `profile` names the configs that are served by; all but `embedded` need Triton's onnxruntime
    backend in the folder `backends`. `device` is what `choose_device` returns; `gpu_memory_mb`
    bounds each tower's instance there, by default WANWU_GPU_MEMORY_MB, else 4096. `arguments` are
    further ones of `tritonserver`, such as those of TLS; the check for readiness then needs `tls`
    and `api_key`.
    """

    model_repository: Path
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int | None = None
    metrics_port: int | None = 8002
    ready_timeout_s: float = 120.0
    verbose: bool = False
    profile: Profile = "embedded"
    backends: Path | None = None
    admin_key: str | None = None
    arguments: tuple[str, ...] = ()
    tls: Tls | None = None
    api_key: str | None = None
    device: Device = CPU
    gpu_memory_mb: int | None = None


class EmbeddedServer:
    """A running Triton, ended when the `with` block ends, or the thread that began it.

    Raises:
        SetupError: the platform, a package, a port or the model repository is not fit;
            or Triton ended before it was ready, with its own reason.

    Example:
        >>> with EmbeddedServer(ServerOptions(Path("model_repository"))) as server:
        ...     print(server.url)
        127.0.0.1:8001
    """

    def __init__(self, options: ServerOptions, *, log: Callable[[str], None] | None = None) -> None:
        self.options = options
        self.admin_key = options.admin_key or secrets.token_urlsafe(24)
        self.url = f"{in_url(options.host)}:{options.grpc_port}"
        self.versions: dict[str, list[str]] = {}
        # A name of our own, to clear away what a Triton that was killed leaves in /dev/shm.
        self._shm_prefix = f"wanwu-{os.getpid()}-{secrets.token_hex(4)}-"
        self._log = log or (lambda line: None)
        self._tail: deque[str] = deque(maxlen=200)
        self._process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def admin_headers(self) -> dict[str, str]:
        """The gRPC metadata that lets a caller load models and change settings."""
        return {f"triton-grpc-protocol-{ADMIN_KEY_NAME}": self.admin_key}

    @property
    def pid(self) -> int:
        """The process id of `tritonserver`."""
        assert self._process is not None  # noqa: S101 - between __enter__ and __exit__
        return self._process.pid

    def __enter__(self) -> EmbeddedServer:
        """Start Triton and wait until every model is ready."""
        check_platform()
        triton = triton_folder()
        native = check_backends(self.options.profile, self.options.backends)
        check_repository(self.options.model_repository)
        check_ports(self.options)
        self._folder = tempfile.TemporaryDirectory(prefix="wanwu-triton-", dir=_plain_folder())
        try:
            folder = Path(self._folder.name)
            environment = _environment(None if native else _make_interpreter(folder))
            backends = native or _link_backends(triton, folder)
            if self.options.gpu_memory_mb is not None:
                environment[GPU_MEMORY_VARIABLE] = str(self.options.gpu_memory_mb)
            (folder / "models").symlink_to(self.options.model_repository.resolve())
            self._start(triton, backends, folder / "models", environment)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End Triton and every process it started."""
        self.stop()

    def wait(self) -> int:
        """Wait until Triton ends by itself and give its exit code."""
        assert self._process is not None  # noqa: S101 - between __enter__ and __exit__
        return self._process.wait()

    def stop(self) -> None:
        """End Triton and every process it started, within 10 seconds."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(KILL_AFTER_S)
                except subprocess.TimeoutExpired:
                    self._log("Triton did not end in time; killing it")
            _kill_group(process.pid)
            process.wait()
            for region in Path("/dev/shm").glob(f"{self._shm_prefix}*"):  # noqa: S108
                region.unlink(missing_ok=True)
        if self._reader is not None:
            self._reader.join(1.0)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(
        self, triton: Path, backends: Path, models: Path, environment: dict[str, str]
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own binary and arguments
            [str(triton / "bin" / "tritonserver"), *self._arguments(backends, models)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            # Ctrl-C reaches this process alone, which then ends Triton in order.
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._reader.start()

    def _arguments(self, backends: Path, models: Path) -> list[str]:
        options = self.options
        arguments = [
            f"--model-repository={models}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            f"--model-config-name={_config_name(options)}",
            # Explicit control lets a new version be loaded while the old one serves.
            "--model-control-mode=explicit",
            "--load-model=*",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--grpc-address={in_url(options.host)}",
            f"--grpc-port={options.grpc_port}",
            f"--grpc-restricted-protocol={ADMIN_PROTOCOLS}:{ADMIN_KEY_NAME}={self.admin_key}",
        ]
        if options.http_port is None:
            arguments.append("--allow-http=false")
        else:
            arguments += [
                f"--http-address={_for_http(options.host)}",
                f"--http-port={options.http_port}",
                f"--http-restricted-api={ADMIN_PROTOCOLS}:{ADMIN_KEY_NAME}={self.admin_key}",
            ]
        if options.metrics_port is None:
            arguments.append("--allow-metrics=false")
        else:
            arguments += [
                f"--metrics-address={_for_http(options.host)}",
                f"--metrics-port={options.metrics_port}",
            ]
        return [*arguments, *options.arguments]

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            line = line.rstrip("\n").replace(self.admin_key, "***")
            self._tail.append(line)
            # Until it is ready a failure is told once, by the exception.
            if self.options.verbose or (self.versions and worth_showing(line)):
                self._log(line)
        process.stdout.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.options.ready_timeout_s
        address = Address(self.url, self.options.tls, self.options.api_key)
        with contextlib.closing(GrpcTransport(address)) as wire:
            while True:
                code = self._process.poll() if self._process else 1
                if code is not None:
                    raise SetupError(self._why_it_ended(code))
                try:
                    if wire.is_ready(timeout_s=1.0):
                        self.versions = wire.models(timeout_s=5.0)
                        return
                except WanwuError:
                    pass  # not listening yet
                if time.monotonic() > deadline:
                    raise SetupError(
                        "Triton was not ready within {0} s:\n{1}",
                        f"{self.options.ready_timeout_s:.0f}",
                        self._last_words(),
                    )
                time.sleep(0.05)

    def _why_it_ended(self, code: int) -> str:
        if self._reader is not None:
            self._reader.join(2.0)
        return Message(
            "Triton ended with exit code {0} before it was ready:\n{1}\n`wanwu serve "
            "--verbose` shows its whole log",
            code,
            self._last_words(),
        )

    def _last_words(self) -> str:
        """Give the models that failed and why, else the last warnings, else the last lines."""
        lines = list(self._tail)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        failed = [f"{row[0]} {row[2]}" for row in rows if len(row) == 3 and "UNAVAIL" in row[2]]
        chosen = failed or [line for line in lines if worth_showing(line)][-12:] or lines[-12:]
        return "\n".join(f"  {line}" for line in chosen)


def _config_name(options: ServerOptions) -> str:
    """Return the name of Triton's configs: configs/NAME.pbtxt of each model."""
    return options.device.config_name if options.profile == "embedded" else options.profile


def check_platform() -> None:
    """Check that this machine can run the Triton that PyPI ships.

    Raises:
        SetupError: it cannot, and what to use instead.
    """
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise SetupError(
            "the Triton that PyPI ships runs on Linux x86_64 and this is {0} {1}; run Triton's "
            "container image over the same model_repository instead",
            system,
            machine,
        )


def triton_folder() -> Path:
    """Find the folder with the `tritonserver` that nvidia-pytriton carries.

    Raises:
        SetupError: the package is missing.
    """
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        raise SetupError("the package nvidia-pytriton is not installed; run: {0}", INSTALL_SERVER)
    return Path(found.origin).parent / "tritonserver"


def check_python_backend(folder: Path) -> None:
    """Check that the Python backend of that Triton can run our models in this Python.

    Raises:
        SetupError: a package, or its support for this Python version, is missing.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise SetupError("the package onnxruntime is not installed; run: {0}", INSTALL_SERVER)
    stub = _stub(folder)
    if not stub.is_file():
        versions = sorted(path.name for path in stub.parent.parent.iterdir())
        raise SetupError(
            "nvidia-pytriton has no Python {0} stub; it has {1}: make the environment with one of "
            "these",
            stub.parent.name,
            ", ".join(versions),
        )
    _check_shared_python()


def worth_showing(line: str) -> bool:
    """Tell whether a line of Triton's log says something a person must know.

    Without a GPU Triton reports CUDA, NVML and DCGM as errors at every start; they are not.
    """
    if any(noise in line for noise in ("CUDA", "Cuda", "NVML", "DCGM", "GPU metrics")):
        return False
    return line.startswith(("E", "W", "error", "Error"))


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_ports(options: ServerOptions) -> None:
    """Check that the ports can be opened.

    Raises:
        SetupError: a port is in use, or was given twice.
    """
    wanted = (options.grpc_port, options.http_port, options.metrics_port)
    ports = [port for port in wanted if port is not None]
    for port in ports:
        if ports.count(port) > 1:
            raise SetupError("port {0} was given twice; give each service one of its own", port)
        _check_port(options.host, port)


def in_url(host: str) -> str:
    """Return a host as it is written before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _for_http(host: str) -> str:
    """Return a host as the library of Triton's HTTP servers has it."""
    return f"ipv6:{host}" if ":" in host else host


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                "port {0} of {1} cannot be opened ({2}); end the program that uses it, or choose "
                "another --grpc-port, --http-port, --metrics-port or --host",
                port,
                host,
                error.strerror,
            ) from error


def _check_shared_python() -> None:
    """The stub is a C++ program that loads this Python as a shared library."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    if (Path(str(sysconfig.get_config_var("LIBDIR"))) / name).exists():
        return
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise SetupError(
            "this Python has no shared library {0}, which Triton's stub loads; on Debian run "
            "`apt-get install {1}`, or use a Python built --enable-shared",
            name,
            name.partition(".so")[0],
        ) from error


def _stub(folder: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "python_backend_stubs" / version / "triton_python_backend_stub"


def _plain_folder() -> str | None:
    """Give a folder for temporary files that Triton can bear, None for the usual one.

    Triton passes its paths to its stubs through a shell, unquoted, and as ASCII.
    """
    usual = tempfile.gettempdir()
    return None if re.fullmatch(r"[A-Za-z0-9/._-]+", usual) else "/tmp"  # noqa: S108


def _link_backends(triton: Path, folder: Path) -> Path:
    check_python_backend(triton)
    backends = folder / "backends"
    python = backends / "python"
    python.mkdir(parents=True)
    for path in (triton / "backends" / "python").iterdir():
        if path.is_file():
            (python / path.name).symlink_to(path)
    (python / "triton_python_backend_stub").symlink_to(_stub(triton))
    return backends


def _make_interpreter(folder: Path) -> Path:
    """Make the environment that Triton's Python stubs start in, and give its `bin`.

    A stub ignores PYTHONPATH and PYTHONHOME and starts the first `python3` on PATH. This one sees
    the packages of the process at hand, however they were installed, and writes no bytecode.
    """
    interpreter = folder / "interpreter"
    venv.create(interpreter, symlinks=True, with_pip=False)
    own = str(Path(__file__).parents[2])  # not in sys.path under every kind of editable install
    lines = ["import sys; sys.dont_write_bytecode = True", *filter(None, sys.path), own]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = interpreter / "lib" / version / "site-packages"
    (site_packages / "wanwu.pth").write_text("\n".join(lines) + "\n")
    return interpreter / "bin"


def _environment(interpreter: Path | None) -> dict[str, str]:
    """Give Triton's stubs that interpreter, its shared library and their share of the cores."""
    # The bound on onnxruntime's version keeps its telemetry out; this is for who overrides it.
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    if interpreter is None:  # no stub runs
        return environment
    libraries = [str(sysconfig.get_config_var("LIBDIR")), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    environment["PATH"] = os.pathsep.join(
        [str(interpreter), environment.get("PATH", ""), os.defpath]
    )
    cores = len(os.sched_getaffinity(0))
    environment.setdefault(THREADS_VARIABLE, str(max(1, cores // INSTANCES)))
    return environment


def _die_with_parent() -> None:
    """Let the kernel end Triton when this process dies without saying so (prctl(2))."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
