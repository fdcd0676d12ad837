"""`model`: which weights to serve, and from where."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llama_gguf.settings.sections.base import EnvName, PathText, Section, Sha256, Text, pattern_message


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


class Model(Artifact):
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
