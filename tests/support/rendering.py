"""What the tests of rendering share: settings from plain trees, schemas, and everything the repository renders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llama_gguf import platforms
from llama_gguf.platforms import KubernetesOptions, RenderRequest, render_kubernetes
from llama_gguf.settings import Settings, parse

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = Path(platforms.__file__).parent / "schemas"
HF: dict[str, Any] = {"hf": {"repo": "ggml-org/gemma-3-4b-it-GGUF", "file": "gemma-3-4b-it-Q4_K_M.gguf"}}

KEYED: dict[str, Any] = {"bootstrap": {"env": "KEY"}}


def settings(**sections: Any) -> Settings:
    """Return settings with a model from a hub, and `sections` over it."""
    return parse({"model": HF} | sections)


def built(
    chosen: Settings, options: KubernetesOptions | None = None, request: RenderRequest | None = None
) -> dict[str, Any]:
    """Return the manifests for Kubernetes by file name."""
    bundle = render_kubernetes(chosen, request or RenderRequest(), options or KubernetesOptions())
    return {
        Path(name).name: yaml.safe_load(text) for name, text in bundle.files.items() if name.startswith("manifests/")
    }


def pod(objects: dict[str, Any]) -> Any:
    """Return the pod of the deployment."""
    return objects["deployment.yaml"]["spec"]["template"]["spec"]


def schema(name: str) -> dict[str, Any]:
    """Return a vendored schema of a platform."""
    loaded: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    return loaded


def rendered_files() -> Iterator[Path]:
    """Yield every file that `render` is known to give: the ready-made ones and those of the golden cases."""
    for folder in (ROOT / "image/deploy", ROOT / ".runpod", *(ROOT / "tests/golden/render").glob("*/expected")):
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in (".json", ".yaml"))
    yield ROOT / "image/compose.yaml"


def manifests(folder: Path) -> dict[str, Any]:
    """Return the objects of a folder of manifests by file name, less kustomization and example."""
    found = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in sorted(folder.glob("*.yaml"))}
    return {name: tree for name, tree in found.items() if name not in ("kustomization.yaml", "secret.example.yaml")}
