"""`wanwu serve`: run the Triton that PyPI ships over a model repository."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wanwu.cli.language import tell
from wanwu.cli.options import ModelRepository
from wanwu.embedded.profiles import BACKENDS_VARIABLE, Profile
from wanwu.errors import InputError
from wanwu.triton_releases import lacking

Port = Annotated[int, typer.Option("--grpc-port", min=1, max=65535, help="Port of gRPC.")]


def serve(
    context: typer.Context,
    model_repository: ModelRepository = Path("model_repository"),
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Port = 8001,
    http_port: Annotated[
        int | None,
        typer.Option("--http-port", min=1, max=65535, help="Port of Triton's HTTP API. [closed]"),
    ] = None,
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", min=0, max=65535, help="Port of metrics; 0: closed.")
    ] = 8002,
    admin_key: Annotated[
        str | None,
        typer.Option(
            envvar="WANWU_ADMIN_KEY",
            help="Key that may load models. By default a new one is written to --admin-key-file.",
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(help="Where a new admin key is kept, readable by you alone. [in the cache]"),
    ] = None,
    profile: Annotated[
        Profile,
        typer.Option(help="Configs to serve by: cpu and gpu are a cluster's."),
    ] = "embedded",
    backends: Annotated[
        Path | None,
        typer.Option(
            envvar=BACKENDS_VARIABLE,
            help="Folder of Triton's backends, with onnxruntime in it; for cpu and gpu.",
        ),
    ] = None,
    metrics_config: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics-config",
            metavar="KEY=VALUE",
            help="Option of Triton's metrics, such as summary_latencies=true; may be repeated.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="Where the towers run: auto, cpu or gpu. auto takes a GPU that works."),
    ] = "auto",
    gpu_memory_mb: Annotated[
        int | None,
        typer.Option(
            "--gpu-memory-mb",
            envvar="WANWU_GPU_MEMORY_MB",
            min=1,
            help="MiB on the GPU for each instance of a tower; each tower has two. [4096]",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show all of Triton's log.")] = False,
) -> None:
    """Serve an exported model with a real Triton on this machine, until Ctrl-C or SIGTERM.

    For a laptop, a test or a demonstration, on a GPU or the CPU. A cluster runs Triton's own image
    over the same model repository. Triton takes the admin key on its command line, where other
    users of the machine can see it.
    """
    import time
    from dataclasses import replace

    from wanwu.cli.signals import stop_on_signals
    from wanwu.embedded.admin import kept_admin_key
    from wanwu.embedded.device import choose_device
    from wanwu.embedded.server import (
        TRITON_VERSION,
        EmbeddedServer,
        ServerOptions,
        check_ports,
        in_url,
    )

    source = context.get_parameter_source("backends")  # the environment may name it for others
    if profile == "embedded" and source is not None and source.name == "COMMANDLINE":
        raise InputError(
            "--backends {0} came with the profile embedded, which uses no such folder; add "
            "--profile cpu or gpu",
            backends,
        )
    check_metrics_config(metrics_config or (), metrics_port)
    started = time.monotonic()
    ready = False
    options = ServerOptions(
        model_repository=model_repository,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port or None,
        verbose=verbose,
        profile=profile,
        backends=backends,
        device=choose_device(device, model_repository, profile=profile),
        gpu_memory_mb=gpu_memory_mb,
        arguments=tuple(f"--metrics-config={option}" for option in metrics_config or ()),
    )
    tell("device {0}: {1}", options.device.kind, options.device.why)
    if not is_loopback(host):
        faults = lacking(TRITON_VERSION, "embedded")
        tell(
            "{0} is reached from other machines, and this Triton, {1}, has {2} known "
            "vulnerabilities; `wanwu doctor` lists them. For others run the release of the chart",
            host,
            TRITON_VERSION,
            sum(len(fault.ids) for fault in faults),
            fg="yellow",
        )
    check_ports(options)  # before the key: another server of this port keeps its own there
    with kept_admin_key(admin_key, admin_key_file, grpc_port) as (key, kept_in):
        options = replace(options, admin_key=key)
        tell("starting Triton over {0} …", model_repository)
        with stop_on_signals(), EmbeddedServer(options, log=typer.echo) as server:
            ready = True
            seconds = time.monotonic() - started
            tell("ready in {0} s; gRPC at {1}", f"{seconds:.1f}", server.url)
            for model, versions in sorted(server.versions.items()):
                tell("  {0} version {1}", model, ", ".join(versions))
            if metrics_port:
                tell("metrics at http://{0}:{1}/metrics", in_url(host), metrics_port)
            if kept_in is not None:
                tell("admin key in {0}", kept_in)
            tell("try `wanwu recognize PHOTO --url {0}`; Ctrl-C ends", server.url)
            code = server.wait()
            tell("Triton ended by itself with exit code {0}", code, err=True, fg="red")
            raise typer.Exit(5)
    tell("ended" if ready else "ended before it was ready")
    if not ready:
        raise typer.Exit(1)


def is_loopback(host: str) -> bool:
    """Return whether an address is one of this machine alone."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_metrics_config(options: Sequence[str], metrics_port: int) -> None:
    """Check the form of options for Triton's metrics, and that there are metrics.

    Raises:
        InputError: an option is not KEY=VALUE, or the metrics are closed.
    """
    for option in options:
        if not re.fullmatch(r"[a-z_]+=\S+", option):
            raise InputError(
                "--metrics-config {0} is not KEY=VALUE; expected one such as "
                "summary_latencies=true",
                repr(option),
            )
    if options and not metrics_port:
        raise InputError(
            "--metrics-config {0} came with --metrics-port 0, which closes the metrics; leave one "
            "of them out",
            options[0],
        )
