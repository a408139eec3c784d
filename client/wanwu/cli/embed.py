"""`wanwu embed`: embeddings of pictures or texts, for a vector database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wanwu.cli.language import tell
from wanwu.cli.options import Exact, InFlight, Labels, LabelsFile, ShardOption, TimeoutS, Url

if TYPE_CHECKING:
    from wanwu import Recognizer
    from wanwu.rank import Floats


def embed(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PICTURE...]", help="Files, folders, globs, or - for a list."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The .npz or .parquet to write. [needed]")
    ] = None,
    labels: Labels = None,
    labels_file: LabelsFile = None,
    shard: ShardOption = None,
    in_flight: InFlight = 32,
    exact: Exact = False,
    url: Url = None,
    timeout_s: TimeoutS = None,
) -> None:
    """Write the embeddings of pictures, or of texts by --labels or --labels-file.

    A row for each: `name`, the picture's path or the text, and `embedding`, FP32 of unit length,
    so that a dot product is the cosine. The model's name and fingerprint are in the file: compare
    only what one model has made. A picture that cannot be used reports its error and has no row,
    and the exit code is 1.
    """
    from wanwu import InputError, Recognizer
    from wanwu.cli.options import chosen_labels
    from wanwu.cli.vectors import vector_file

    if output is None:
        raise InputError("no --output was given; name the .npz or .parquet file to write")
    texts = chosen_labels(labels, labels_file, None)
    if bool(pictures) == (texts is not None):
        raise InputError(
            "embed takes pictures, or texts by --labels or --labels-file; give one kind"
        )
    failures: list[str] = []
    with Recognizer(url, timeout_s=timeout_s, exact=exact) as recognizer:
        contract = recognizer.contract()
        with vector_file(output, contract) as add:
            rows: Iterator[tuple[str, Floats]]
            if texts is not None:
                rows = zip(texts, recognizer.embed_texts(texts), strict=True)
            else:
                rows = _pictures(recognizer, pictures or [], shard, in_flight, failures)
            count = sum(1 for name, vector in rows if add(name, vector) is None)
    tell("{0} embeddings of {1} numbers in {2}", f"{count:,}", contract.embedding_dim, output)
    if failures:
        raise typer.Exit(1)


def _pictures(
    recognizer: Recognizer,
    named: list[str],
    shard: str | None,
    in_flight: int,
    failures: list[str],
) -> Iterator[tuple[str, Any]]:
    from wanwu import ImageError
    from wanwu.cli.pictures import Shard, find_pictures
    from wanwu.cli.progress import pictures_done

    found = find_pictures(named, Shard.parse(shard), set())
    for note in found.notes:
        tell(note, err=True)
    with pictures_done(found.total, quiet=False) as advance:
        for answer in recognizer.embed_many(found.paths, in_flight=in_flight):
            if isinstance(answer.error, ImageError):
                failures.append(str(answer.error))
                tell(str(answer.error), err=True, fg="red")
            elif answer.error is not None:
                raise answer.error
            else:
                yield str(answer.source), answer.embedding
            advance()
