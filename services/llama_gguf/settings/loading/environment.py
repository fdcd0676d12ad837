"""Environment variables and `--set` flags -> assignments. Pure: mappings and texts in, values out.

pydantic-settings turns a nested name into a place in the tree (`nested_variables`); what it would let pass in silence
(unknown names, near misses) is told here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from llama_gguf.errors import Problem
from llama_gguf.settings.checks.reserved_args import hoist
from llama_gguf.settings.loading.coerce import from_text
from llama_gguf.settings.loading.known_variables import NEAR_MISSES, OLD_NAMES, PLATFORM_VARIABLES
from llama_gguf.settings.loading.layers import Assignment, Origin, flatten
from llama_gguf.settings.messages.hints import show
from llama_gguf.settings.messages.pydantic_errors import unknown_key
from llama_gguf.settings.platform import RUNPOD_ENDPOINT_ID
from llama_gguf.settings.schema_tree import ENV_DELIMITER, ENV_PREFIX, Path, Shape, dotted, env_name
from llama_gguf.settings.words import closest

Layer = tuple[list[Assignment], list[Problem]]
_SERVICE_LINK = re.compile(r"^[a-z]+://|^\d{1,3}(\.\d{1,3}){3}$")  # what Kubernetes sets for each Service
_CONTEXT: Path = ("engine", "context_per_slot")
_SLOTS: Path = ("engine", "slots")


def nested_variables(env: Mapping[str, str], shape: Shape) -> Layer:
    """Read `LLAMA_GGUF__A__B=…`. Empty values count as not set, as templates leave them blank."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    names = [name for name in sorted(env) if name.upper().startswith(ENV_PREFIX) and env[name].strip()]
    if names:
        from llama_gguf.settings.loading.nested_variables import nested  # noqa: PLC0415 - see there
    for name in names:
        if name != name.upper():
            problems.append(_problem(name, "no such variable", f'did you mean "{name.upper()}"?'))
            continue
        placed = list(flatten(nested(name, env[name]), Origin("environment", name)))
        if not placed or shape.at(placed[0].path) is None:
            problems.append(_unknown_variable(name, shape))
            continue
        _convert(assignments, problems, placed[0], shape)
    return assignments, problems


def _convert(assignments: list[Assignment], problems: list[Problem], raw: Assignment, shape: Shape) -> None:
    """Append `raw`, whose value is text, with the value the setting wants."""
    try:
        value = from_text(str(raw.value), raw.path, shape)
    except ValueError as error:
        message = f"{dotted(raw.path)}: {error}"
        problems.append(Problem("bad-value", message, dotted(raw.path), raw.origin.source))
    else:
        assignments += flatten(value, raw.origin, raw.path)


def _unknown_variable(name: str, shape: Shape) -> Problem:
    near = closest(name, [env_name(leaf.path) for leaf in shape.leaves()])
    path: Path = tuple(name[len(ENV_PREFIX) :].lower().split(ENV_DELIMITER))
    hint = f'did you mean "{near}"?' if near else unknown_key(path, shape).hint
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


def platform_variables(env: Mapping[str, str], shape: Shape) -> Layer:
    """Read what a platform decides: ports and health path on RunPod serverless."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    if not env.get(RUNPOD_ENDPOINT_ID):
        return assignments, problems
    for name, served in (("PORT", "requests"), ("PORT_HEALTH", "health checks")):
        if not env.get(name, "").strip():
            message = f"RunPod sends {served} to port {env.get('PORT', '').strip() or '80'} while {name} is not set"
            hint = "set PORT and PORT_HEALTH in the endpoint, and expose both ports"
            problems.append(_problem(RUNPOD_ENDPOINT_ID, message, hint, code="platform-ports", severity="warning"))
    for variable in PLATFORM_VARIABLES:
        if variable.setting and (text := env.get(variable.name, "").strip()):
            origin = Origin("platform", variable.name)
            _convert(assignments, problems, Assignment(variable.setting, text, origin), shape)
    return assignments, problems


def old_variables(env: Mapping[str, str], shape: Shape, *, slots_said: bool) -> Layer:
    """Read the old system's names. `slots_said`: whether engine.slots is set anywhere else."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for old in OLD_NAMES:
        text = env.get(old.name, "")
        if not text.strip() or (old.name == "MODEL_NAME" and env.get("MODEL_PATH", "").strip()):
            continue
        if not old.setting:
            problems.append(_problem(old.name, "has no effect any more", old.note, code="retired", severity="warning"))
        elif old.name == "EXTRA_ARGS":
            _extra_args(assignments, problems, text, shape)
        else:
            value = old.convert(text) if old.convert else text
            origin = Origin("old name", old.name)
            if isinstance(value, str):
                _convert(assignments, problems, Assignment(old.setting, value, origin), shape)
            else:
                assignments.append(Assignment(old.setting, value, origin))
    _total_context(assignments, slots_said=slots_said)
    return assignments, problems


def _extra_args(assignments: list[Assignment], problems: list[Problem], text: str, shape: Shape) -> None:
    origin = Origin("old name", "EXTRA_ARGS")
    try:
        settings, rest = hoist(shlex.split(text))
    except ValueError as error:
        problems.append(_problem("EXTRA_ARGS", str(error).lower(), "balance the quotes", code="bad-value"))
        return
    for path, value in settings.items():
        _convert(assignments, problems, Assignment(path, value, origin), shape)
    if settings:
        names = ", ".join(f"{dotted(path)}={value}" for path, value in settings.items())
        problems.append(
            _problem("EXTRA_ARGS", f"taken as settings: {names}", "set them there", code="moved", severity="warning")
        )
    if rest:
        assignments.append(Assignment(("engine", "extra_args"), rest, origin))


def _total_context(assignments: list[Assignment], *, slots_said: bool) -> None:
    """Keep the memory an old deployment used: its context was a total, and it had one slot unless it said more."""
    by_path = {assignment.path: index for index, assignment in enumerate(assignments)}
    if _CONTEXT not in by_path:
        return
    context = assignments[by_path[_CONTEXT]]
    if _SLOTS not in by_path:
        if not slots_said:
            assignments.append(Assignment(_SLOTS, 1, context.origin))
        return
    slots = assignments[by_path[_SLOTS]].value
    total_in_arguments = context.origin.detail == "EXTRA_ARGS"
    if total_in_arguments and isinstance(slots, int) and isinstance(context.value, int) and slots > 0:
        share = context.value // slots
        assignments[by_path[_CONTEXT]] = Assignment(_CONTEXT, share, context.origin)


def doubtful_names(env: Mapping[str, str], shape: Shape) -> list[Problem]:
    """Return warnings about variables that look as if they were meant for us but are not read."""
    problems = []
    read = {old.name for old in OLD_NAMES} | {variable.name for variable in PLATFORM_VARIABLES}
    for name in sorted(env):
        text = env[name].strip()
        if not text or name in read or name.upper().startswith(ENV_PREFIX) or _SERVICE_LINK.match(text):
            continue
        if right := _near_name(name, read, shape):
            hint = f'did you mean "{right}"?'
            problems.append(_problem(name, "is not read", hint, code="ignored-variable", severity="warning"))
        elif name.startswith("LLAMA_ARG_"):
            hint = "llama-server's own variables are not handed on; use the settings, or engine.extra_args"
            problems.append(_problem(name, "is not read", hint, code="ignored-variable", severity="warning"))
    return problems


def _near_name(name: str, read: Iterable[str], shape: Shape) -> str | None:
    if name in NEAR_MISSES:
        return NEAR_MISSES[name]
    if name.startswith("LLAMA_GGUF_"):
        known = [env_name(leaf.path) for leaf in shape.leaves()]
        return next((one for one in known if _flat(one) == _flat(name)), None)
    if len(name) < 8 or "_" not in name or name != name.upper():
        return None
    near = closest(name, [known for known in read if "_" in known])
    return near if near and _distance_is_one(name, near) else None


def _flat(name: str) -> str:
    return name.replace(ENV_DELIMITER, "_")


def _distance_is_one(left: str, right: str) -> bool:
    """Return whether one letter added, dropped, changed or swapped with its neighbour makes `left` into `right`."""
    start = _common_start(left, right)
    end = _common_start(left[start:][::-1], right[start:][::-1])
    a, b = left[start : len(left) - end], right[start : len(right) - end]
    return max(len(a), len(b)) <= 1 or (len(a) == 2 and a == b[::-1])


def _common_start(left: str, right: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def flags(overrides: Sequence[str], shape: Shape) -> Layer:
    """Read `--set a.b=value` flags."""
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        path: Path = tuple(name.strip().split("."))
        detail = f"--set {name.strip()}"
        if not equals or not name.strip():
            message = f"--set: expected NAME=VALUE, got {show(override)}"
            problems.append(Problem("bad-override", message, source="--set", hint="as in --set gateway.port=9000"))
        elif shape.at(path) is None:
            unknown = unknown_key(path, shape)
            problems.append(Problem(unknown.code, unknown.message, unknown.path, detail, hint=unknown.hint))
        else:
            _convert(assignments, problems, Assignment(path, text, Origin("flag", detail)), shape)
    return assignments, problems
