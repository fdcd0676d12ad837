"""The configuration: one YAML file, read once, validated, passed on as one frozen value.

Locations are imported eagerly; the pydantic models, which cost the programs 0.15 s, on first use.
"""

from typing import TYPE_CHECKING

from .locations import RUN_DIR_VARIABLE, Locations, RunDir, locate

if TYPE_CHECKING:
    from llama_gguf.settings.sections.settings import Settings, parse

__all__ = ["RUN_DIR_VARIABLE", "Locations", "RunDir", "Settings", "locate", "parse"]


def __getattr__(name: str) -> object:
    if name in ("Settings", "parse"):
        from llama_gguf.settings.sections import settings  # noqa: PLC0415 - see above

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
