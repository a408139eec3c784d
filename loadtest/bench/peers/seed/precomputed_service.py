"""The seed's script with its labels embedded before: the vision tower alone runs for a request.

python precomputed_service.py CHECKPOINT WORKSHOP --port 8000
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import uvicorn
from fastapi import FastAPI, Form, UploadFile
from PIL import Image


class Classifier:
    """A checkpoint's vision tower and the vectors of every label list."""

    def __init__(self, checkpoint: Path, workshop: Path) -> None:
        self._processor = transformers.AutoImageProcessor.from_pretrained(checkpoint)
        model = transformers.AutoModel.from_pretrained(checkpoint).eval()
        self._vision, self._projection = model.vision_model, model.visual_projection
        self._scale = model.logit_scale.exp().detach()
        self._banks = {
            f"l{path.stem}": (
                (workshop / "labels" / f"{path.stem}.txt").read_text(encoding="utf-8").splitlines(),
                torch.from_numpy(np.load(path)),
            )
            for path in (workshop / "vectors").glob("*.npy")
        }

    @torch.inference_mode()
    def classify(self, picture: bytes, bank: str) -> list[dict[str, Any]]:
        """Give the five best labels of an encoded picture."""
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        pixels = self._processor(images=image, return_tensors="pt")["pixel_values"]
        vector = self._projection(self._vision(pixels).last_hidden_state[:, 0])[0]
        labels, vectors = self._banks[bank]
        scores = (self._scale * (vectors @ (vector / vector.norm()))).softmax(-1)
        best = scores.topk(5)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [{"label": labels[place], "score": score} for place, score in pairs]


def make_app(checkpoint: Path, workshop: Path) -> FastAPI:
    """Load a checkpoint and give the service."""
    classifier = Classifier(checkpoint, workshop)
    app = FastAPI()

    @app.post("/predict")
    def predict(file: UploadFile, bank: Annotated[str, Form()]) -> dict[str, Any]:
        return {"results": classifier.classify(file.file.read(), bank)}

    return app


def main() -> None:
    """Serve a checkpoint on 127.0.0.1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("workshop", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    app = make_app(arguments.checkpoint, arguments.workshop)
    uvicorn.run(app, port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
