"""What a running gateway reads again: each second what has changed, and on SIGHUP everything."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

#: A change is seen within this, so a revoked key is refused within it.
RELOAD_S = 1.0

log = logging.getLogger("wanwu.gateway")


class Source(Protocol):
    """Something that is read again. What has become unusable stays as it was, and is logged."""

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read again what has changed or is old, or at once."""


@asynccontextmanager
async def kept_fresh(sources: Sequence[Source]) -> AsyncIterator[None]:
    """Read sources now, and again while the block lasts."""
    await asyncio.gather(*(each.refresh() for each in sources))
    # Each by itself: a slow issuer must not delay a revoked key.
    tasks = {asyncio.create_task(_keep(each)) for each in sources}

    def hurry() -> None:
        log.info("SIGHUP: keys, key sets and certificates are read again")
        for each in sources:
            task = asyncio.create_task(each.refresh(at_once=True))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hurry)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _keep(source: Source) -> None:
    while True:
        await asyncio.sleep(RELOAD_S)
        try:
            await source.refresh()
        except Exception:
            log.exception("%s could not be read again", type(source).__name__)
