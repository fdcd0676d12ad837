"""`metrics`: Prometheus metrics."""

from __future__ import annotations

from pydantic import Field

from llama_gguf.settings.sections.base import Section


class Metrics(Section):
    """Prometheus metrics on the gateway's /metrics."""

    enabled: bool = Field(True, description="Serve /metrics.")
    require_key: bool | None = Field(
        None,
        description="Who needs a key with the scope `metrics` or `admin`: everybody (`true`), nobody (`false`), or, by "
        "default, everybody but programs of the same machine that are no proxy (they send no `X-Forwarded-For`).",
    )
    key_label: bool = Field(False, description="Label request series with the key's id; many keys create many series.")
    engine_series: bool = Field(
        True, description="Include llama-server's own series, without waking a sleeping engine."
    )
