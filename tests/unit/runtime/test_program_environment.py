"""Which program sees what of the environment."""

from __future__ import annotations

from llama_gguf.runtime.program_environment import supervised_environment, withheld
from llama_gguf.runtime.programs import Program

PLAIN = Program("plain", ("python",), 10, 5)
FETCHER = Program("fetcher", ("python",), 20, 5, variables=("HF_*", "WORD"))
STORE = Program("store", ("python",), 30, 5, variables=("WORD", "PASSWORD"))

COMMON = {"PATH": "/bin", "LC_ALL": "C.UTF-8", "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": "/x"}
FOREIGN = {
    "RUNPOD_API_KEY": "r",
    "AWS_SECRET_ACCESS_KEY": "a",
    "LLAMA_GGUF__MODEL__URL": "https://u:p@x/m",
    "DATABASE_URL": "postgres://u:p@h/d",
    "NVIDIA_API_KEY": "looks like a device's",
    "HTTPS_PROXY": "http://u:p@proxy:3128",
}
ASKED = {"HF_TOKEN": "hf_x", "HF_HOME": "/hf", "WORD": "w", "PASSWORD": "p"}


def test_supervisord_gets_what_is_common_and_what_is_asked_for() -> None:
    env = COMMON | FOREIGN | ASKED | {"HF_ODD-NAME": "not to be written into an ini file"}
    assert supervised_environment(env, [PLAIN, FETCHER, STORE]) == COMMON | ASKED
    assert supervised_environment(env, [PLAIN]) == COMMON


def test_each_program_keeps_what_it_asked_for_only() -> None:
    programs, names = [PLAIN, FETCHER, STORE], COMMON | ASKED
    assert withheld(PLAIN, programs, names) == ["HF_HOME", "HF_TOKEN", "PASSWORD", "WORD"]
    assert withheld(FETCHER, programs, names) == ["PASSWORD"]
    assert withheld(STORE, programs, names) == ["HF_HOME", "HF_TOKEN"]
