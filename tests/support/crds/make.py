"""Write the schemas of the custom resources that the chart renders, one JSON file a kind.

Kubernetes' own schemas come with kubernetes-validate; these come from packages that were made of
the operators' CRDs, so that no test needs a network:

    pip install cloudcoil==0.8.0 cloudcoil-models-cert-manager==1.21.1.1 \
        cloudcoil-models-keda==2.20.2.1 cloudcoil-models-prometheus-operator==0.93.1.1
    npm pack @kubernetes-models/gateway-api@0.5.1
    python make.py kubernetes-models-gateway-api-0.5.1.tgz

They need Python 3.14. cloudcoil and the CRDs are under Apache-2.0, kubernetes-models under MIT.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

from cloudcoil.models.cert_manager import v1 as cert_manager
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator

HERE = Path(__file__).parent
MODELS = [
    cert_manager.Certificate,
    keda.ScaledObject,
    prometheus_operator.PodMonitor,
    prometheus_operator.PrometheusRule,
    prometheus_operator.ServiceMonitor,
]
ROUTE = "package/gateway.networking.k8s.io/v1/HTTPRoute.js"


def closed(schema: Any) -> Any:
    """The schema without prose, refusing keys that it does not name, as a strict server does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "properties":
            # A property may be called "title" or "description".
            kept[key] = {name: closed(each) for name, each in value.items()}
        elif key in ("title", "description", "default"):
            continue
        elif key == "pattern":
            # Go lets a flag stand after the start of the line, Python does not.
            kept[key] = value.replace("^(?i)", "(?i)^")
        else:
            kept[key] = closed(value)
    if "properties" in kept:
        kept.setdefault("additionalProperties", False)
    return kept


def http_route(package: Path) -> Any:
    """The schema literal in the JavaScript of kubernetes-models."""
    with tarfile.open(package) as tar:
        text = tar.extractfile(ROUTE).read().decode()
    found = re.search(r"^const schema = (\{.*?^\});", text, re.DOTALL | re.MULTILINE)
    return json.loads(found[1])


def write(kind: str, schema: Any) -> None:
    """Write one kind; what every object's metadata is, Kubernetes' own schemas say."""
    schema = closed(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    (HERE / f"{kind}.json").write_text(text + "\n")


if __name__ == "__main__":
    for model in MODELS:
        write(model.__name__, model.model_json_schema(by_alias=True))
    write("HTTPRoute", http_route(Path(sys.argv[1])))
