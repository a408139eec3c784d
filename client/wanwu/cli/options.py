"""Options that several sub-commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="WANWU_URL", help="HOST:PORT of Triton's gRPC service. [127.0.0.1:8001]"
    ),
]
TimeoutS = Annotated[
    float | None,
    typer.Option("--timeout-s", envvar="WANWU_TIMEOUT_S", help="Seconds one answer may take. [10]"),
]
ModelRepository = Annotated[
    Path,
    typer.Option(
        "--model-repository",
        envvar="WANWU_MODEL_REPOSITORY",
        help="The folder that `wanwu export` filled.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Your own labels: 猫,狗 (any of , ， 、 ; ； between them), or a JSON list.",
    ),
]
LabelsFile = Annotated[
    Path | None, typer.Option("--labels-file", help="Your own labels, UTF-8, one a line.")
]
Banks = Annotated[
    list[str] | None,
    typer.Option("--bank", help="A served bank of labels; may be given several times. [default]"),
]
Named = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURE...",
        help="Files, folders, globs such as 'photos/**/*.jpg', or - for a list on standard input.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Take part I of N of the pictures, from 0/N to N-1/N."
    ),
]
InFlight = Annotated[
    int, typer.Option("--in-flight", min=1, help="Pictures that are under way at a time.")
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Decode every pixel of a JPEG: slower, hardly different.")
]
Bank = Annotated[str | None, typer.Option("--bank", help="A served bank of labels. [default]")]

Templates = Annotated[
    str | None,
    typer.Option(
        help="Sentences around a label: the name of a set such as zh, or a .txt file. "
        "[the model's own choice; zh-short for a checkpoint's built-in banks]"
    ),
]
Keep = Annotated[
    int,
    typer.Option(
        "--keep",
        min=1,
        help="How many versions to keep; besides, the newest of each of as many models is kept.",
    ),
]


def chosen_labels(
    labels: str | None, labels_file: Path | None, bank: str | list[str] | None
) -> tuple[str, ...] | None:
    """Give the caller's own labels, or None where a bank is to be used.

    Raises:
        InputError: more than one of the three was given.
        LabelError: the labels cannot be used.
    """
    from wanwu.errors import InputError
    from wanwu.labels import check_labels, read_labels, split_labels

    given = [
        name
        for name, value in (("--labels", labels), ("--labels-file", labels_file), ("--bank", bank))
        if value is not None
    ]
    if len(given) > 1:
        raise InputError("{0} and {1} were given together; give one of them", *given[:2])
    if labels_file is not None:
        return read_labels(labels_file)
    if labels is None:
        return None
    return check_labels(split_labels(labels))
