"""The whole configuration as one frozen value.

Checks that need more than one section live in `checks`; checks that need files or the network belong to `models`
and `cli`. `Settings` never holds a secret: a setting names the file or the variable that does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import Field, model_validator

from llama_gguf.settings.sections.auth import Auth
from llama_gguf.settings.sections.base import Section
from llama_gguf.settings.sections.engine import Engine
from llama_gguf.settings.sections.gateway import Gateway
from llama_gguf.settings.sections.health import Health
from llama_gguf.settings.sections.limits import Limits
from llama_gguf.settings.sections.logging import Logging
from llama_gguf.settings.sections.memory import Memory
from llama_gguf.settings.sections.metrics import Metrics
from llama_gguf.settings.sections.model import MODEL_NAME_RULE, Model, ModelName, ServedModel
from llama_gguf.settings.sections.paths import Paths
from llama_gguf.settings.sections.supervisor import Supervisor


class Settings(Section):
    """Everything that config.yaml can set."""

    paths: Paths = Field(default_factory=Paths, description="Where the appliance keeps its data.")
    model: Model = Field(default_factory=Model, description="The model to serve, if it is only one.")
    models: dict[ModelName, ServedModel] = Field(
        {},
        description="The models to serve, by name, if they are several.",
        json_schema_extra={"keyErrorMessage": MODEL_NAME_RULE},
    )
    engine: Engine = Field(
        default_factory=Engine, description="How llama-server runs the model, or each of them unless it says otherwise."
    )
    memory: Memory = Field(default_factory=Memory, description="The memory that several models share.")
    gateway: Gateway = Field(default_factory=Gateway, description="The public HTTP side.")
    auth: Auth = Field(default_factory=Auth, description="Who may call.")
    limits: Limits = Field(default_factory=Limits, description="Rate limits, quotas and the request queue.")
    health: Health = Field(default_factory=Health, description="The health server.")
    metrics: Metrics = Field(default_factory=Metrics, description="Prometheus metrics.")
    logging: Logging = Field(default_factory=Logging, description="What is logged, and where.")
    supervisor: Supervisor = Field(default_factory=Supervisor, description="How programs are restarted and stopped.")

    @model_validator(mode="after")
    def _inherit_engine(self) -> Settings:
        """Complete each model's engine settings by the common ones, so that nobody has to combine them later."""
        common = self.engine.model_dump(mode="json", exclude_unset=True)
        for served in self.models.values():
            own = served.engine.model_dump(mode="json", exclude_unset=True)
            merged = Engine.model_validate_json(json.dumps(_merge(common, own)))
            served.__dict__["engine"] = merged  # frozen from here on
        return self


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse(tree: Mapping[str, object]) -> Settings:
    """Validate a plain tree of JSON values. Raises pydantic.ValidationError.

    Goes through JSON, because strict validation of Python values would want tuples where YAML has lists.
    """
    return Settings.model_validate_json(json.dumps(tree))
