"""One set of objects, filled in two ways: with known values in manifests, with template expressions in a Helm chart.

Owns the expressions of the chart. What the chart can read from its config.yaml (ports, stop times) is not a value of
its own.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, cast

from llama_gguf.platforms.container import Launch
from llama_gguf.platforms.environment import config_yaml
from llama_gguf.platforms.kubernetes.options import DEREGISTER_SECONDS
from llama_gguf.platforms.serialize import Expression, Tree
from llama_gguf.settings import Settings

_CONFIG = "(fromYaml .Values.config)"


class Values(Protocol):
    """What may differ from one installation to the next, for the builders of objects."""

    def name(self, suffix: str = "") -> str:
        """Return the name of an object."""
        ...

    def value(self, path: str, default: object, *, former_key: str = "") -> object:
        """Return `default`, or the chart's expression for its value at `path`; `former_key` is the key's old name."""
        ...

    def port(self, section: str) -> object:
        """Return the port of `gateway` or `health`."""
        ...

    def grace_seconds(self) -> object:
        """Return the pod's terminationGracePeriodSeconds."""
        ...

    def config(self) -> str:
        """Return config.yaml as text."""
        ...

    def config_digest(self) -> str:
        """Return a digest of config.yaml: when it changes, the pods are replaced."""
        ...


class ManifestValues:
    """The values of plain manifests, known when they are rendered."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def name(self, suffix: str = "") -> str:
        """Return the launch's name with `suffix`."""
        return self._launch.name + suffix

    def value(self, path: str, default: object, *, former_key: str = "") -> object:
        """Return `default`."""
        del path, former_key
        return default

    def port(self, section: str) -> object:
        """Return the configured port."""
        settings = self._launch.settings
        return settings.gateway.port if section == "gateway" else settings.health.port

    def grace_seconds(self) -> object:
        """Return the sum of the preStop delay, drain and stop."""
        return DEREGISTER_SECONDS + self._launch.stop_seconds

    def config(self) -> str:
        """Return the configuration as YAML."""
        return config_yaml(self._launch.settings)

    def config_digest(self) -> str:
        """Return the SHA-256 of the configuration."""
        return hashlib.sha256(self.config().encode()).hexdigest()


class HelmValues:
    """Template expressions of a chart. Collects the defaults for its values.yaml, and the keys that were renamed."""

    def __init__(self, settings: Settings) -> None:
        self.defaults: Tree = {"config": config_yaml(settings)}
        self.renamed: dict[str, str] = {}  # path of a value: its former key in the same group

    def name(self, suffix: str = "") -> str:
        """Return the release's name with `suffix`."""
        return Expression("{{ .Release.Name }}" + suffix)

    def value(self, path: str, default: object, *, former_key: str = "") -> object:
        """Add `default` to values.yaml. A former key wins: only an installer's own values can have set it."""
        *parents, leaf = path.split(".")
        group = self.defaults
        for parent in parents:
            group = cast(Tree, group.setdefault(parent, {}))
        group[leaf] = default
        if not former_key:
            return Expression(f"{{{{ .Values.{path} | toJson }}}}")
        self.renamed[path] = former_key
        return Expression(f'{{{{ dig "{former_key}" .Values.{path} .Values.{".".join(parents)} | toJson }}}}')

    def port(self, section: str) -> object:
        """Read the port from the chart's config.yaml."""
        default = Settings.model_fields[section].get_default(call_default_factory=True).port
        return Expression(f'{{{{ dig "{section}" "port" {default} {_CONFIG} | int }}}}')

    def grace_seconds(self) -> object:
        """Add up the times in the chart's config.yaml."""
        gateway = Settings.model_fields["gateway"].get_default(call_default_factory=True)
        supervisor = Settings.model_fields["supervisor"].get_default(call_default_factory=True)
        drain = f'(dig "gateway" "drain_seconds" {gateway.drain_seconds} {_CONFIG})'
        stop = f'(dig "supervisor" "stop_seconds" {supervisor.stop_seconds} {_CONFIG})'
        return Expression(f"{{{{ addf {drain} {stop} {DEREGISTER_SECONDS + 5} | ceil | int }}}}")

    def config(self) -> str:
        """Return the chart's config.yaml as it is."""
        return Expression("{{ .Values.config | toJson }}")

    def config_digest(self) -> str:
        """Return the SHA-256 of the chart's config.yaml."""
        return Expression("{{ .Values.config | sha256sum }}")
