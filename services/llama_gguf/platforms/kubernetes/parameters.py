"""One set of objects, two ways to fill them in: values fixed now, or left open as a Helm chart's values.

Owns the expressions of the chart. What the chart can read from its config.yaml (ports, stop times) it does not ask
for a second time.
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
    """Where the builder of an object takes what may differ from one installation to the next."""

    def name(self, suffix: str = "") -> str:
        """Return the name of an object."""
        ...

    def open(self, path: str, value: object) -> object:
        """Return `value`, or the expression of the chart's value at `path`, whose default it is."""
        ...

    def port(self, section: str) -> object:
        """Return the port of `gateway` or `health`."""
        ...

    def grace_seconds(self) -> object:
        """Return how long a pod may take to stop."""
        ...

    def config(self) -> str:
        """Return the text of config.yaml."""
        ...

    def config_digest(self) -> str:
        """Return what changes when config.yaml does, so that pods are replaced."""
        ...


class Fixed:
    """Values known now."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def name(self, suffix: str = "") -> str:
        """Return the launch's name with `suffix`."""
        return self._launch.name + suffix

    def open(self, path: str, value: object) -> object:
        """Return `value`."""
        del path
        return value

    def port(self, section: str) -> object:
        """Return the configured port."""
        settings = self._launch.settings
        return settings.gateway.port if section == "gateway" else settings.health.port

    def grace_seconds(self) -> object:
        """Return drain, stop and the pause before both."""
        return DEREGISTER_SECONDS + self._launch.stop_seconds

    def config(self) -> str:
        """Return the configuration as YAML."""
        return config_yaml(self._launch.settings)

    def config_digest(self) -> str:
        """Return the SHA-256 of the configuration."""
        return hashlib.sha256(self.config().encode()).hexdigest()


class Open:
    """Expressions of a chart, whose values.yaml grows with each one that is asked for."""

    def __init__(self, settings: Settings) -> None:
        self.defaults: Tree = {"config": config_yaml(settings)}

    def name(self, suffix: str = "") -> str:
        """Return the release's name with `suffix`."""
        return Expression("{{ .Release.Name }}" + suffix)

    def open(self, path: str, value: object) -> object:
        """Note `value` as the default at `path`."""
        *parents, leaf = path.split(".")
        group = self.defaults
        for parent in parents:
            group = cast(Tree, group.setdefault(parent, {}))
        group[leaf] = value
        return Expression(f"{{{{ .Values.{path} | toJson }}}}")

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
