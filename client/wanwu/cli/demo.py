"""`wanwu demo`: the whole of Wanwu on one machine, on real photographs."""

from __future__ import annotations

from pathlib import Path

import typer

from wanwu.cli.options import ModelRepository


def demo(model_repository: ModelRepository = Path("model_repository")) -> None:
    """Serve an exported model with a real Triton and name four real photographs.

    The photographs come with the packages scikit-image and scikit-learn.
    """
    import statistics
    import time

    from rich.console import Console

    from wanwu import Recognizer
    from wanwu.cli.language import say
    from wanwu.cli.output import show
    from wanwu.cli.signals import stop_on_signals
    from wanwu.embedded.server import EmbeddedServer, ServerOptions, free_port
    from wanwu.samples import sample_photos

    photos = sample_photos()
    options = ServerOptions(model_repository, grpc_port=free_port(), metrics_port=None)
    console = Console(markup=False, highlight=False)
    started = time.monotonic()
    with stop_on_signals(), EmbeddedServer(options, log=typer.echo) as server:
        say("Triton is ready in {0} s at {1}", f"{time.monotonic() - started:.1f}", server.url)
        with Recognizer(server.url) as recognizer:
            contract = recognizer.contract()
            say("model {0}, {1} labels", contract.model.name, contract.bank.count)
            console.print()
            recognizer.recognize(photos[0])  # the first picture also fetches the bank
            answers = [(photo, recognizer.recognize(photo, top_k=3)) for photo in photos]
            for photo, answer in answers:
                show(console, photo.name, answer)
            own = ("猫", "狗", "一杯咖啡", "摩托车", "火锅", "寺庙")
            console.print()
            say("The same photographs, with labels of your own: {0}", " ".join(own))
            for photo in photos:
                best = recognizer.recognize(photo, labels=own).top
                console.print(f"  {photo.name:24} {best.label}  {best.score:.1%}")
            milliseconds = statistics.median(answer.seconds for _, answer in answers) * 1000
            console.print()
            say("median {0} ms a picture, from file to answer", f"{milliseconds:.0f}")
    say("Triton has ended.")
