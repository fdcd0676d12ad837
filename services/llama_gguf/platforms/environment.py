"""Settings as a short YAML document, and as one variable for each setting: how a configuration reaches a container.

Owns what "differs from the default" means and how a value becomes the text of a `LLAMA_GGUF__…` variable, the
inverse of what `settings.loading.load` reads. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from llama_gguf.platforms.serialize import Tree, to_flat_json, to_yaml
from llama_gguf.settings import Settings, parse
from llama_gguf.settings.loading.layers import Origin, flatten
from llama_gguf.settings.schema_tree import dotted, env_name

Patch = Mapping[str, object]
"""Settings by dotted name that a platform overrides, as in {"paths.data_dir": "/data"}."""


def document(settings: Settings) -> Tree:
    """Return what differs from the defaults, structured as config.yaml is."""
    return {name: _plain(value) for name, value in settings.model_dump(mode="json", exclude_defaults=True).items()}


def _plain(value: object) -> object:
    """Return `value` with integers for whole numbers: 30, not 30.0."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def config_yaml(settings: Settings) -> str:
    """Return the shortest config.yaml that loads as `settings`."""
    return to_yaml(document(settings), header=["Written by `llama-gguf render`: only what differs from the defaults."])


def patched(settings: Settings, patch: Patch) -> Settings:
    """Return `settings` with the values of `patch`, validated."""
    tree = document(settings)
    for name, value in patch.items():
        *parents, leaf = name.split(".")
        group = tree
        for parent in parents:
            group = cast(Tree, group.setdefault(parent, {}))
        group[leaf] = value
    return parse(tree)


def variables(
    settings: Settings, *, without: frozenset[str] = frozenset(), only: frozenset[str] | None = None
) -> dict[str, str]:
    """Return the `LLAMA_GGUF__…` variables that load as `settings`, limited by dotted names."""
    leaves = {dotted(leaf.path): leaf for leaf in flatten(document(settings), Origin("default"))}
    return {
        env_name(leaf.path): variable_text(leaf.value)
        for name, leaf in leaves.items()
        if name not in without and (only is None or name in only)
    }


def variable_text(value: object) -> str:
    """Return the value of a variable: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else to_flat_json(value)
