"""A gateway that is killed again and again loses no line of a request that it answered."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
from pathlib import Path

from support.http import post_picture
from wanwu.gateway.audit import files_of, verify
from wanwu.gateway.audit.head import head_path, read_head
from wanwu.samples import cat_photo

KILLS, CALLERS = 20, 8
# So small that it is often killed while it sets a file aside.
ROTATE_BYTES = 10_000


def test_every_answered_request_has_its_line(server, start_gateway, tmp_path: Path) -> None:
    audit, answered = tmp_path / "audit.jsonl", set()
    chance = random.Random(7)
    for _ in range(KILLS):
        with start_gateway(server.url, audit=audit, AUDIT_ROTATE_BYTES=ROTATE_BYTES) as gateway:
            ended = threading.Event()

            def call(url: str = gateway.url, ended: threading.Event = ended) -> None:
                while not ended.is_set():
                    try:
                        answer = post_picture(url, "/predict", cat_photo())
                    except (OSError, urllib.error.URLError):
                        return
                    if answer.status == 200:
                        answered.add(answer.headers["X-Request-ID"])

            callers = [threading.Thread(target=call) for _ in range(CALLERS)]
            for caller in callers:
                caller.start()
            time.sleep(0.5 + chance.random())
            gateway.process.kill()
            ended.set()
            for caller in callers:
                caller.join()
    with start_gateway(server.url, audit=audit) as gateway:
        gateway.stop()  # removes half a line, if there is one
    assert len(answered) > 10 * KILLS
    files = files_of(audit)
    lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    assert answered <= {line.get("request_id") for line in lines}
    assert verify(files, read_head(head_path(audit), None)).lines == len(lines)
