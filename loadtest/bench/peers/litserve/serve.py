"""A Chinese-CLIP's vision tower in LitServe, with stored labels and dynamic batching.

python serve.py CHECKPOINT WORKSHOP --port 8000
"""

# Without postponed annotations: LitServe reads that of `decode_request`.
import argparse
import io
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch
import transformers
from fastapi import Request
from PIL import Image

TIMEOUT_S = 300


class Recognise(litserve.LitAPI):
    """Pictures in batches against the vectors of a stored list."""

    def __init__(self, checkpoint: Path, workshop: Path, batch: int, wait_s: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait_s)
        self._checkpoint, self._workshop = checkpoint, workshop

    def setup(self, device: str) -> None:
        """Load the tower and the vectors of every label list."""
        self._processor = transformers.AutoImageProcessor.from_pretrained(self._checkpoint)
        model = transformers.AutoModel.from_pretrained(self._checkpoint).eval().to(device)
        self._vision, self._projection = model.vision_model, model.visual_projection
        self._scale = model.logit_scale.exp().detach()
        self._banks = {
            f"l{path.stem}": (
                (self._workshop / "labels" / f"{path.stem}.txt")
                .read_text(encoding="utf-8")
                .splitlines(),
                torch.from_numpy(np.load(path)),
            )
            for path in (self._workshop / "vectors").glob("*.npy")
        }

    def decode_request(self, request: Request) -> tuple[torch.Tensor, str]:
        """Decode and preprocess one picture."""
        image = Image.open(io.BytesIO(request["file"].file.read())).convert("RGB")
        return self._processor(images=image, return_tensors="pt")["pixel_values"], request["bank"]

    def batch(self, inputs: list[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, list[str]]:
        """Join pictures."""
        return torch.cat([pixels for pixels, _ in inputs]), [bank for _, bank in inputs]

    @torch.inference_mode()
    def predict(self, inputs: tuple[torch.Tensor, list[str]]) -> list[list[dict[str, Any]]]:
        """Embed a batch and compare each picture with its list."""
        pixels, banks = inputs
        vectors = self._projection(self._vision(pixels).last_hidden_state[:, 0])
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        return [self._best(vector, bank) for vector, bank in zip(vectors, banks, strict=True)]

    def unbatch(self, outputs: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Part the answers."""
        return outputs

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Give the five best labels."""
        return {"results": output}

    def _best(self, vector: torch.Tensor, bank: str) -> list[dict[str, Any]]:
        labels, rows = self._banks[bank]
        best = (self._scale * (rows @ vector)).softmax(-1).topk(5)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [{"label": labels[place], "score": score} for place, score in pairs]


def main() -> None:
    """Serve a checkpoint on 127.0.0.1."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("workshop", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--wait-s", type=float, default=0.005)
    given = parser.parse_args()
    api = Recognise(given.checkpoint, given.workshop, given.batch, given.wait_s)
    server = litserve.LitServer(api, accelerator="cpu", timeout=TIMEOUT_S)
    server.run(host="127.0.0.1", port=given.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
