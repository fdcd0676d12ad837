"""The Helm chart: the manifests with their installation's choices left open. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from llama_gguf import __version__
from llama_gguf.platforms.container import REPOSITORY, Launch
from llama_gguf.platforms.serialize import Tree, to_yaml

from .objects import secret_keys

_VALUES_HEADER = (
    "Defaults of the chart, as rendered from the configuration. Ports and stop times are read from `config`.",
    "Another configuration: helm install NAME . --set-file config=config.yaml",
)


def chart(launch: Launch, templates: Mapping[str, Tree], defaults: Tree) -> dict[str, str]:
    """Return the files of the chart made of `templates`, by path below the chart's folder."""
    files = {
        "Chart.yaml": to_yaml(
            {
                "apiVersion": "v2",
                "name": REPOSITORY,
                "description": "A GGUF model behind an OpenAI-compatible API with keys, limits and a fair queue.",
                "type": "application",
                "version": __version__,
                "appVersion": __version__,
            }
        ),
        "values.yaml": to_yaml({"serviceMonitor": {"enabled": False}} | _merged(defaults), header=_VALUES_HEADER),
    }
    for name, tree in templates.items():
        text = to_yaml(tree)
        if name == "service-monitor.yaml":
            text = "{{- if .Values.serviceMonitor.enabled }}\n" + text + "{{- end }}\n"
        files[f"templates/{name}"] = text
    files["templates/NOTES.txt"] = _notes(launch)
    return files


def _merged(defaults: Tree) -> Tree:
    monitor = defaults.get("serviceMonitor")
    return defaults | ({"serviceMonitor": {"enabled": False, **monitor}} if isinstance(monitor, dict) else {})


def _notes(launch: Launch) -> str:
    lines = ["The API becomes ready when the model is loaded: kubectl rollout status deployment/{{ .Release.Name }}"]
    if keys := secret_keys(launch):
        literals = " ".join(f"--from-literal={key}=..." for key in keys)
        lines.append(
            "The pods wait for their secrets: kubectl create secret generic {{ .Release.Name }}-secrets " + literals
        )
    return "\n".join(lines) + "\n"
