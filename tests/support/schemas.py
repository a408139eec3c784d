"""Check a Kubernetes object against its schema, as a strict server would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

#: crds/make.py says where these come from.
CRDS = {path.stem: path for path in Path(__file__).with_name("crds").glob("*.json")}


def validate(each: dict[str, Any], version: str = "1.35") -> None:
    """Raise when an object is none that this version of Kubernetes takes."""
    if each["kind"] in CRDS:
        jsonschema.validate(each, json.loads(CRDS[each["kind"]].read_text()))
    else:
        kubernetes_validate.validate(each, version, strict=True)
