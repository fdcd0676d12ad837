"""Environment variables and `--set` flags -> assignments. Pure: mappings and texts in, values out.

pydantic-settings turns a nested name into a path in the tree (`nested_variables`); what it would silently ignore
(unknown names, near misses) is reported here.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from llama_gguf.errors import Problem
from llama_gguf.settings.checks.reserved_args import hoist
from llama_gguf.settings.environment_value import QUOTES_HINT, clean
from llama_gguf.settings.loading.coerce import from_text
from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES, NEAR_MISSES, PLATFORM_VARIABLES
from llama_gguf.settings.loading.layers import Assignment, Origin, flatten
from llama_gguf.settings.messages.hints import show
from llama_gguf.settings.messages.pydantic_errors import unknown_key
from llama_gguf.settings.platform import RUNPOD_ENDPOINT_ID
from llama_gguf.settings.schema_tree import ENV_DELIMITER, ENV_PREFIX, SettingPath, SettingsSchema, dotted, env_name
from llama_gguf.settings.words import closest

Found = Iterator[Assignment | Problem]
"""What a layer sets, and what is wrong with it."""
_SERVICE_LINK = re.compile(r"^[a-z]+://|^\d{1,3}(\.\d{1,3}){3}$")  # what Kubernetes sets for each Service
_CONTEXT: SettingPath = ("engine", "context_per_slot")
_SLOTS: SettingPath = ("engine", "slots")


def unquoted(env: Mapping[str, str]) -> tuple[Mapping[str, str], list[Problem]]:
    """Return `env` without quotes around the values of settings, and a warning for each."""
    read = {legacy.name for legacy in LEGACY_VARIABLES} | {one.name for one in PLATFORM_VARIABLES if one.setting}
    values = {name: clean(env[name]) for name in sorted(env) if name in read or name.upper().startswith(ENV_PREFIX)}
    quoted = {name: value.text for name, value in values.items() if value.removed == "quotes"}
    problems = [
        _warning("quoted-variable", name, "the quotes around the value are ignored", QUOTES_HINT) for name in quoted
    ]
    return {**env, **quoted}, problems


def nested_variables(env: Mapping[str, str], schema: SettingsSchema) -> Found:
    """Read `LLAMA_GGUF__A__B=…`. Empty values count as unset, because templates leave them blank."""
    names = [name for name in sorted(env) if name.upper().startswith(ENV_PREFIX) and env[name].strip()]
    if names:
        from llama_gguf.settings.loading.nested_variables import nested  # noqa: PLC0415 - see there
    for name in names:
        if name != name.upper():
            yield _problem(name, "no such variable", f'did you mean "{name.upper()}"?')
            continue
        leaves = list(flatten(nested(name, env[name]), Origin("environment", name)))
        if not leaves or schema.at(leaves[0].path) is None:
            yield _unknown_variable(name, schema)
        else:
            yield from _convert(leaves[0], schema)


def _convert(raw: Assignment, schema: SettingsSchema) -> Found:
    """Yield `raw`, whose value is text, with a value of the type that the setting expects."""
    try:
        value = from_text(str(raw.value), raw.path, schema)
    except ValueError as error:
        yield Problem("bad-value", f"{dotted(raw.path)}: {error}", dotted(raw.path), raw.origin.source)
    else:
        yield from flatten(value, raw.origin, raw.path)


def _unknown_variable(name: str, schema: SettingsSchema) -> Problem:
    near = closest(name, [env_name(leaf.path) for leaf in schema.leaves()])
    path: SettingPath = tuple(name[len(ENV_PREFIX) :].lower().split(ENV_DELIMITER))
    hint = f'did you mean "{near}"?' if near else unknown_key(path, schema).hint
    return _problem(name, "no such setting", hint)


def _problem(name: str, message: str, hint: str, code: str = "unknown-variable") -> Problem:
    text = f"{name} {message}" if message.startswith(("is ", "has ")) else f"{name}: {message}"
    return Problem(code, text, source=f"environment variable {name}", hint=hint)


def _warning(code: str, name: str, message: str, hint: str) -> Problem:
    return dataclasses.replace(_problem(name, message, hint, code), severity="warning")


def platform_variables(env: Mapping[str, str], schema: SettingsSchema) -> Found:
    """Read the settings that a platform sets: ports and health path on RunPod serverless."""
    if not env.get(RUNPOD_ENDPOINT_ID):
        return
    for name, traffic in (("PORT", "requests"), ("PORT_HEALTH", "health checks")):
        if not env.get(name, "").strip():
            message = f"RunPod sends {traffic} to port {env.get('PORT', '').strip() or '80'}, because {name} is not set"
            hint = "set PORT and PORT_HEALTH in the endpoint, and expose both ports"
            yield _warning("platform-ports", RUNPOD_ENDPOINT_ID, message, hint)
    for variable in PLATFORM_VARIABLES:
        if variable.setting and (text := env.get(variable.name, "").strip()):
            yield from _convert(Assignment(variable.setting, text, Origin("platform", variable.name)), schema)


def legacy_variables(env: Mapping[str, str], schema: SettingsSchema, *, slots_set: bool) -> Found:
    """Read the legacy variables. `slots_set`: whether engine.slots is set anywhere else."""
    assignments: dict[SettingPath, Assignment] = {}
    for found in _legacy_variables(env, schema):
        if isinstance(found, Problem):
            yield found
        else:
            assignments[found.path] = found
    _total_context(assignments, slots_set=slots_set)
    yield from assignments.values()


def _legacy_variables(env: Mapping[str, str], schema: SettingsSchema) -> Found:
    for legacy in LEGACY_VARIABLES:
        text = env.get(legacy.name, "")
        if not text.strip() or (legacy.name == "MODEL_NAME" and env.get("MODEL_PATH", "").strip()):
            continue
        if not legacy.setting:
            yield _warning("retired", legacy.name, "no longer has an effect", legacy.note)
        elif legacy.name == "EXTRA_ARGS":
            yield from _extra_args(text, schema)
        else:
            value = legacy.convert(text) if legacy.convert else text
            raw = Assignment(legacy.setting, value, Origin("old name", legacy.name))
            yield from _convert(raw, schema) if isinstance(value, str) else (raw,)


def _extra_args(text: str, schema: SettingsSchema) -> Found:
    origin = Origin("old name", "EXTRA_ARGS")
    try:
        settings, rest = hoist(shlex.split(text))
    except ValueError as error:
        yield _problem("EXTRA_ARGS", str(error).lower(), "balance the quotes", "bad-value")
        return
    for path, value in settings.items():
        yield from _convert(Assignment(path, value, origin), schema)
    if settings:
        names = ", ".join(f"{dotted(path)}={value}" for path, value in settings.items())
        yield _warning("moved", "EXTRA_ARGS", f"converted to settings: {names}", "set these instead")
    if rest:
        yield Assignment(("engine", "extra_args"), rest, origin)


def _total_context(assignments: dict[SettingPath, Assignment], *, slots_set: bool) -> None:
    """Preserve a legacy deployment's use of memory: its context was a total, and it had one slot by default."""
    context, slots = assignments.get(_CONTEXT), assignments.get(_SLOTS)
    if context is None:
        return
    if slots is None:
        if not slots_set:
            assignments[_SLOTS] = Assignment(_SLOTS, 1, context.origin)
        return
    total_in_arguments = context.origin.detail == "EXTRA_ARGS"
    if total_in_arguments and isinstance(slots.value, int) and isinstance(context.value, int) and slots.value > 0:
        assignments[_CONTEXT] = dataclasses.replace(context, value=context.value // slots.value)


def doubtful_names(env: Mapping[str, str], schema: SettingsSchema) -> Iterator[Problem]:
    """Yield warnings about variables that resemble those that are read, but are not."""
    read = {legacy.name for legacy in LEGACY_VARIABLES} | {variable.name for variable in PLATFORM_VARIABLES}
    for name in sorted(env):
        text = env[name].strip()
        if not text or name in read or name.upper().startswith(ENV_PREFIX) or _SERVICE_LINK.match(text):
            continue
        if name.startswith("export "):
            yield _warning("ignored-variable", name, "is not read", "write the env file without `export`")
        elif right := _near_name(name, read, schema):
            yield _warning("ignored-variable", name, "is not read", f'did you mean "{right}"?')
        elif name.startswith("LLAMA_ARG_"):
            hint = "llama-server's own variables are not passed on; use the settings, or engine.extra_args"
            yield _warning("ignored-variable", name, "is not read", hint)


def _near_name(name: str, read: Iterable[str], schema: SettingsSchema) -> str | None:
    if name in NEAR_MISSES:
        return NEAR_MISSES[name]
    if name.startswith("LLAMA_GGUF_"):
        known = [env_name(leaf.path) for leaf in schema.leaves()]
        return next((one for one in known if _flat(one) == _flat(name)), None)
    if len(name) < 8 or "_" not in name or name != name.upper():
        return None
    near = closest(name, [known for known in read if "_" in known])
    return near if near and _distance_is_one(name, near) else None


def _flat(name: str) -> str:
    return name.replace(ENV_DELIMITER, "_")


def _distance_is_one(left: str, right: str) -> bool:
    """Return whether `left` and `right` differ by one character inserted, deleted, substituted or transposed."""
    start = _common_start(left, right)
    end = _common_start(left[start:][::-1], right[start:][::-1])
    a, b = left[start : len(left) - end], right[start : len(right) - end]
    return max(len(a), len(b)) <= 1 or (len(a) == 2 and a == b[::-1])


def _common_start(left: str, right: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def flags(overrides: Sequence[str], schema: SettingsSchema) -> Found:
    """Read `--set a.b=value` flags."""
    for override in overrides:
        name, equals, text = override.partition("=")
        path: SettingPath = tuple(name.strip().split("."))
        detail = f"--set {name.strip()}"
        if not equals or not name.strip():
            message = f"--set: expected NAME=VALUE, got {show(override)}"
            yield Problem("bad-override", message, source="--set", hint="write it as in --set gateway.port=9000")
        elif schema.at(path) is None:
            yield dataclasses.replace(unknown_key(path, schema), source=detail)
        else:
            yield from _convert(Assignment(path, text, Origin("flag", detail)), schema)
