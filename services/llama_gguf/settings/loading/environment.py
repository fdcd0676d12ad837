"""Environment variables and `--set` flags -> assignments. Pure: mappings and texts in, values out.

pydantic-settings turns a nested name into a path in the tree (`nested_variables`); what it would silently ignore
(unknown names, near misses) is reported here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from llama_gguf.errors import Problem
from llama_gguf.settings.checks.reserved_args import hoist
from llama_gguf.settings.loading.coerce import from_text
from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES, NEAR_MISSES, PLATFORM_VARIABLES
from llama_gguf.settings.loading.layers import Assignment, Origin, flatten
from llama_gguf.settings.messages.hints import show
from llama_gguf.settings.messages.pydantic_errors import unknown_key
from llama_gguf.settings.platform import RUNPOD_ENDPOINT_ID
from llama_gguf.settings.schema_tree import ENV_DELIMITER, ENV_PREFIX, SettingPath, SettingsSchema, dotted, env_name
from llama_gguf.settings.words import closest

Layer = tuple[list[Assignment], list[Problem]]
_SERVICE_LINK = re.compile(r"^[a-z]+://|^\d{1,3}(\.\d{1,3}){3}$")  # what Kubernetes sets for each Service
_CONTEXT: SettingPath = ("engine", "context_per_slot")
_SLOTS: SettingPath = ("engine", "slots")


def nested_variables(env: Mapping[str, str], schema: SettingsSchema) -> Layer:
    """Read `LLAMA_GGUF__A__B=…`. Empty values count as unset, because templates leave them blank."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    names = [name for name in sorted(env) if name.upper().startswith(ENV_PREFIX) and env[name].strip()]
    if names:
        from llama_gguf.settings.loading.nested_variables import nested  # noqa: PLC0415 - see there
    for name in names:
        if name != name.upper():
            problems.append(_problem(name, "no such variable", f'did you mean "{name.upper()}"?'))
            continue
        leaves = list(flatten(nested(name, env[name]), Origin("environment", name)))
        if not leaves or schema.at(leaves[0].path) is None:
            problems.append(_unknown_variable(name, schema))
            continue
        _convert(assignments, problems, leaves[0], schema)
    return assignments, problems


def _convert(assignments: list[Assignment], problems: list[Problem], raw: Assignment, schema: SettingsSchema) -> None:
    """Append `raw`, whose value is text, with a value of the type that the setting expects."""
    try:
        value = from_text(str(raw.value), raw.path, schema)
    except ValueError as error:
        message = f"{dotted(raw.path)}: {error}"
        problems.append(Problem("bad-value", message, dotted(raw.path), raw.origin.source))
    else:
        assignments += flatten(value, raw.origin, raw.path)


def _unknown_variable(name: str, schema: SettingsSchema) -> Problem:
    near = closest(name, [env_name(leaf.path) for leaf in schema.leaves()])
    path: SettingPath = tuple(name[len(ENV_PREFIX) :].lower().split(ENV_DELIMITER))
    hint = f'did you mean "{near}"?' if near else unknown_key(path, schema).hint
    return _problem(name, "no such setting", hint)


def _problem(
    name: str,
    message: str,
    hint: str = "",
    *,
    code: str = "unknown-variable",
    severity: Literal["error", "warning"] = "error",
) -> Problem:
    source = f"environment variable {name}"
    return Problem(
        code,
        f"{name} {message}" if message.startswith(("is ", "has ")) else f"{name}: {message}",
        source=source,
        hint=hint,
        severity=severity,
    )


def platform_variables(env: Mapping[str, str], schema: SettingsSchema) -> Layer:
    """Read the settings that a platform sets: ports and health path on RunPod serverless."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    if not env.get(RUNPOD_ENDPOINT_ID):
        return assignments, problems
    for name, traffic in (("PORT", "requests"), ("PORT_HEALTH", "health checks")):
        if not env.get(name, "").strip():
            message = f"RunPod sends {traffic} to port {env.get('PORT', '').strip() or '80'}, because {name} is not set"
            hint = "set PORT and PORT_HEALTH in the endpoint, and expose both ports"
            problems.append(_problem(RUNPOD_ENDPOINT_ID, message, hint, code="platform-ports", severity="warning"))
    for variable in PLATFORM_VARIABLES:
        if variable.setting and (text := env.get(variable.name, "").strip()):
            origin = Origin("platform", variable.name)
            _convert(assignments, problems, Assignment(variable.setting, text, origin), schema)
    return assignments, problems


def legacy_variables(env: Mapping[str, str], schema: SettingsSchema, *, slots_set: bool) -> Layer:
    """Read the legacy variables. `slots_set`: whether engine.slots is set anywhere else."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for legacy in LEGACY_VARIABLES:
        text = env.get(legacy.name, "")
        if not text.strip() or (legacy.name == "MODEL_NAME" and env.get("MODEL_PATH", "").strip()):
            continue
        if not legacy.setting:
            problems.append(
                _problem(legacy.name, "no longer has an effect", legacy.note, code="retired", severity="warning")
            )
        elif legacy.name == "EXTRA_ARGS":
            _extra_args(assignments, problems, text, schema)
        else:
            value = legacy.convert(text) if legacy.convert else text
            origin = Origin("old name", legacy.name)
            if isinstance(value, str):
                _convert(assignments, problems, Assignment(legacy.setting, value, origin), schema)
            else:
                assignments.append(Assignment(legacy.setting, value, origin))
    _total_context(assignments, slots_set=slots_set)
    return assignments, problems


def _extra_args(assignments: list[Assignment], problems: list[Problem], text: str, schema: SettingsSchema) -> None:
    origin = Origin("old name", "EXTRA_ARGS")
    try:
        settings, rest = hoist(shlex.split(text))
    except ValueError as error:
        problems.append(_problem("EXTRA_ARGS", str(error).lower(), "balance the quotes", code="bad-value"))
        return
    for path, value in settings.items():
        _convert(assignments, problems, Assignment(path, value, origin), schema)
    if settings:
        names = ", ".join(f"{dotted(path)}={value}" for path, value in settings.items())
        problems.append(
            _problem(
                "EXTRA_ARGS", f"converted to settings: {names}", "set these instead", code="moved", severity="warning"
            )
        )
    if rest:
        assignments.append(Assignment(("engine", "extra_args"), rest, origin))


def _total_context(assignments: list[Assignment], *, slots_set: bool) -> None:
    """Preserve a legacy deployment's use of memory: its context was a total, and it had one slot by default."""
    by_path = {assignment.path: index for index, assignment in enumerate(assignments)}
    if _CONTEXT not in by_path:
        return
    context = assignments[by_path[_CONTEXT]]
    if _SLOTS not in by_path:
        if not slots_set:
            assignments.append(Assignment(_SLOTS, 1, context.origin))
        return
    slots = assignments[by_path[_SLOTS]].value
    total_in_arguments = context.origin.detail == "EXTRA_ARGS"
    if total_in_arguments and isinstance(slots, int) and isinstance(context.value, int) and slots > 0:
        share = context.value // slots
        assignments[by_path[_CONTEXT]] = Assignment(_CONTEXT, share, context.origin)


def doubtful_names(env: Mapping[str, str], schema: SettingsSchema) -> list[Problem]:
    """Return warnings about variables that resemble those that are read, but are not."""
    problems = []
    read = {legacy.name for legacy in LEGACY_VARIABLES} | {variable.name for variable in PLATFORM_VARIABLES}
    for name in sorted(env):
        text = env[name].strip()
        if not text or name in read or name.upper().startswith(ENV_PREFIX) or _SERVICE_LINK.match(text):
            continue
        if right := _near_name(name, read, schema):
            hint = f'did you mean "{right}"?'
            problems.append(_problem(name, "is not read", hint, code="ignored-variable", severity="warning"))
        elif name.startswith("LLAMA_ARG_"):
            hint = "llama-server's own variables are not passed on; use the settings, or engine.extra_args"
            problems.append(_problem(name, "is not read", hint, code="ignored-variable", severity="warning"))
    return problems


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


def flags(overrides: Sequence[str], schema: SettingsSchema) -> Layer:
    """Read `--set a.b=value` flags."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        path: SettingPath = tuple(name.strip().split("."))
        detail = f"--set {name.strip()}"
        if not equals or not name.strip():
            message = f"--set: expected NAME=VALUE, got {show(override)}"
            problems.append(
                Problem("bad-override", message, source="--set", hint="write it as in --set gateway.port=9000")
            )
        elif schema.at(path) is None:
            unknown = unknown_key(path, schema)
            problems.append(Problem(unknown.code, unknown.message, unknown.path, detail, hint=unknown.hint))
        else:
            _convert(assignments, problems, Assignment(path, text, Origin("flag", detail)), schema)
    return assignments, problems
