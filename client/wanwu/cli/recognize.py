"""`wanwu recognize`: name what pictures show."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanwu.cli.language import tell
from wanwu.cli.options import (
    Banks,
    Exact,
    InFlight,
    Labels,
    LabelsFile,
    Named,
    ShardOption,
    TimeoutS,
    Url,
    chosen_labels,
)

if TYPE_CHECKING:
    from wanwu import Answer


class Format(str, Enum):
    """How answers are printed."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class Kind(str, Enum):
    """What a score is."""

    softmax = "softmax"
    sigmoid = "sigmoid"
    cosine = "cosine"


def _tell_doubts(answer: Answer, told: set[str]) -> None:
    """Tell what is doubtful about an answer; about the labels only once."""
    for doubt in answer.recognition.warnings if answer.recognition else ():
        if not doubt.code.startswith("label"):
            tell("{0}: {1}", str(answer.source), doubt, err=True, fg="yellow")
        elif doubt not in told:
            told.add(doubt)
            tell(doubt, err=True, fg="yellow")


def recognize(
    pictures: Named,
    labels: Labels = None,
    labels_file: LabelsFile = None,
    bank: Banks = None,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Labels a picture.")] = 5,
    threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Leave out labels of a lower score.")
    ] = None,
    score: Annotated[
        Kind | None, typer.Option(help="What a score is. [the model's own choice]")
    ] = None,
    output_format: Annotated[
        Format, typer.Option("--format", help="Output on the screen.")
    ] = Format.table,
    output: Annotated[
        Path | None, typer.Option(help="Write answers to this .jsonl, .csv or .parquet instead.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that wrote --output.")
    ] = False,
    shard: ShardOption = None,
    in_flight: InFlight = 32,
    exact: Exact = False,
    url: Url = None,
    timeout_s: TimeoutS = None,
) -> None:
    """Name what pictures show, by a bank of labels or by your own.

    A picture that cannot be used reports its error, the others are answered, and the exit code
    is 1. When the server is lost for longer than --timeout-s, the run ends with exit code 3;
    with --output, the same command with --resume goes on and answers each picture once.
    """
    from wanwu import ImageError, InputError, Recognizer, WanwuError
    from wanwu.bank import DEFAULT_BANK
    from wanwu.cli.output import answered_before, printer, writer
    from wanwu.cli.pictures import Shard, find_pictures
    from wanwu.cli.progress import pictures_done

    own = chosen_labels(labels, labels_file, bank)
    if resume and output is None:
        raise InputError("--resume was given without --output; name the file to go on with")
    part = Shard.parse(shard)
    asked = [] if own is not None else list(dict.fromkeys(bank or [DEFAULT_BANK]))
    done = answered_before(output, asked) if resume and output else set()
    found = find_pictures(pictures, part, done)
    for note in found.notes:
        tell(note, err=True)
    failed = 0
    with (
        Recognizer(url, timeout_s=timeout_s, exact=exact) as recognizer,
        writer(output, resume=resume) if output else printer(output_format.value) as emit,
        pictures_done(found.total, quiet=output is None) as advance,
    ):
        answers = recognizer.recognize_many(
            found.paths,
            labels=own,
            bank=bank or None,
            top_k=top_k,
            threshold=threshold,
            score=score.value if score else None,
            in_flight=in_flight,
        )
        written = 0
        told: set[str] = set()
        try:
            for answer in answers:
                if answer.error is not None and not isinstance(answer.error, ImageError):
                    raise answer.error
                if answer.error is not None:
                    failed += 1
                    tell(str(answer.error), err=True, fg="red")
                emit(answer)
                _tell_doubts(answer, told)
                written += 1
                advance()
        except (WanwuError, KeyboardInterrupt):
            if output is not None and output.suffix.lower() != ".parquet":
                tell(
                    "{0} pictures of this run are answered in {1}; the same command with --resume "
                    "goes on",
                    f"{written:,}",
                    output,
                    err=True,
                )
            raise
    if failed:
        raise typer.Exit(1)
