"""The parity gate: an export must answer as its original, or nothing is published.

It compares the whole path. The original opens a picture, prepares it with the checkpoint's own
processor and runs in PyTorch; ours goes through the client's code and the ONNX files. Both see
pictures and texts of every kind in `parity_inputs`, in batches of 1, 3 and the largest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from wanwu.catalog import Message
from wanwu.contract import Calibration
from wanwu.embedded.cuda import cuda_session
from wanwu.errors import ModelError
from wanwu.images import to_pixels
from wanwu.rank import Floats, scores
from wanwu.repository import Answers, Parity, TowerParity
from wanwu.tokens import pad
from wanwu_export.accelerators import check_accelerators
from wanwu_export.dual_tower import DualTower, Original, Outputs
from wanwu_export.parity_ids import check_any_ids
from wanwu_export.parity_inputs import TEXTS, open_as_script, parity_pictures
from wanwu_export.precision import write_rounded
from wanwu_export.tower_path import TowerPath, tokenize_cut

#: Largest batch tried: `max_batch_size` of every config.
MAX_BATCH = 64
#: A tower further from its original than this is refused.
LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.999}
#: An embedding's length is 1 but for rounding; a longer one would raise every cosine.
LENGTH_ERROR = 1e-3
#: fp16 is rounded as on a GPU up to this batch; each row is rounded by itself, and the rounded
#: graph, which nothing may optimise, needs several times the memory.
ROUNDED_BATCH = 16
#: Pixels may differ by rounding: two levels of 255. Another resample filter differs by dozens.
MOST_LEVELS = 2.0
#: A label that leads by less than this cosine (0.1 in logits at CLIP's scale of 100) is a tie.
TIE_COSINE = 1e-3
#: Two FP32 towers give the same probabilities but for rounding.
MOST_PROBABILITY = 1e-3


class Gate:
    """Compares the parts of one export with its original, step by step.

    Args:
        tower: the model.
        gpu: the name of the GPU to run the ONNX files on, None for the CPU. int8 files are for
            CPUs and run there.

    Raises:
        ModelError: by every method, when the export does not answer as its original.
    """

    def __init__(self, tower: DualTower, *, gpu: str | None = None) -> None:
        self._tower, self._gpu = tower, gpu
        self._batches = (1, 3, MAX_BATCH)
        self._original: Original = tower.original or TowerPath(tower)
        encoded = parity_pictures()
        self._pictures = list(encoded)
        self._theirs = [open_as_script(data) for data in encoded.values()]
        self._pixels = np.stack(
            [to_pixels(data, tower.image_geometry, exact=True) for data in encoded.values()]
        )
        self._kinds = list(TEXTS)
        self._rows = tokenize_cut(tower, list(TEXTS.values()))
        self._expected: Outputs | None = None
        self._found: dict[str, Floats] = {}

    def check_preparation(self) -> float:
        """Compare what the towers are given: pixels after scaling, and token ids.

        Returns:
            The largest difference of a pixel, in levels of 255.
        """
        images = torch.from_numpy(self._pixels).permute(0, 3, 1, 2).to(torch.float32)
        level = self._tower.scale(torch.ones(1, 3, 1, 1)) - self._tower.scale(
            torch.zeros(1, 3, 1, 1)
        )
        most = 0.0
        for name, picture, ours in zip(
            self._pictures, self._theirs, self._tower.scale(images), strict=True
        ):
            theirs = self._original.pixel_values(picture)
            if theirs.shape != ours.shape:
                raise _refusal(
                    Message(
                        "picture '{0}' reaches the tower as {1} and the checkpoint's own "
                        "processor makes {2}",
                        name,
                        list(ours.shape),
                        list(theirs.shape),
                    )
                )
            levels = float(((theirs - ours).abs() / level).max())
            most = float(np.maximum(most, levels))
            if not levels <= MOST_LEVELS:
                raise _refusal(
                    Message(
                        "picture '{0}' is prepared {1} of 255 levels away from the "
                        "checkpoint's own processor (at most {2}): its size, resample filter, "
                        "mean or std is read wrongly",
                        name,
                        f"{levels:.1f}",
                        f"{MOST_LEVELS:.0f}",
                    )
                )
        for kind, ours_ids, their_ids in zip(
            self._kinds, self._rows, self._original.token_ids(list(TEXTS.values())), strict=True
        ):
            if list(their_ids) != list(ours_ids):
                raise _refusal(
                    Message(
                        "text '{0}' becomes tokens {1} and the checkpoint's own tokenizer "
                        "gives {2}",
                        kind,
                        list(ours_ids)[:8],
                        list(their_ids)[:8],
                    )
                )
        return round(most, 3)

    def check_image(self, path: Path, precision: str) -> TowerParity:
        """Compare an image tower's ONNX file with the original."""
        check_accelerators(path, "image", precision)
        places = self._places(len(self._pictures), self._batches)
        inputs = [self._pixels[place] for place in places]
        return self._check("image", path, precision, inputs, places, self._pictures)

    def check_text(self, path: Path, precision: str) -> TowerParity:
        """Compare a text tower's ONNX file with the original."""
        check_accelerators(path, "text", precision)
        # Alone too, so that a text is compared at its own length as well as padded.
        places = [np.array([place]) for place in range(len(self._rows))]
        places += self._places(len(self._rows), self._batches[1:])
        spec = self._tower.text_spec
        inputs = [pad([self._rows[row] for row in place], spec) for place in places]
        checked = self._check("text", path, precision, inputs, places, self._kinds)
        self._check_any_ids(path)
        return checked

    def _check_any_ids(self, path: Path) -> None:
        session, tower = _session(path, rounded=False), self._tower
        check_any_ids(
            lambda ids: session.run(None, {"INPUT_IDS": ids}),
            self._rows[0],
            tower.text_spec,
            tower.vocabulary,
            tower.fingerprint,
        )

    def check_answers(self) -> Answers:
        """Compare the best label and the probabilities, from what the last checked files gave."""
        tower, expected = self._tower, self.run_original()
        cosines = self._found["image"] @ self._found["text"].T
        theirs = (expected.image @ expected.text.T).numpy()
        best, their_best = cosines.argmax(1), expected.logits.numpy().argmax(1)
        rows = np.arange(len(best))
        lead = theirs[rows, their_best] - theirs[rows, best]
        ties = int(((best != their_best) & (lead <= TIE_COSINE)).sum())
        wrong = [self._pictures[row] for row in rows if lead[row] > TIE_COSINE]
        if wrong:
            raise _refusal(
                Message(
                    "another label than the original's comes first for {0} of {1} pictures ({2})",
                    len(wrong),
                    len(rows),
                    ", ".join(wrong),
                )
            )
        difference = self._probabilities_apart(cosines)
        exact = (tower.precision.image, tower.precision.text) == ("fp32", "fp32")
        # A lower precision moves probabilities; the original's own cosines show the scale alone.
        apart = difference if exact else self._probabilities_apart(theirs)
        if not apart <= MOST_PROBABILITY:
            raise _refusal(
                Message(
                    "probabilities differ by {0} (at most {1}): the logit scale or bias is "
                    "read wrongly",
                    f"{apart:.4f}",
                    MOST_PROBABILITY,
                )
            )
        return Answers(pictures=len(rows), ties=ties, largest_difference=round(difference, 6))

    def _probabilities_apart(self, cosines: Floats) -> float:
        """Give how far the probabilities of cosines are from the original's."""
        score, logits = self._tower.score, self.run_original().logits.double()
        theirs = logits.softmax(-1) if score.kind == "softmax" else logits.sigmoid()
        return float(np.abs(scores(cosines, score, Calibration()) - theirs.numpy()).max())

    def _places(self, kinds: int, batches: Sequence[int]) -> list[npt.NDArray[np.intp]]:
        """Give which kinds each batch holds: all of them once, and in turn up to each size."""
        return [np.arange(kinds), *(np.arange(batch) % kinds for batch in batches)]

    def run_original(self) -> Outputs:
        """Give what the original answers; it is run once, and then it may leave the memory."""
        if self._expected is None:
            self._expected = self._original.run(self._theirs, list(TEXTS.values()))
        return self._expected

    def _check(
        self,
        side: str,
        path: Path,
        precision: str,
        inputs: Sequence[npt.NDArray[Any]],
        places: Sequence[npt.NDArray[np.intp]],
        names: Sequence[str],
    ) -> TowerParity:
        expected: Floats = getattr(self.run_original(), side).numpy()
        least = np.ones(len(names))
        found = np.empty_like(expected)
        gpu = None if precision == "int8" else self._gpu
        for place, embeddings, fingerprints in _run_all(path, precision, inputs, places, gpu):
            if (fingerprints != self._tower.fingerprint).any():
                raise ModelError(
                    "{0} answers fingerprint {1}, expected {2}",
                    path,
                    fingerprints[0],
                    self._tower.fingerprint,
                )
            if embeddings.shape[1:] != expected.shape[1:]:
                raise _refusal(
                    Message(
                        "the {0} tower gives {1} numbers and the original {2}",
                        side,
                        embeddings.shape[1],
                        expected.shape[1],
                    )
                )
            lengths = np.linalg.norm(embeddings, axis=1)
            if (np.abs(lengths - 1) > LENGTH_ERROR).any():
                raise _refusal(
                    Message(
                        "the {0} tower in {1} gives embeddings of length {2} to {3}, and they "
                        "must have length 1",
                        side,
                        precision,
                        f"{lengths.min():.4f}",
                        f"{lengths.max():.4f}",
                    )
                )
            # Not min(): it would drop a NaN, and with it a tower that answers NaN.
            np.minimum.at(least, place, (embeddings * expected[place]).sum(1))
            if len(place) == len(names):
                found[place] = embeddings
        self._found[side] = found
        required = LEAST_COSINE[precision]
        if not least.min() >= required:
            worst = names[int(np.argmin(np.nan_to_num(least, nan=-1.0)))]
            raise _refusal(
                Message(
                    "the {0} tower in {1} is too far from the original: least cosine {2} (at "
                    "least {3}), worst on '{4}'",
                    side,
                    precision,
                    f"{least.min():.6f}",
                    required,
                    worst,
                )
            )
        return TowerParity(
            precision=precision,
            required_cosine=required,
            batches=self._batches,
            cosines={
                kind: round(float(value), 7) for kind, value in zip(names, least, strict=True)
            },
            device=gpu or "CPU",
        )


def _run_all(
    path: Path,
    precision: str,
    inputs: Sequence[npt.NDArray[Any]],
    places: Sequence[npt.NDArray[np.intp]],
    gpu: str | None,
) -> Iterator[tuple[npt.NDArray[np.intp], Floats, npt.NDArray[np.int64]]]:
    """Run a tower on every batch, small ones first, with one session in memory at a time."""

    def is_rounded(index: int) -> bool:
        return precision == "fp16" and gpu is None and len(places[index]) <= ROUNDED_BATCH

    order = sorted(range(len(places)), key=lambda index: len(places[index]))
    for rounded, group in itertools.groupby(order, key=is_rounded):
        session = cuda_session(path) if gpu else _session(path, rounded)
        name = session.get_inputs()[0].name
        for index in group:
            embeddings, fingerprints = session.run(None, {name: inputs[index]})
            yield places[index], embeddings, fingerprints
        del session


def _session(path: Path, rounded: bool) -> onnxruntime.InferenceSession:
    """Load an ONNX file on the CPU; `rounded` as a GPU would round an fp16 one."""
    options = onnxruntime.SessionOptions()
    # An arena would keep the largest batch's memory until the export ends.
    options.enable_cpu_mem_arena = False
    providers = ["CPUExecutionProvider"]
    if not rounded:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    copy = path.with_name("rounded.onnx")
    write_rounded(path, copy)
    try:
        return onnxruntime.InferenceSession(copy, options, providers=providers)
    finally:
        copy.unlink()


def report(parity: Parity) -> list[tuple[str, str]]:
    """Give a parity report as rows of a table: what was compared, and the figure."""
    rows: list[tuple[str, str]] = [
        ("pixels, at most", Message("{0} of 255 levels apart", f"{parity.pixel_levels:.2f}"))
    ]
    for side, checks in parity.towers.items():
        for check in checks:
            kind = min(check.cosines, key=lambda name: check.cosines[name])
            rows.append(
                (
                    Message("{0} tower, {1}", side, check.precision),
                    Message("cosine at least {0} ('{1}')", f"{check.least_cosine:.6f}", kind),
                )
            )
    devices = dict.fromkeys(check.device for checks in parity.towers.values() for check in checks)
    rows.append(("compared on", ", ".join(devices)))
    answers = parity.answers
    same = Message("the same for {0} pictures", answers.pictures)
    if answers.ties:
        same = Message("{0}, {1} of them ties", same, answers.ties)
    rows.append(("best label", same))
    rows.append(
        ("probabilities", Message("at most {0} apart", f"{answers.largest_difference:.6f}"))
    )
    return rows


def _refusal(why: str) -> ModelError:
    return ModelError("{0}; nothing was published", why)
