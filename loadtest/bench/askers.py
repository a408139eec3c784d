"""Callers of the systems: each asks for the best five labels of one picture, in an event loop."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import numpy as np
from jobs import Best, Job, labels_of

from wanwu import AsyncRecognizer
from wanwu.rank import top

#: Longer than any request here may take; the driver keeps the time.
TIMEOUT_S = 300.0
BOUNDARY = "wanwu"


class Asker(Protocol):
    """A caller of one system."""

    async def ask(self, picture: bytes) -> Best:
        """Give the best labels of an encoded picture."""

    async def close(self) -> None:
        """Let go of the connections."""


def open_asker(job: Job) -> Asker:
    """Give the caller that a system needs."""
    makers = {"grpc": GrpcAsker, "form": FormAsker, "vectors": VectorAsker}
    asker: Asker = makers[job.wire.kind](job)
    return asker


class GrpcAsker:
    """Wanwu's own client."""

    def __init__(self, job: Job) -> None:
        address = f"127.0.0.1:{job.wire.port}"
        # Without the cache on disk, so that the first answer is that of a new caller.
        self._client = AsyncRecognizer(address, timeout_s=TIMEOUT_S, cache=False)
        self._bank = f"l{job.labels}"

    async def ask(self, picture: bytes) -> Best:
        """Recognise it."""
        answer = await self._client.recognize(picture, bank=self._bank)
        return [(found.label, found.score) for found in answer.predictions]

    async def close(self) -> None:
        """Let go of the connection."""
        await self._client.close()


class _HttpAsker:
    """Connections that are kept, as many as there are requests under way."""

    def __init__(self, job: Job) -> None:
        self._address = f"http://127.0.0.1:{job.wire.port}{job.wire.path}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"X-API-Key": job.wire.token} if job.wire.token else {},
        )

    async def _post(self, body: bytes, kind: str) -> Any:
        headers = {"Content-Type": kind}
        async with self._session.post(self._address, data=body, headers=headers) as response:
            answer = await response.read()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}: {answer[:200]!r}")
            return json.loads(answer)

    async def close(self) -> None:
        await self._session.close()


class FormAsker(_HttpAsker):
    """A service that takes a form and gives `results`, best first."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        texts = "\n".join(labels_of(job.workshop, job.labels))
        self._fields = {job.wire.field: texts if job.wire.field == "labels" else f"l{job.labels}"}

    async def ask(self, picture: bytes) -> Best:
        """Post it."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        results = (await self._post(form(picture, self._fields), kind))["results"]
        if "predictions" in results[0]:  # the gateway's, which takes several pictures
            results = results[0]["predictions"]
        return [(found["label"], found["score"]) for found in results]


class VectorAsker(_HttpAsker):
    """A service of embeddings: the caller compares with the vectors of the labels by itself."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._model = job.wire.model
        self._labels = labels_of(job.workshop, job.labels)
        self._vectors = np.load(Path(job.workshop) / "vectors" / f"{job.labels}.npy")
        self._scale = float((Path(job.workshop) / "scale.txt").read_text())

    async def ask(self, picture: bytes) -> Best:
        """Embed it and compare."""
        data = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
        body = {"model": self._model, "input": [data], "modality": "image"}
        body["encoding_format"] = "base64"
        answer = await self._post(json.dumps(body).encode(), "application/json")
        vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), np.float32)
        logits = self._scale * (self._vectors @ (vector / np.linalg.norm(vector)))
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        return [(self._labels[place], float(chances[place])) for place in top(logits, 5)]


def form(picture: bytes, fields: dict[str, str]) -> bytes:
    """Write a form: a picture, and fields of text."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n'
    kind = '; filename="picture.jpg"\r\nContent-Type: image/jpeg'
    body = part.format("file", kind).encode() + picture
    for name, value in fields.items():
        body += b"\r\n" + part.format(name, "").encode() + value.encode()
    return body + f"\r\n--{BOUNDARY}--\r\n".encode()
