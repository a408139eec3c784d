"""Writes the chart's README.md and values.schema.json from values.yaml, its manual.

And the list of its keys for `wanwu plan`, which reads values files where there is no chart; and the
model repository's configs for CPU and GPU nodes, which `static_configs` renders by helm. And it
copies the table of Triton's known faults into the chart.

A comment that begins with "# -- " describes the key below it. In it "One of: a, b." is an
enumeration, and "1 to 9" in its first line the bounds of a number.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from static_configs import static_configs
from value_types import PATTERNS, TYPES

CHART = Path(__file__).parent / "wanwu"
KEYS = CHART.parents[1] / "loadtest" / "wanwu_loadtest" / "planner" / "chart_values.txt"
#: Known faults of Triton's releases, which the client reads too.
RELEASES = CHART.parents[1] / "client" / "wanwu" / "data" / "triton-releases.json"
#: Maps with defaults, which are documented as a whole.
OPEN = {"resources", "annotations", "dnsNamespace", "dashboardLabels"}

_KEY = re.compile(r"( *)([A-Za-z0-9]+):(?: |$)")


@dataclass(frozen=True)
class Value:
    """One leaf of values.yaml."""

    path: str
    default: Any
    comment: str
    first_line: str


def read_values(text: str) -> list[Value]:
    """Give every leaf, in order.

    Raises:
        ValueError: a leaf has no comment.
    """
    tree = yaml.safe_load(text)
    found: list[Value] = []
    parents: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and comment:
            comment.append(stripped.removeprefix("#").strip())
        elif match := _KEY.match(line):
            depth = len(match[1]) // 2
            parents = [*parents[:depth], match[2]]
            value: Any = tree
            for key in parents:
                value = value.get(key) if isinstance(value, dict) else None
            if is_leaf(match[2], value):
                if not comment and not _inside(parents, found):
                    raise ValueError(f"{'.'.join(parents)} has no comment; put '# -- ' above it")
                if comment:
                    path = ".".join(parents)
                    found.append(Value(path, value, " ".join(comment), comment[0]))
            comment = []
    return found


def _inside(parents: list[str], found: list[Value]) -> bool:
    """Tell whether a line belongs to the default of a documented map, such as resources."""
    return any(".".join(parents).startswith(f"{each.path}.") for each in found)


def is_leaf(key: str, value: Any) -> bool:
    """Tell whether a key is documented as a whole."""
    return not isinstance(value, dict) or not value or key in OPEN


def schema_of(values: list[Value]) -> dict[str, Any]:
    """Give the JSON schema: the chart's own objects are closed."""
    root = _closed()
    root = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "wanwu", **root}
    # Helm adds the first for charts that have this one as a part; their condition reads the second.
    root["properties"]["global"] = {"type": "object"}
    root["properties"]["enabled"] = {"type": "boolean"}
    for value in values:
        *parents, last = value.path.split(".")
        node = root
        for key in parents:
            _require(node, key)
            node = node["properties"].setdefault(key, _closed())
        _require(node, last)
        node["properties"][last] = _leaf(last, value)
    return root


def _require(node: dict[str, Any], key: str) -> None:
    """Refuse a null: Helm takes keys that are null away before it looks at the schema."""
    if key not in node["required"]:
        node["required"].append(key)


def _closed() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": [], "properties": {}}


def _leaf(key: str, value: Value) -> dict[str, Any]:
    described: dict[str, Any] = {"description": value.comment, **_type(key, value)}
    if choices := re.search(r"One of: ([^.]+)\.", value.comment):
        unknown = [""] if value.default == "" else []
        described["enum"] = [*unknown, *map(yaml.safe_load, choices[1].split(","))]
        if not all(isinstance(each, str) for each in described["enum"]):
            del described["type"]  # true and false are no texts
    if key in PATTERNS:
        pattern = PATTERNS[key]
        described["pattern"] = f"^{pattern}$" if value.default else f"^({pattern})?$"
    return described


def _type(key: str, value: Value) -> dict[str, Any]:
    default = value.default
    if key in TYPES:
        return TYPES[key]
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, int | float):
        kind = "integer" if isinstance(default, int) else "number"
        bounds = re.search(r"\b(\d+) to (\d+)\b", value.first_line)
        if bounds is None:
            return {"type": kind, "minimum": 0}
        return {"type": kind, "minimum": int(bounds[1]), "maximum": int(bounds[2])}
    if isinstance(default, list):
        return {"type": "array"}
    return {"type": "object" if isinstance(default, dict) else "string"}


def readme_of(values: list[Value]) -> str:
    """Give the README: how to install, and a table of every value."""
    rows = [f"| `{each.path}` | `{_shown(each.default)}` | {each.comment} |" for each in values]
    return (CHART / "README.md.in").read_text(encoding="utf-8") + "\n".join(rows) + "\n"


def _shown(default: Any) -> str:
    return json.dumps(default, ensure_ascii=False)


def outputs() -> dict[Path, str]:
    """Give the generated files and what they should hold."""
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.dumps(schema_of(values), indent=2, ensure_ascii=False) + "\n"
    return {
        CHART / "values.schema.json": schema,
        CHART / "README.md": readme_of(values),
        KEYS: "".join(f"{each.path}\n" for each in values),
        CHART / "files" / RELEASES.name: RELEASES.read_text(encoding="utf-8"),
        **static_configs(CHART),
    }


def main() -> None:
    """Write the files, or with --check only tell whether they are out of date."""
    stale = []
    for path, text in outputs().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(map(str, stale))} out of date; run: make chart-docs")


if __name__ == "__main__":
    main()
