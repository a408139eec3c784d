"""The `wanwu` command. Each sub-command parses, calls the library, prints.

Exit codes: 0 all went well; 1 some pictures or checks failed; 2 the input cannot be used;
3 Triton did not answer; 4 what Triton serves does not fit together; 5 this machine lacks something.
"""

from __future__ import annotations

import io
import os
import sys
import warnings

import typer

from wanwu import __version__
from wanwu.catalog import message_of
from wanwu.cli.audit import app as audit
from wanwu.cli.demo import demo
from wanwu.cli.doctor import doctor
from wanwu.cli.embed import embed
from wanwu.cli.evaluate import evaluate
from wanwu.cli.export import export
from wanwu.cli.gateway import gateway
from wanwu.cli.keys import app as keys
from wanwu.cli.labels import app as labels
from wanwu.cli.language import chinese, tell, translate, translate_help
from wanwu.cli.loadtest import SETTINGS as LOADTEST
from wanwu.cli.loadtest import loadtest
from wanwu.cli.plan import plan
from wanwu.cli.recognize import recognize
from wanwu.cli.repository import app as repository
from wanwu.cli.serve import serve
from wanwu.errors import InputError, ModelError, ServerError, SetupError, WanwuError

EXIT_CODES: dict[type[WanwuError], int] = {
    InputError: 2,
    ServerError: 3,
    ModelError: 4,
    SetupError: 5,
}

app = typer.Typer(
    name="wanwu",
    help="Private, zero-shot Chinese image recognition on NVIDIA Triton.",
    epilog=__doc__.partition("\n\n")[2],
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (recognize, embed, serve, gateway, export, doctor, evaluate, plan, demo):
    app.command()(command)
app.command(context_settings=LOADTEST)(loadtest)
app.add_typer(labels, name="labels")
app.add_typer(repository, name="repository")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wanwu {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def exit_code(error: WanwuError) -> int:
    """Give the exit code of an error."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))


def _translated(warning: Warning | str) -> str:
    return translate(message_of(warning) if isinstance(warning, Warning) else warning)


def main() -> None:
    """Run the command line, and turn errors into a message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A GBK or ASCII terminal, or a file name that is not UTF-8, must not end the command.
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda warning, *args, **kwargs: f"wanwu: {_translated(warning)}\n"
    warnings.filterwarnings("ignore", module="PIL")
    try:
        speaks_chinese = chinese()
    except InputError as error:  # in English: the language is not known
        typer.secho(f"wanwu: {error}", err=True, fg="red")
        sys.exit(exit_code(error))
    command = typer.main.get_command(app)
    if speaks_chinese:
        translate_help(command)
    try:
        command()
    except WanwuError as error:
        tell(message_of(error), err=True, fg="red")
        sys.exit(exit_code(error))
    except BrokenPipeError:  # `wanwu recognize … | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # such as a full disk under the output
        tell("the output cannot be written: {0}", error, err=True, fg="red")
        os._exit(5)  # Python would try to flush the rest once more, and fail with a traceback
    except KeyboardInterrupt:
        sys.exit(130)
