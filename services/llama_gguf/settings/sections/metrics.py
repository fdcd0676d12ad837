"""`metrics`: Prometheus metrics."""

from __future__ import annotations

from pydantic import Field

from llama_gguf.settings.sections.base import Section


class Metrics(Section):
    """Prometheus metrics on the gateway's /metrics."""

    enabled: bool = Field(True, description="Serve /metrics.")
    require_key: bool = Field(False, description="Require a key with the scope `metrics` or `admin`.")
    key_label: bool = Field(False, description="Label request series with the key's id; many keys create many series.")
    engine_series: bool = Field(
        True, description="Include llama-server's own series, without waking a sleeping engine."
    )
