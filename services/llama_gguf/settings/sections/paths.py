"""`paths`: where the appliance keeps its data."""

from __future__ import annotations

from pydantic import Field

from llama_gguf.settings.sections.base import PathText, Section


class Paths(Section):
    """Directories. Models and logs default to subdirectories of the data directory."""

    data_dir: PathText = Field(
        "auto",
        description=(
            "Directory for models, keys, logs and usage; `auto` uses the first mounted volume of /data, "
            "/runpod-volume and /workspace, else the first that exists, else the user's own data directory."
        ),
    )
    models_dir: PathText | None = Field(None, description="Directory that holds GGUF files; default DATA_DIR/models.")
    logs_dir: PathText | None = Field(None, description="Directory for log files; default DATA_DIR/logs.")
    run_dir: PathText = Field(
        "auto",
        description=(
            "Private directory for sockets, the engine's key and state files; `auto` uses the first writable of "
            "/run/llama-gguf, $XDG_RUNTIME_DIR/llama-gguf and a temporary directory."
        ),
    )
