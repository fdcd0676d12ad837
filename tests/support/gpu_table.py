"""The guide's table of GPU memory and what fits, computed with the product's own memory plan.

Architectures and file sizes are those of the public models; the plan counts the whole file on the GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_gguf.models.gguf.architecture import Architecture, Layer
from llama_gguf.models.gguf.header import Tensor
from llama_gguf.models.memory.plan import Machine, Weights, plan_memory
from llama_gguf.settings.sections.engine import Engine

GIB = 1 << 30
CARDS_GIB = (8, 12, 16, 24, 32, 48, 80)
USABLE = 0.95  # of a card's memory: the driver and the display take a part
CONTEXT = 8192
MOST_SLOTS = 64
_BYTES = 24  # GGML's type of one byte a value


@dataclass(frozen=True, slots=True)
class Known:
    """A public model: its name in the table, GB of the file, and the numbers of its architecture."""

    name: str
    gigabytes: float
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    vocabulary: int

    def weights(self) -> Weights:
        """Return it as the memory plan wants it."""
        kept = self.kv_heads * self.head_width
        architecture = Architecture(
            name="llama",
            layers=(Layer(kept, kept, 0, 0),) * self.layers,
            trained_context=131_072,
            width=self.width,
            experts_used=0,
            vocabulary=self.vocabulary,
            layer_heads=(self.heads,) * self.layers,
        )
        queries = self.heads * self.head_width
        shapes = {
            "attn_q": (self.width, queries),
            "attn_k": (self.width, kept),
            "attn_v": (self.width, kept),
            "attn_output": (queries, self.width),
            "ffn_gate": (self.width, self.feed_forward),
            "ffn_up": (self.width, self.feed_forward),
            "ffn_down": (self.feed_forward, self.width),
        }
        block = [Tensor(f"blk.0.{name}.weight", shape, _BYTES, 0) for name, shape in shapes.items()]
        rest = int(self.gigabytes * 1e9) - sum(tensor.byte_size for tensor in block)
        return Weights((*block, Tensor("blk.0.all", (rest,), _BYTES, 0)), architecture)


MODELS = (
    Known("3B Q4_K_M (Llama 3.2)", 2.02, 28, 3072, 24, 8, 128, 8192, 128_256),
    Known("8B Q4_K_M (Llama 3.1)", 4.92, 32, 4096, 32, 8, 128, 14_336, 128_256),
    Known("8B Q8_0 (Llama 3.1)", 8.54, 32, 4096, 32, 8, 128, 14_336, 128_256),
    Known("14B Q4_K_M (Qwen 2.5)", 8.99, 48, 5120, 40, 8, 128, 13_824, 152_064),
    Known("32B Q4_K_M (Qwen 2.5)", 19.85, 64, 5120, 40, 8, 128, 27_648, 152_064),
    Known("70B Q4_K_M (Llama 3.3)", 42.52, 80, 8192, 64, 8, 128, 28_672, 128_256),
)


def slots_that_fit(model: Known, gib: int, cache: str) -> int:
    """Return how many slots of CONTEXT tokens fit with every layer on the GPU; 0 if not even one."""
    weights = model.weights()
    machine = Machine(device_bytes=int(gib * GIB * USABLE), host_bytes=None)
    for slots in range(MOST_SLOTS, 0, -1):
        engine = Engine.model_validate(
            {
                "slots": slots,
                "context_per_slot": CONTEXT,
                "gpu_layers": "all",
                "cache_type_k": cache,
                "cache_type_v": cache,
            }
        )
        if plan_memory(weights, engine, machine).verdict == "fits":
            return slots
    return 0


def table() -> str:
    """Return the table as markdown: slots with an f16 cache, and with a q8_0 one."""
    head = ["| model | " + " | ".join(f"{gib} GB" for gib in CARDS_GIB) + " |", "|---|" + "---|" * len(CARDS_GIB)]
    return "\n".join([*head, *(_row(model) for model in MODELS)]) + "\n"


def _row(model: Known) -> str:
    cells = []
    for gib in CARDS_GIB:
        plain, small = slots_that_fit(model, gib, "f16"), slots_that_fit(model, gib, "q8_0")
        cells.append(f"{_count(plain)} / {_count(small)}" if small else "-")
    return f"| {model.name} | " + " | ".join(cells) + " |"


def _count(slots: int) -> str:
    return f"{MOST_SLOTS}+" if slots == MOST_SLOTS else str(slots)
