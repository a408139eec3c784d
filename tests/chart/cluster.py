"""A Kubernetes API that keeps what it is given and does nothing with it: enough for helm."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from chart.rendering import Object, merged

VERSION = {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
VERBS = ["create", "delete", "get", "list", "patch", "update"]
#: Kinds of the chart, and the folder in which each is kept.
KINDS = {
    "v1": [
        *("ConfigMap", "Namespace", "Node", "PersistentVolumeClaim", "Pod", "Secret", "Service"),
        "ServiceAccount",
    ],
    "apps/v1": ["Deployment", "StatefulSet"],
    "autoscaling/v2": ["HorizontalPodAutoscaler"],
    "networking.k8s.io/v1": ["Ingress", "NetworkPolicy"],
    "node.k8s.io/v1": ["RuntimeClass"],
    "policy/v1": ["PodDisruptionBudget"],
    "scheduling.k8s.io/v1": ["PriorityClass"],
    "storage.k8s.io/v1": ["StorageClass"],
    "authorization.k8s.io/v1": ["SelfSubjectAccessReview"],
    "metrics.k8s.io/v1beta1": ["NodeMetrics"],
}
LISTED = (*KINDS["v1"], *KINDS["storage.k8s.io/v1"])
OF_THE_CLUSTER = {
    *("Namespace", "Node", "NodeMetrics", "PriorityClass", "RuntimeClass", "StorageClass"),
    "SelfSubjectAccessReview",
}
#: How Kubernetes' own form of a message begins.
MAGIC = b"k8s\x00"


def plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else name + ("es" if name[-1] == "s" else "s")


class Api(BaseHTTPRequestHandler):
    """The requests of one client; the server keeps the objects by their paths."""

    server: KeptObjects

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path, kept = address.path.rstrip("/"), self.server.kept
        if found := discovery(path):
            self._answer(200, found)
        elif self._refused():
            return
        elif found := kept.get(path):
            self._answer(200, found)
        elif kind := {plural(each): each for each in LISTED}.get(path.rpartition("/")[2]):
            wanted = parse_qs(address.query).get("labelSelector", [""])[0].split(",")
            inside = [each for at, each in kept.items() if at.rpartition("/")[0] == path]
            items = [each for each in inside if selected(each, wanted)]
            version = next(version for version, kinds in KINDS.items() if kind in kinds)
            self._answer(200, {"kind": f"{kind}List", "apiVersion": version, "items": items})
        else:
            self._missing()

    def do_POST(self) -> None:
        if self.path.partition("?")[0].endswith("/selfsubjectaccessreviews"):
            about = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            wanted = review_of(self.rfile.read(int(self.headers["Content-Length"])))
            allowed = right(wanted) not in self.server.denied
            self._answer(201, {**about, "status": {"allowed": allowed}})
            return
        new = self._body()
        if self._refused():
            return
        self._keep(f"{urlsplit(self.path).path}/{new['metadata']['name']}", new, 201)

    def do_PUT(self) -> None:
        self._keep(urlsplit(self.path).path, self._body(), 200)

    def do_PATCH(self) -> None:
        # Lists are replaced as a whole, which is less than a strategic merge does.
        path = urlsplit(self.path).path
        self._keep(path, merged(self.server.kept.get(path, {}), self._body()), 200)

    def do_DELETE(self) -> None:
        gone = self.server.kept.pop(urlsplit(self.path).path, None)
        self._answer(200, gone) if gone else self._missing()

    def _body(self) -> Object:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        body: Object = object_of(text) if text.startswith(MAGIC) else yaml.safe_load(text)
        return body

    def _keep(self, path: str, each: Object, status: int) -> None:
        if "dryRun" not in self.path:
            self.server.kept[path] = each
        self._answer(status, each)

    def _refused(self) -> bool:
        """Answer 403 where the user lacks the right, as the review of the right would say."""
        path = urlsplit(self.path).path
        found = re.fullmatch(r"/apis?/(?:(.+?)/)?v\w+(?:/namespaces/[^/]+)?/([^/]+)(/.+)?", path)
        group, resource, name = found.groups() if found else ("", "", "")
        verb = {"GET": "get" if name else "list", "POST": "create"}[self.command]
        wanted = {"verb": verb, "group": group, "resource": resource}
        refused = right(wanted) in self.server.denied
        if refused:
            self._status(403, "Forbidden", f"{right(wanted)} is forbidden")
        return refused

    def _missing(self) -> None:
        self._status(404, "NotFound", f"{self.path} not found")

    def _status(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        self._answer(code, {**status, "reason": reason, "message": message})

    def _answer(self, status: int, content: Object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def right(wanted: Object) -> str:
    """Name a right as `kubectl auth can-i` does: create deployments.apps, create pods/exec."""
    resource = ".".join(filter(None, (wanted["resource"], wanted.get("group"))))
    return f"{wanted['verb']} {'/'.join(filter(None, (resource, wanted.get('subresource'))))}"


def discovery(path: str) -> Object | None:
    """Give what a client reads to know the server's kinds."""
    groups = [version for version in KINDS if "/" in version]
    if path == "/version":
        return VERSION
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = {each: {"groupVersion": each, "version": each.split("/")[1]} for each in groups}
        listed = [
            {"name": each.split("/")[0], "versions": [one], "preferredVersion": one}
            for each, one in versions.items()
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in KINDS:
        return None
    resources: list[dict[str, Any]] = [
        {
            "name": plural(kind),
            "singularName": kind.lower(),
            "namespaced": kind not in OF_THE_CLUSTER,
            "kind": kind,
            "verbs": VERBS,
        }
        for kind in KINDS[version]
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Give a protobuf message's fields that have a length, with their numbers."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (message[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if message[at - 1] < 0x80:
                return value

    while at < len(message):
        tag = varint()
        size = varint()
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + size]
            at += size


def object_of(message: bytes) -> Object:
    """Read a Namespace, or helm's Secret of a release: its numbers are of k8s.io/api/core/v1."""
    unknown = dict(fields(message.removeprefix(MAGIC)))
    kind = dict(fields(unknown[1]))[2].decode()
    parts = list(fields(unknown[2]))
    metadata = list(fields(dict(parts)[1]))
    labels = [dict(fields(each)) for number, each in metadata if number == 11]
    about = {
        "name": dict(metadata)[1].decode(),
        "labels": {each[1].decode(): each[2].decode() for each in labels},
    }
    read: Object = {"apiVersion": "v1", "kind": kind, "metadata": about}
    if kind == "Secret":
        data = [dict(fields(each)) for number, each in parts if number == 2]
        read["data"] = {each[1].decode(): base64.b64encode(each[2]).decode() for each in data}
        read["type"] = dict(parts)[3].decode()
    return read


def review_of(message: bytes) -> Object:
    """Read what a SelfSubjectAccessReview asks: its numbers are of k8s.io/api/authorization/v1."""
    raw = dict(fields(message.removeprefix(MAGIC)))[2]
    asked = dict(fields(dict(fields(dict(fields(raw))[2]))[1]))
    numbers = {"verb": 2, "group": 3, "resource": 5, "subresource": 6}
    return {name: asked.get(number, b"").decode() for name, number in numbers.items()}


def selected(each: Object, wanted: list[str]) -> bool:
    labels = each["metadata"].get("labels", {})
    pairs = [want.partition("=") for want in wanted if want]
    return all(labels.get(name) == value for name, _, value in pairs)


class KeptObjects(ThreadingHTTPServer):
    """The server, and what it keeps."""

    kept: dict[str, Object]
    #: Rights that the user lacks, such as "list nodes".
    denied: set[str]

    def secret(self, namespace: str, name: str) -> Object:
        return self.kept[f"/api/v1/namespaces/{namespace}/secrets/{name}"]


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[KeptObjects, Path]]:
    """Serve an empty cluster; give it and a kubeconfig for it."""
    with KeptObjects(("127.0.0.1", 0), Api) as server:
        server.kept, server.denied = {}, set()
        threading.Thread(target=server.serve_forever, args=(0.1,)).start()
        here = {"server": f"http://127.0.0.1:{server.server_address[1]}"}
        config = {
            "clusters": [{"name": "c", "cluster": here}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
            "current-context": "c",
        }
        file = folder / "kubeconfig"
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
        yield server, file
        server.shutdown()
