"""Loading small configurations: a text, variables and flags, and the problems found in them."""

from __future__ import annotations

from pathlib import Path

from llama_gguf.settings.loading.load import InvalidConfigError, Loaded, load, loads

FILE = Path("config.yaml")
MINIMAL = "model: {path: /m.gguf}\n"


def told(text: str, env: dict[str, str] | None = None, sets: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """Return (severity, code, path) of every problem, whether loading fails or not."""
    try:
        problems = loads(text, FILE, env or {}, sets).problems
    except InvalidConfigError as error:
        problems = error.problems
    return [(problem.severity, problem.code, problem.path) for problem in problems]


def from_environment(env: dict[str, str], sets: tuple[str, ...] = ()) -> Loaded:
    """Load with no file at all, as a template launch does."""
    return load(None, {"MODEL_NAME": "m.gguf", **env}, sets)
