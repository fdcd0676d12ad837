"""Reading `llama-server --help`."""

from __future__ import annotations

import pytest

from llama_gguf.engine.flags import Flag, flag_dump, parse_help
from llama_gguf.errors import LaunchError

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
                                        (env: LLAMA_ARG_THREADS)
--cpu-strict <0|1>                      use strict CPU placement (default: 0)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
                                        (env: LLAMA_ARG_KV_OFFLOAD)
--spec-draft-override-tensor, -otd, --override-tensor-draft <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type for draft model


----- example-specific params -----

--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max
--fim-qwen-1.5b-default                 use default Qwen
"""


def test_entries() -> None:
    assert parse_help(HELP) == (
        Flag(("-h", "--help", "--usage"), "", "", removed=False),
        Flag(("-t", "--threads"), "N", "LLAMA_ARG_THREADS", removed=False),
        Flag(("--cpu-strict",), "<0|1>", "", removed=False),
        Flag(("-kvo", "--kv-offload", "-nkvo", "--no-kv-offload"), "", "LLAMA_ARG_KV_OFFLOAD", removed=False),
        Flag(
            ("--spec-draft-override-tensor", "-otd", "--override-tensor-draft"),
            "<tensor name pattern>=<buffer type>,...",
            "",
            removed=False,
        ),
        Flag(("--draft", "--draft-n", "--draft-max"), "N", "", removed=True),
        Flag(("--fim-qwen-1.5b-default",), "", "", removed=False),
    )


def test_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_gguf.engine.flags.wheel_bin_directory", lambda: None)
    with pytest.raises(LaunchError, match="not installed"):
        flag_dump()
