"""Settings as a short YAML document, and as one variable for each setting: how a configuration reaches a container.

Owns what "differs from the default" means and how a value becomes the text of a `LLAMA_GGUF__…` variable, the
inverse of what `settings.loading.load` reads. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import cast

from llama_gguf.platforms.serialize import Tree, to_flat_json, to_yaml
from llama_gguf.settings import Settings, parse
from llama_gguf.settings.schema_tree import ENV_DELIMITER, SettingPath, dotted, env_name, settings_schema

Patch = Mapping[str, object]
"""Settings by dotted name that a platform overrides, as in {"paths.data_dir": "/data"}."""
_MODELS = "models"
_IN_VARIABLES = re.compile(rf"[a-z0-9](?:(?!{ENV_DELIMITER})[a-z0-9_])*(?<!_)")
"""Names of models that can be part of a variable's: with a hyphen, a shell on the way would drop the variable."""


def document(settings: Settings) -> Tree:
    """Return what differs from the defaults, structured as config.yaml is."""
    tree = {name: _plain(value) for name, value in settings.model_dump(mode="json", exclude_defaults=True).items()}
    for key, served in settings.models.items():
        # What is not set for a model is as in `engine`, so it has the differences from that, not from the defaults.
        group = cast(Tree, cast(Tree, tree[_MODELS])[key])
        group.pop("engine", None)
        common, own = settings.engine.model_dump(mode="json"), served.engine.model_dump(mode="json")
        if changed := _differences(own, common):
            group["engine"] = _plain(changed)
    return tree


def _differences(own: Tree, common: Tree) -> Tree:
    """Return what of `own` is not as in `common`, group by group."""
    found: Tree = {}
    for name, value in own.items():
        below = common[name]
        if isinstance(value, dict) and isinstance(below, dict):
            if inner := _differences(value, below):
                found[name] = inner
        elif value != below:
            found[name] = value
    return found


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
    return {
        env_name(path): variable_text(value)
        for path, value in _leaves(document(settings))
        if dotted(path) not in without and (only is None or dotted(path) in only)
    }


def _leaves(tree: Tree) -> Iterator[tuple[SettingPath, object]]:
    """Yield what each variable sets. A map whose names are the operator's is one value: variables are in capitals."""
    tree = dict(tree)
    models = cast("dict[str, Tree]", tree.pop(_MODELS, {}))
    yield from _settings_of(models)
    for name, section in tree.items():
        yield from _below(section, (name,))


def _settings_of(models: Mapping[str, Tree]) -> Iterator[tuple[SettingPath, object]]:
    """Yield the settings of models; before them what variables cannot say: their order, and names with a hyphen."""
    apart = {key: _IN_VARIABLES.fullmatch(key) is not None for key in models}
    as_read = sorted(models, key=lambda key: key.upper() + ENV_DELIMITER)
    if list(models) != as_read or not all(apart.values()):
        yield (_MODELS,), {key: {} if apart[key] else model for key, model in models.items()}
    for key, model in models.items():
        if apart[key]:
            for name, value in model.items():
                yield from _below(value, (_MODELS, key, name))


def _below(value: object, path: SettingPath) -> Iterator[tuple[SettingPath, object]]:
    if isinstance(value, dict) and value and settings_schema().keys(path):
        for name, child in value.items():
            yield from _below(child, (*path, name))
    else:
        yield path, value


def variable_text(value: object) -> str:
    """Return the value of a variable: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else to_flat_json(value)
