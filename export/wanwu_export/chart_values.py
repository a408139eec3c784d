"""The values file beside the models: what the Helm chart must know of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from wanwu.contract import Contract
from wanwu.repository import MANIFEST

VALUES = "values.yaml"


def write_chart_values(repository: Path, version: int, contract: Contract) -> None:
    """Write the values of what a repository serves, as `helm install -f` takes them.

    The chart makes warm-up requests and TensorRT profiles of the sizes, and refuses a precision
    that its hardware cannot run. Its pods compare the manifest's hash with the repository's.
    """
    manifest = (repository / MANIFEST).read_bytes()
    lines = [
        "# Written by `wanwu`, anew with each version: helm install … -f values.yaml",
        "model:",
        f"  name: {json.dumps(contract.model.name)}",
        f'  version: "{version}"',
        f'  fingerprint: "{contract.fingerprint}"',
        f'  manifestSha256: "{hashlib.sha256(manifest).hexdigest()}"',
        f"  image: {{height: {contract.image.height}, width: {contract.image.width}}}",
        f"  text: {{maxLength: {contract.text.max_length}}}",
        f"  precision: {{image: {contract.precision.image}, text: {contract.precision.text}}}",
    ]
    (repository / VALUES).write_text("\n".join(lines) + "\n", encoding="utf-8")
