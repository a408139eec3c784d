"""The service that Wanwu takes the place of, as its users have it: PyTorch in FastAPI.

    python client/bench/seed_service.py CHECKPOINT --port 8000
    curl -F "file=@test.jpg" http://127.0.0.1:8000/predict

Both towers run for every request, over the labels of the form field `labels` or the 18 below:
AutoProcessor, AutoModelForZeroShotImageClassification, softmax of `logits_per_image`, sorted,
top 5. FastAPI answers up to 40 requests at once, each in a thread.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import uvicorn
from fastapi import FastAPI, Form, UploadFile
from PIL import Image

LABELS = (
    *("人", "车", "建筑", "动物", "植物", "食物", "电子产品", "书籍", "服装"),
    *("饮料", "道路", "天空", "水体", "标志", "办公用品", "家用电器", "交通工具", "自然景观"),
)


class Classifier:
    """A checkpoint in memory."""

    def __init__(self, checkpoint: Path) -> None:
        self._processor = transformers.AutoProcessor.from_pretrained(checkpoint)
        auto = transformers.AutoModelForZeroShotImageClassification
        self._model = auto.from_pretrained(checkpoint).eval()

    @torch.no_grad()
    def classify(self, picture: bytes, labels: Sequence[str]) -> list[dict[str, Any]]:
        """Give the five best labels of an encoded picture."""
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        inputs = self._processor(text=list(labels), images=image, return_tensors="pt", padding=True)
        scores = self._model(**inputs).logits_per_image[0].softmax(-1).tolist()
        ranked = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in ranked[:5]]


def make_app(checkpoint: Path) -> FastAPI:
    """Load a checkpoint and give the service."""
    classifier = Classifier(checkpoint)
    app = FastAPI()

    # `async def` would answer one after the other; on two busy cores that was a seventh as fast.
    @app.post("/predict")
    def predict(
        file: UploadFile, labels: Annotated[str, Form()] = "\n".join(LABELS)
    ) -> dict[str, Any]:
        return {"results": classifier.classify(file.file.read(), labels.splitlines())}

    return app


def main() -> None:
    """Serve a checkpoint on 127.0.0.1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    uvicorn.run(make_app(arguments.checkpoint), port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
