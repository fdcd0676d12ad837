"""Values of engine settings that can be `auto`: known once the plan has chosen them for the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar, get_args

if TYPE_CHECKING:
    from llama_gguf.settings.sections.engine import Engine

T = TypeVar("T")

AUTO: Literal["auto"] = "auto"
Automatic = Literal["context_per_slot", "slots", "batch_size", "cache_type_k", "cache_type_v"]
"""Engine settings whose `auto` the plan resolves before llama-server starts; gpu_layers is left to its `--fit`."""


def known(value: T | Literal["auto"]) -> T | None:
    """Return a value as configured, None if it is `auto` and thus not known before the model is looked at."""
    return None if value == AUTO else value


def given(value: T | Literal["auto"]) -> T:
    """Return a value of resolved settings, in which nothing is `auto`. Raises ValueError if this one is."""
    if value == AUTO:
        raise ValueError("a setting is auto that has to be resolved before it is used")
    return value


def automatic(engine: Engine) -> tuple[Automatic, ...]:
    """Return the settings that are left to the plan."""
    return tuple(name for name in get_args(Automatic) if getattr(engine, name) == AUTO)
