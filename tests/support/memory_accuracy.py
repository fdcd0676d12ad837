"""How near the memory plan comes to llama-server: the rows of the table in docs/memory-accuracy.md.

Caches and compute buffers only: weights are the tensors of the file, and whether they are repacked depends on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gguf

from llama_gguf.models.gguf.architecture import read_architecture
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.inventory import all_tensors
from llama_gguf.models.memory.estimate import MIB, Weights
from llama_gguf.models.memory.plan import Machine, plan_memory
from llama_gguf.settings.sections.engine import CacheType, Engine
from support.family_models import FAMILIES, write_family
from support.memory_reports import allocated, projected
from support.sparse_model import Dimensions, write_sparse_model

FAMILY_SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "ubatch_size 2048": {"ubatch_size": 2048},
    "flash attention off": {"flash_attention": "off"},
    "1 slot of 32768": {"slots": 1, "context_per_slot": 32768},
}
SMALL_ENGINE: dict[str, Any] = {"slots": 2, "context_per_slot": 1024}
_FLOATS = ("f32", "f16", "bf16")


@dataclass(frozen=True, slots=True)
class Row:
    """One model with one set of settings: MiB that llama-server reports, and that the plan says."""

    model: str
    settings: str
    cache: float
    planned_cache: float
    compute: float
    planned_compute: float
    rounded: bool  # llama-server said whole MiB


def planned(model: Path, engine: Engine) -> tuple[float, float]:
    """Return the MiB of caches and of compute buffers according to the plan."""
    weights = Weights(all_tensors(model), read_architecture(read_header(model)))
    items = {item.name: item.host / MIB for item in plan_memory(weights, engine, Machine(0, None)).items}
    return items.get("KV cache", 0.0) + items.get("recurrent state", 0.0), items["compute buffers"]


def family_rows(binary: Path, folder: Path, family: str) -> Iterator[Row]:
    """Yield the rows of one family."""
    model = write_family(folder / "family.gguf", family)
    for name, values in FAMILY_SETTINGS.items():
        engine = Engine.model_validate(values)
        reported = projected(binary, model, folder / "e.sock", engine).values()
        cache, compute = (float(sum(row[column] for row in reported)) for column in (1, 2))
        planned_cache, planned_compute = planned(model, engine)
        yield Row(family, name, cache, planned_cache, compute, planned_compute, rounded=True)


def small_settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every cache type, with two batch sizes, with flash attention and without where that is possible."""
    for kind in get_args(CacheType):
        for ubatch in (128, 512):
            for flash in ("on", "off"):
                values = kind if flash == "on" or kind in _FLOATS else "f16"  # quantised values need flash attention
                name = f"{kind} keys, {values} values, ubatch_size {ubatch}, flash attention {flash}"
                yield (
                    name,
                    {"cache_type_k": kind, "cache_type_v": values, "ubatch_size": ubatch, "flash_attention": flash},
                )


def write_small_model(path: Path) -> Path:
    """Write a llama with heads of 32 values, the least that caches of every type take."""
    size = Dimensions(layers=3, width=256, heads=8, kv_heads=2, head=32, feed_forward=768, vocabulary=4096)
    return write_sparse_model(path, "llama", size, quantisation=gguf.GGMLQuantizationType.F16)


def small_row(binary: Path, model: Path, name: str, folder: Path, settings: tuple[str, dict[str, Any]]) -> Row:
    """Return the row of a model that is loaded."""
    engine = Engine.model_validate(SMALL_ENGINE | settings[1])
    sizes = allocated(binary, model, folder / "e.sock", engine)
    cache = sizes.get("KV", 0.0) + sizes.get("RS", 0.0)
    planned_cache, planned_compute = planned(model, engine)
    return Row(name, settings[0], cache, planned_cache, sizes["compute"], planned_compute, rounded=False)


def accuracy_rows(binary: Path, folder: Path, small: dict[str, Path]) -> Iterator[Row]:
    """Yield all rows: `small` are models that are loaded, by name."""
    for name, model in small.items():
        for settings in small_settings():
            yield small_row(binary, model, name, folder, settings)
    for family in FAMILIES:
        yield from family_rows(binary, folder, family)


def table(rows: Iterator[Row]) -> str:
    """Return the rows as a table in Markdown."""
    head = "| model | settings | caches, MiB: engine | plan | compute buffers, MiB: engine | plan | difference |"
    lines = [head, "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        digits = 0 if row.rounded else 2
        difference = 100 * (row.planned_compute - row.compute) / row.compute
        numbers = (row.cache, row.planned_cache, row.compute, row.planned_compute)
        shown = " | ".join(f"{number:.{digits}f}" for number in numbers)
        lines.append(f"| {row.model} | {row.settings} | {shown} | {difference:+.1f} % |")
    return "\n".join(lines) + "\n"


def planned_columns(page: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the rows of a page: model, settings, and the other cells."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 7 and cells[0] != "model":
            yield cells[0], cells[1], cells[2:]
