"""The messages of a failing llama-server, with cause and fix: data for `diagnose`.

Each rule is a pattern in the output of the llama-server of llama-cpp-python 0.3.36 (samples: tests/golden/diagnose)
with its cause and fix. The first match wins, so causes come before their consequences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LOWER = (
    "lower engine.context_per_slot or engine.slots, set engine.cache_type_k and cache_type_v to q8_0, use a smaller "
    "quantisation of the model"
)

GPU_OUT_OF_MEMORY = "the GPU is out of memory"
HOST_OUT_OF_MEMORY = "the machine or container is out of memory"

_OLD_DRIVER = (
    "the NVIDIA driver is too old for this build's CUDA",
    "update the driver (CUDA 13 needs 580 or newer, CUDA 12 needs 525), or use the CUDA 12 image",
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Cause and fix of a failure; `permanent` if restarting without the fix cannot help.

    `configuration`: the configuration is wrong, or names what cannot be used (a file, an argument). Otherwise the cause
    is the machine, the build or transient.
    """

    cause: str
    fix: str
    permanent: bool = False
    configuration: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern and what it means; `permanent` and `configuration` as in Diagnosis."""

    pattern: re.Pattern[str]
    cause: str  # `{name}` is replaced by the pattern's group
    fix: str
    permanent: bool
    configuration: bool


def _rule(pattern: str, cause: str, fix: str, *, permanent: bool = True, configuration: bool | None = None) -> Rule:
    """Create a rule; a permanent failure is the configuration's fault by default."""
    return Rule(re.compile(pattern), cause, fix, permanent, permanent if configuration is None else configuration)


RULES = (
    # The program itself
    _rule(
        r"error while loading shared libraries: (?P<what>libcuda\S+):",
        "the NVIDIA driver is not visible: {what} is missing",
        "start the container with GPU access (docker: --gpus all) on a host with the driver, or use the CPU image",
        configuration=False,
    ),
    _rule(
        r"error while loading shared libraries: (?P<what>\S+):",
        "the library {what} of llama-server is missing",
        "install the engine again (make engine) or set engine.binary to a complete one",
        configuration=False,
    ),
    _rule(
        r"(?:version `(?P<what>GLIBC\S+)' not found|exec format error|cannot execute binary file)",
        "this llama-server was built for another system",
        "build the engine on this machine (make engine) or use the image for this architecture",
        configuration=False,
    ),
    _rule(
        r"error: invalid argument: (?P<what>\S+)",
        "llama-server does not know the argument {what}",
        "correct engine.extra_args; `llama-gguf plan` shows the whole command",
    ),
    _rule(
        r'error while handling argument "(?P<what>[^"]+)": (?P<why>[^\n]*)',
        "llama-server rejects the value of {what}: {why}",
        "correct the setting behind it, or engine.extra_args; `llama-gguf plan` shows the whole command",
    ),
    # GPU
    _rule(
        r"no kernel image is available",
        "this build has no code for the GPU's architecture",
        "use an image that lists the GPU's compute capability, or set engine.gpu_layers to 0",
        configuration=False,
    ),
    _rule(
        r"unsupported toolchain|PTX was compiled with an unsupported",
        *_OLD_DRIVER,
        configuration=False,
    ),
    _rule(
        r"cudaMalloc failed: out of memory|CUDA error: out of memory|"
        r"(?:failed|unable) to allocate (?:CUDA|ROCm|Vulkan)\S* buffer",
        GPU_OUT_OF_MEMORY,
        _LOWER + ", or set engine.gpu_layers to a number or auto; `llama-gguf plan` shows the estimate",
        permanent=False,  # a llama-server that has just ended can still hold it
    ),
    _rule(
        r"CUDA error: (?P<what>[^\n]+)",
        "the GPU failed: {what}",
        "check the host's kernel log (dmesg) for Xid messages; if it recurs, use another GPU",
        permanent=False,
    ),
    # Memory of the host
    _rule(
        r"(?:failed|unable) to allocate (?:CPU|\w*Host)\S* buffer|std::bad_alloc|mmap failed: Cannot allocate memory|"
        r"ggml_aligned_malloc: insufficient memory|"
        r"failed to allocate buffer for (?:kv|rs) cache|failed to allocate compute (?:pp |tg )?buffers",
        HOST_OUT_OF_MEMORY,
        _LOWER + ", or lower engine.prompt_cache_mib; `llama-gguf plan` shows the estimate",
        permanent=False,
    ),
    _rule(
        r"mmap failed: (?P<what>No such device|Invalid argument|Operation not supported)",
        "the volume of the model cannot map a file into memory ({what})",
        "set engine.load_mode: none, or move the model to another volume (not a network share)",
    ),
    # Files beside the model, before the model: their failures also cause the model's
    _rule(
        r"context type MTP requested but model doesn't contain MTP layers",
        "engine.speculative.types has draft-mtp, but the model has no MTP layers",
        "use a file with them (some conversions leave them out), set model.draft, or use ngram-simple",
    ),
    _rule(
        r"(?:failed to load draft model, '(?P<what>[^']+)')",
        "the draft model {what} cannot be loaded",
        "check model.draft: it must be a complete GGUF file of the same family as the model",
    ),
    _rule(
        r"mismatch between text model \(n_embd = (?P<a>\d+)\) and \S*\s?mmproj \(n_embd = (?P<b>\d+)\)",
        "the multimodal projector belongs to another model (width {b}, the model's is {a})",
        "set model.mmproj to the projector that was published with this model",
    ),
    _rule(
        r"(?:Failed to load CLIP model from (?P<a>[^\n]+)|failed to load multimodal model, '(?P<b>[^']+)')",
        "the multimodal projector {a}{b} cannot be loaded",
        "check model.mmproj: it must be a complete projector file (usually mmproj-*.gguf), not a language model",
    ),
    _rule(
        r"model arch and LoRA arch mismatch|LoRA tensor '[^']+' (?:has|does not exist)|"
        r"tensor '[^']+' has incorrect shape",
        "a LoRA adapter was made for another model",
        "remove it from model.lora, or serve the model it was trained on",
    ),
    _rule(
        r"failed to (?:load|apply) lora adapter '(?P<what>[^']+)'",
        "the LoRA adapter {what} cannot be loaded",
        "check model.lora: each must be a GGUF adapter for this model",
    ),
    _rule(
        r"(?:the supplied chat template is not supported|failed to (?:initialize|apply) (?:chat )?template|"
        r"chat template parsing error)",
        "the chat template cannot be used",
        "correct the file in model.chat_template, or remove the setting to use the model's own",
    ),
    # The model
    _rule(
        r"CLIP cannot be used as main model",
        "the model is a multimodal projector, not a language model",
        "set model to the language model and model.mmproj to this file",
    ),
    _rule(
        r"failed to open GGUF (?:file|split) '?(?P<what>[^'\n]+?)'? \(Permission denied\)",
        "no permission to read the model {what}",
        "make it readable by the user the appliance runs as, and the directories above it searchable",
    ),
    _rule(
        r"failed to open GGUF (?:file|split) '?(?P<what>[^'\n]+?)'? \(Too many open files\)",
        "the limit on open files is too low",
        "raise the limit on open files (ulimit -n, docker: --ulimit nofile=65536)",
        configuration=False,
    ),
    _rule(
        r"failed to open GGUF (?:file|split) '?(?P<what>[^'\n]+?)'? \((?P<why>[^)]+)\)",
        "the model {what} cannot be opened: {why}",
        "check that the volume is mounted and the file still exists",
        permanent=False,
    ),
    _rule(
        r"invalid magic characters|failed to read (?:magic|header)",
        "the model is not a GGUF file, or has an unsupported GGUF version",
        "download it again; models in other formats must be converted first",
    ),
    _rule(
        r"data is not within the file bounds|failed to read (?:key-value pairs|tensor info|tensor data)|"
        r"corrupted or incomplete|corrupted model|unexpectedly reached end of file",
        "the model file is incomplete or corrupt",
        "download it again, and set model.sha256 to detect this before the start",
    ),
    _rule(
        r"tensor '[^']+' has invalid data|found tensors with invalid data",
        "the model file is corrupt",
        "download it again, and set model.sha256",
    ),
    _rule(
        r"invalid split (?:file|count)|failed to load GGUF split|illegal split file idx|missing key split",
        "the parts of the split model do not match",
        "put all parts (-00001-of-0000N.gguf …) of one version into one directory, and configure the first",
    ),
    _rule(
        r"(?:unknown|unsupported) model architecture: '(?P<what>[^']+)'",
        "this llama.cpp does not support the model architecture {what}",
        "use a newer version of the appliance, or another model",
    ),
    _rule(
        r"unknown pre-tokenizer type: '(?P<what>[^']+)'",
        "this llama.cpp does not support the tokenizer {what}",
        "use a newer version of the appliance, or another model",
    ),
    _rule(
        r"error loading model: (?P<what>(?:error loading model|missing tensor|key not found|wrong number|check_tensor|"
        r"done_getting_tensors)[^\n]*)",
        "the model is not as this llama.cpp expects: {what}",
        "download a current conversion of the model, or use another version of the appliance",
    ),
    _rule(
        r"quantized V cache (?:requires|was requested)",
        "a quantised V cache needs flash attention, which is off or not available",
        "set engine.flash_attention to on or auto, or engine.cache_type_v to f16",
    ),
    _rule(
        r"n_seq_max must be <= (?P<what>\d+)",
        "llama-server supports at most {what} slots",
        "lower engine.slots",
    ),
    _rule(
        r"n_ctx_seq == 0|context size .* too small",
        "the context is too small for the number of slots",
        "raise engine.context_per_slot",
    ),
    # Listening
    _rule(
        r"couldn't bind HTTP server socket, hostname: (?P<what>[^,]+),",
        "llama-server cannot listen on {what}",
        "check that the run directory exists and is writable, and that its path is short (paths.run_dir)",
        permanent=False,
    ),
    _rule(
        r"No space left on device",
        "a disk is full",
        "free some space on the data directory's volume",
        permanent=False,
    ),
    _rule(
        r"(?:GGML_ASSERT\((?P<a>[^\n]+)\) failed|terminate called after throwing[^\n]*\n\s*what\(\):\s*(?P<b>[^\n]+))",
        "an internal check of llama-server failed: {a}{b}",
        "try engine.flash_attention: off and no extra_args; if it recurs, report it to llama.cpp with the log",
        permanent=False,
    ),
    _rule(
        r"error loading model: (?P<what>[^\n]+)",
        "the model cannot be loaded: {what}",
        "check the model file and its settings",
    ),
    # llama-server continues without a GPU, so this is the cause only if nothing else is known.
    _rule(
        r"failed to initialize CUDA: (?:CUDA driver version is insufficient|forward compatibility was attempted)",
        *_OLD_DRIVER,
        permanent=False,
    ),
    _rule(
        r"failed to initialize CUDA: (?P<what>[^\n]+)",
        "CUDA cannot be used: {what}",
        "check that the container has GPU access and the driver works (nvidia-smi), or use the CPU image",
        permanent=False,
    ),
)

SIGNALS = {
    "SIGKILL": Diagnosis(
        "killed by SIGKILL, usually by the kernel because memory ran out (OOM killer)",
        _LOWER + ", lower engine.prompt_cache_mib, or give the container more memory",
    ),
    "SIGILL": Diagnosis(
        "this llama-server uses instructions that the CPU does not have",
        "use the portable image, or build the engine on this machine (make engine)",
        permanent=True,
    ),
    "SIGSEGV": Diagnosis(
        "llama-server crashed (segmentation fault)",
        "try without engine.extra_args and with engine.flash_attention: off; if it recurs, report it to llama.cpp",
    ),
    "SIGBUS": Diagnosis(
        "a memory-mapped file was truncated, or shared memory ran out",
        "do not change the model while it is served; give the container more /dev/shm",
    ),
    "SIGABRT": Diagnosis("llama-server aborted", "see the last lines of its log; if it recurs, report it to llama.cpp"),
}
