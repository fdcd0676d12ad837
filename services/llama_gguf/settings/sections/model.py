"""`model` and `models`: which weights to serve, from where, and what their requests get by default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from llama_gguf.settings.sections.base import EnvName, PathText, Seconds, Section, Sha256, Text, pattern_message
from llama_gguf.settings.sections.engine import Engine


class HuggingFace(Section):
    """A file in a Hugging Face repository."""

    repo: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
            json_schema_extra=pattern_message("a repository, OWNER/NAME"),
        ),
    ] = Field(description="Repository, as in `ggml-org/gemma-3-4b-it-GGUF`.")
    file: Text = Field(
        description="File in the repository; for a split model its first part, the others are downloaded with it."
    )
    revision: Text = Field("main", description="Branch, tag or commit; pin a commit for reproducible deployments.")


class Artifact(Section):
    """One file of weights from exactly one source: `path`, `name`, `hf` or `url`."""

    path: PathText | None = Field(None, description="Path of a GGUF file.")
    name: Text | None = Field(None, description="Name of a GGUF file in the models directory.")
    hf: HuggingFace | None = Field(
        None, description="File in a Hugging Face repository, downloaded at the first start."
    )
    url: Text | None = Field(None, description="HTTP(S) URL of a GGUF file, downloaded at the first start.")
    sha256: Sha256 | None = Field(None, description="Expected SHA-256 of the file, verified before its first use.")
    token_env: EnvName | None = Field(
        None, description="Variable that holds the bearer token for `hf` or `url`; the default for `hf` is HF_TOKEN."
    )


class Lora(Artifact):
    """A LoRA adapter and its scale."""

    scale: Annotated[float, Field(ge=-10, le=10)] = Field(1.0, description="Scale of the adapter; 1 = as trained.")


Tokens = Annotated[int, Field(ge=1, le=16_777_216)]


class RequestRules(Section):
    """What requests for a model, or for a variant of it, get, and what they cannot have."""

    defaults: dict[str, JsonValue] = Field(
        {},
        description="Parameters that a request gets unless it sets them itself, such as `temperature: 0.7`.",
    )
    max_output_tokens: Tokens | None = Field(
        None, description="Maximum tokens of a completion; a request that asks for more, or for no maximum, gets this."
    )
    max_reasoning_tokens: Annotated[int, Field(ge=0, le=16_777_216)] | None = Field(
        None, description="Maximum tokens of reasoning in a chat; 0 = none."
    )
    strip: tuple[Text, ...] = Field((), description="Parameters that are left out of requests.")


class Variant(RequestRules):
    """The same model under another name, with other rules; it needs no further memory."""

    lora: tuple[Annotated[float, Field(ge=-10, le=10)], ...] | None = Field(
        None, description="Scales of the model's adapters for this variant, in their order."
    )


class Model(RequestRules, Artifact):
    """The model to serve: exactly one of `path`, `name`, `hf`, `url`, and its companion files."""

    aliases: tuple[Text, ...] = Field(
        (), description="Names of the model in the API, the main one first. Default: the file's name."
    )
    mmproj: Artifact | None = Field(None, description="Multimodal projector, for models with image or audio input.")
    draft: Artifact | None = Field(None, description="Small draft model of the same family, for speculative decoding.")
    lora: tuple[Lora, ...] = Field((), description="LoRA adapters to apply.")
    download_connections: Annotated[int, Field(ge=1, le=32)] = Field(
        8,
        description="Parallel connections for downloading a large file; a single one rarely exceeds 100 MB/s.",
    )
    chat_template: PathText | None = Field(
        None, description="Path of a Jinja chat template that replaces the one in the model."
    )
    variants: dict[Text, Variant] = Field(
        {}, description="Further names of the model in the API, each with rules of its own."
    )


MAX_MODEL_NAME = 32
ModelName = Annotated[
    str,
    Field(pattern=rf"^[a-z0-9][a-z0-9_-]{{0,{MAX_MODEL_NAME - 1}}}$"),
]
MODEL_NAME_RULE = f"a name of at most {MAX_MODEL_NAME} small letters, digits, - and _; give others as aliases"
"""The name of one of several models: also that of its program, its socket and its log, and part of variables."""


class ServedModel(Model):
    """One of several models: everything that `model` has, its own engine settings, and when it is in memory."""

    engine: Engine = Field(
        default_factory=Engine, description="Engine settings of this model; what is not set here is as in `engine`."
    )
    load: Literal["always", "on_demand"] = Field(
        "always",
        description="When the model is loaded: `always`, from the start on, or `on_demand`, by the first request.",
    )
    unload_after_seconds: Seconds | None = Field(
        None,
        description="Unload the model after this long without a request; default: engine.sleep_idle_seconds. The next "
        "request loads it again.",
    )
    required: bool | None = Field(
        None,
        description="Whether the appliance fails if this model does; default: true with `load: always`, else false.",
    )
