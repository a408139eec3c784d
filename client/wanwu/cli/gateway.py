"""`wanwu gateway`: serve the REST API and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wanwu.cli.language import tell
from wanwu.cli.options import TimeoutS, Url


def gateway(
    url: Url = None,
    timeout_s: TimeoutS = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API and the page. [8000]")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of /metrics without auth. [with auth, on the port of the API]",
        ),
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option(help="API keys, as `wanwu keys create` writes them.")
    ] = None,
    issuers: Annotated[
        str | None,
        typer.Option(
            help="Who issues tokens, as JSON: "
            '\'[{"issuer": "https://login.example.cn", "audience": "wanwu"}]\'.'
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let everybody who reaches the port call.")
    ] = False,
    audit: Annotated[
        str | None,
        typer.Option(help="File of the audit log; - for standard output; off for none. [-]"),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate, for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.")] = None,
) -> None:
    """Serve the REST API and the page, until Ctrl-C or SIGTERM.

    Everything else is set by the environment: docs/gateway.md lists the variables, such as
    WANWU_GATEWAY_RATE and WANWU_GATEWAY_MAX_PIXELS. Requests under way are finished first.
    Keys, key sets and certificates are read again when they change, and at once on SIGHUP.
    """
    import logging.config
    import signal

    from wanwu.cli.packages import needs
    from wanwu.cli.signals import stop_on_signals
    from wanwu.settings import Settings

    with needs("gateway"):
        from wanwu.gateway.logs import log_config
        from wanwu.gateway.server import Gateway
        from wanwu.gateway.settings import gateway_settings

    settings = gateway_settings(
        host=host,
        port=port,
        metrics_port=metrics_port,
        keys_file=keys_file,
        issuers=issuers,
        auth="off" if no_auth else None,
        audit=audit,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    triton = Settings.from_env(url=url, timeout_s=timeout_s)
    logging.config.dictConfig(log_config())
    served = Gateway(settings, triton)
    if settings.auth == "off":
        tell("auth is off: everybody who reaches the port may call", err=True, fg="yellow")
    if settings.audit == "off":
        tell("the audit log is off: nobody can tell who asked what", err=True, fg="yellow")
    scheme = "http" if settings.tls_cert is None else "https"
    # Standard output may be the audit log's.
    tell("gateway at {0}://{1}:{2}; Ctrl-C ends", scheme, settings.host, served.port, err=True)
    with stop_on_signals():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # once it serves, it reads files again at it
        served.run()
    tell("ended", err=True)
