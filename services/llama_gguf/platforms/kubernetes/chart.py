"""The Helm chart: the manifests as templates, with the defaults of their values. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from llama_gguf import __version__
from llama_gguf.platforms.container import REPOSITORY, Launch
from llama_gguf.platforms.kubernetes.parameters import HelmValues
from llama_gguf.platforms.serialize import Tree, to_yaml

from .objects import secret_keys

_VALUES_HEADER = (
    "Defaults of the chart, as rendered from the configuration. Ports and stop times are read from `config`.",
    "To install another configuration: helm install NAME . --set-file config=config.yaml",
)


def chart(launch: Launch, templates: Mapping[str, Tree], values: HelmValues) -> dict[str, str]:
    """Return the files of the chart made of `templates`, by path below the chart's folder."""
    monitor: Tree = {"serviceMonitor": {"enabled": False}}
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
        "values.yaml": to_yaml(monitor | _merged(values.defaults), header=_VALUES_HEADER),
    }
    for name, tree in templates.items():
        text = to_yaml(tree)
        if name == "service-monitor.yaml":
            text = "{{- if .Values.serviceMonitor.enabled }}\n" + text + "{{- end }}\n"
        files[f"templates/{name}"] = text
    files["templates/NOTES.txt"] = _notes(launch, values.renamed)
    return files


def _merged(defaults: Tree) -> Tree:
    monitor = defaults.get("serviceMonitor")
    return defaults | ({"serviceMonitor": {"enabled": False, **monitor}} if isinstance(monitor, dict) else {})


def _notes(launch: Launch, renamed: Mapping[str, str]) -> str:
    lines = ["The API is ready when the model is loaded: kubectl rollout status deployment/{{ .Release.Name }}"]
    if keys := secret_keys(launch):
        literals = " ".join(f"--from-literal={key}=..." for key in keys)
        lines.append(
            "The pods wait for their Secret: kubectl create secret generic {{ .Release.Name }}-secrets " + literals
        )
    for path, former_key in renamed.items():
        group = path.rpartition(".")[0]
        warning = f"WARNING: {group}.{former_key} is now {path}. The former name wins where both are set"
        lines += [
            f'{{{{- if hasKey .Values.{group} "{former_key}" }}}}',
            f"{warning}; the next version ignores it.",
            "{{- end }}",
        ]
    return "\n".join(lines) + "\n"
