"""One configuration -> launch specs for RunPod, Vast.ai, Docker Compose and Kubernetes. Pure but for `ready_made`.

A spec is text by file name. What a platform cannot express is a ConfigError with a stable code; nothing is dropped
silently. The platforms' field names and limits are vendored as JSON Schemas in schemas/.
"""

from llama_gguf.platforms.container import RenderRequest, Variant
from llama_gguf.platforms.repository_specs import ready_made

from .bundle import Bundle
from .compose import ComposeOptions
from .compose import render as render_compose
from .kubernetes import KubernetesOptions
from .kubernetes import render as render_kubernetes
from .runpod import RunPodOptions
from .runpod import render as render_runpod
from .vast import VastOptions
from .vast import render as render_vast

__all__ = [
    "Bundle",
    "ComposeOptions",
    "KubernetesOptions",
    "RenderRequest",
    "RunPodOptions",
    "Variant",
    "VastOptions",
    "ready_made",
    "render_compose",
    "render_kubernetes",
    "render_runpod",
    "render_vast",
]
