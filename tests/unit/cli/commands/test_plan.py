"""`llama-gguf plan` on a real binary and model, for a person and for machines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llama_gguf.cli.__main__ import run as cli
from llama_gguf.cli.commands.plan import plan
from llama_gguf.cli.plan import facts as plan_facts
from llama_gguf.cpu import read_cpu
from llama_gguf.engine import variant_memory
from llama_gguf.engine.auto import machine as engine_machine
from llama_gguf.engine.cpu_libraries import sha256
from llama_gguf.engine.variant_choice import HostCpu
from llama_gguf.engine.variant_memory import CrashedVariant
from llama_gguf.errors import ConfigError, ExitCode
from support.file_server import Remote, file_server
from support.sparse_model import Dimensions, write_sparse_model
from support.variant_engine import SAPPHIRE_RAPIDS, VariantEngine


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"model: {{path: {tiny_model}, aliases: [tiny]}}\n"
        f"paths: {{data_dir: {tmp_path}/data, run_dir: {tmp_path}/run}}\n"
        "engine: {context_per_slot: 512, slots: 2}\n"
    )
    return path


@pytest.fixture(autouse=True)
def _nowhere_special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: str | Path, env: dict[str, str] | None = None, code: ExitCode = ExitCode.OK) -> Result:
    result = CliRunner().invoke(
        plan, [str(item) for item in arguments], env=env, catch_exceptions=False, standalone_mode=False
    )
    assert result.return_value == code, result.output
    return result


def data(*arguments: str | Path, env: dict[str, str] | None = None, code: ExitCode = ExitCode.OK) -> Any:
    return json.loads(run(*arguments, "--json", env=env, code=code).stdout)


def test_everything_for_machines(config: Path, tmp_path: Path, tiny_model: Path, engine_binary: Path) -> None:
    found = data(config)
    assert found["config"] == str(config)
    assert found["data_dir"] == {"path": f"{tmp_path}/data", "reason": "paths.data_dir"}
    assert found["run_dir"] == {"path": f"{tmp_path}/run", "reason": "paths.run_dir"}
    assert found["model"] == {
        "names": ["tiny"],
        "files": [
            {
                "setting": "model",
                "source": str(tiny_model),
                "path": str(tiny_model),
                "present": True,
                "bytes": tiny_model.stat().st_size,
            }
        ],
    }
    engine = found["engine"]
    assert engine["binary"] == str(engine_binary)
    assert (engine["problem"], engine["devices"]) == (None, [])
    assert engine["argv"][engine["argv"].index("--ctx-size") + 1] == "1024"
    assert found["listen"]["gateway"] == {"host": "0.0.0.0", "port": 8000}
    assert found["sockets"]["engine"] == f"{tmp_path}/run/engine.sock"
    assert {program["name"] for program in found["programs"]} == {"engine", "gateway", "health", "listener"}
    memory = found["memory"]
    assert (memory["verdict"], memory["layers_on_device"], memory["device_capacity_bytes"]) == ("fits", 0, 0)
    assert memory["host_bytes"] == sum(item["host_bytes"] for item in memory["items"])
    (cache,) = (item["host_bytes"] for item in memory["items"] if item["name"] == "KV cache")
    assert found["bytes_per_slot"] == cache // 2
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "run").exists()
    (model,) = found["models"]
    assert model["name"] is None
    assert (model["names"], model["files"]) == (found["model"]["names"], found["model"]["files"])
    for same in ("memory", "largest", "bytes_per_slot"):
        assert model[same] == found[same]
    assert found["together"] is None
    assert found["verdict"] == "fits"


def test_the_structure_is_stable(config: Path, tmp_path: Path) -> None:
    """Scripts read it: keys may be added, and none goes. They are there whatever is known."""
    keys = {
        "": "config data_dir run_dir paths model models engine listen sockets programs gpus memory bytes_per_slot "
        "largest auto memory_problem together verdict problems",
        "models": "name names files load required program socket engine memory bytes_per_slot largest auto "
        "memory_problem",
        "engine": "binary version cpu_variant problem devices argv",
        "memory": "verdict device_bytes host_bytes host_mapped_bytes device_capacity_bytes host_capacity_bytes layers "
        "layers_on_device context_per_slot shares items advice assumptions unknown",
    }
    here, unknown = data(config), data(config, "--set", f"model.path={tmp_path}/absent.gguf", code=ExitCode.CONFIG)
    for found in (here, unknown):
        assert set(found) == set(keys[""].split())
        assert set(found["models"][0]) == set(keys["models"].split())
        assert set(found["engine"]) == set(found["models"][0]["engine"]) == set(keys["engine"].split())
    assert set(here["memory"]) == set(keys["memory"].split())
    assert unknown["verdict"] == "unknown"


def test_what_is_auto_is_shown_with_its_reasons(tmp_path: Path) -> None:
    model = write_sparse_model(tmp_path / "m.gguf", "llama", Dimensions())
    settings = {"model.path": model, "paths.data_dir": tmp_path, "engine.context_per_slot": "auto"}
    settings |= {"engine.slots": 2, "engine.batch_size": "auto", "engine.cache_type_k": "auto"}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    text = run(*options, "--vram", "16GiB").stdout
    found = data(*options, "--vram", "16GiB")
    chosen = {one["setting"]: one["value"] for one in found["auto"]}
    context = chosen["engine.context_per_slot"]
    assert 4096 < context < 65_536
    assert found["memory"]["context_per_slot"] == context
    argv = found["engine"]["argv"]
    assert argv[argv.index("--ctx-size") + 1] == str(2 * context)
    wanted = f"""\
  auto                     value  reason
  engine.gpu_layers           33  all fit on the GPU
  engine.batch_size         2048  the usual size fits
  engine.cache_type_k        f16  full precision fits
  engine.context_per_slot  {context}  the most that fits with 2 slots, of 131072 that the model was trained for
"""
    assert wanted in text
    less = data(*options, "--device", "RTX 3060", code=ExitCode.OK)
    assert {one["setting"]: one["value"] for one in less["auto"]}["engine.context_per_slot"] < context


def test_without_the_models_file_what_is_auto_has_the_least(tmp_path: Path) -> None:
    settings = ("model.path=/absent.gguf", f"paths.data_dir={tmp_path}", "engine.slots=auto")
    options = [part for one in settings for part in ("--set", one)]
    found = data(*options, code=ExitCode.CONFIG)
    (slots,) = [one for one in found["auto"] if one["setting"] == "engine.slots"]
    assert slots == {
        "setting": "engine.slots",
        "value": 1,
        "reason": "the least; more if it fits, once the model's file is known",
    }


@pytest.mark.engine
def test_everything_for_a_person(config: Path, tmp_path: Path) -> None:
    text = run(config).stdout
    for line in (
        f"  data           {tmp_path}/data (paths.data_dir)",
        "  served as  tiny",
        "  CPU variant  llama-server's own choice",
        "  GPUs         none detected",
        "  API          0.0.0.0:8000",
        "  health       0.0.0.0:8001/ping",
        "  engine    python -P -m llama_gguf.engine",
        "  --ctx-size 1024 \\",
        "  fits: on the CPU, 512 tokens of context for each slot",
    ):
        assert line in text.replace("python3.11", "python").replace("python3", "python")


def test_the_variant_of_the_cpu_code_and_what_crashed_before(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And llama-server is asked with that variant: with the best one it would crash while it is asked."""
    machine = HostCpu("x86_64", f"model name: Xeon\nflags: {SAPPHIRE_RAPIDS}\n")
    monkeypatch.setattr(plan_facts, "this_machine", lambda: machine)
    crashes = {"sapphirerapids": "SIGILL"}
    engine = VariantEngine.make(tmp_path / "engine", ("sapphirerapids", "zen4", "x64"), crashes=crashes)
    options = (config, "--set", f"engine.binary={engine.binary}")
    assert "  CPU variant  unknown\n" in run(*options).stdout
    assert "was terminated by SIGILL" in data(*options)["engine"]["problem"]
    cpu = read_cpu(machine.cpuinfo)
    assert cpu is not None
    entry = CrashedVariant(cpu.fingerprint, "sapphirerapids", sha256(engine.library("sapphirerapids")))
    variant_memory.add(tmp_path / "data" / "engine-cpu-variants.json", [entry])
    assert "  CPU variant  zen4 (crashed on this machine: sapphirerapids)\n" in run(*options).stdout
    found = data(*options)["engine"]
    assert found["cpu_variant"] == {"name": "zen4", "pinned": False, "rejected": ["sapphirerapids"]}
    assert found["problem"] is None
    pinned = (*options, "--set", "engine.cpu_variant=x64")
    assert "  CPU variant  x64 (engine.cpu_variant)\n" in run(*pinned).stdout
    refused = data(*options, "--set", "engine.cpu_variant=icelake")["engine"]["problem"]
    assert "has no such variant; set engine.cpu_variant to auto" in refused


def test_weights_are_repacked_for_the_variant_that_runs_and_not_for_all_that_the_processor_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plan_facts, engine_machine):
        monkeypatch.setattr(module, "this_machine", lambda: HostCpu("x86_64", f"flags: {SAPPHIRE_RAPIDS}\n"))
    variants = ("sapphirerapids", "haswell", "x64")
    engine = VariantEngine.make(tmp_path / "engine", variants)
    model = write_sparse_model(tmp_path / "m.gguf", "llama", Dimensions())
    settings = (f"model.path={model}", f"paths.data_dir={tmp_path}", f"engine.binary={engine.binary}")

    def repacked(variant: str) -> int:
        options = [part for setting in (*settings, f"engine.cpu_variant={variant}") for part in ("--set", setting)]
        items = data(*options, "--vram", "0")["memory"]["items"]
        return sum(item["host_bytes"] for item in items if item["name"] == "repacked weights")

    amx, avx2, plain = (repacked(variant) for variant in variants)
    assert amx * 144 == avx2 * 148 > 0  # AMX adds 4 bytes to each block of Q4_K
    assert plain == 0
    assert repacked("auto") == amx


def test_what_is_doubtful_on_this_machine_is_told(config: Path) -> None:
    done = run(config, "--set", "engine.task=embed")
    assert "warning[no-pooling]: engine.pooling" in done.stderr
    assert "help: set engine.pooling to the type that the model card names" in done.stderr
    found = data(config, "--set", "engine.task=embed", "--set", "engine.batch_size=128")
    assert [problem["code"] for problem in found["problems"]] == ["input-over-batch", "no-keys", "no-pooling"]


def test_planning_for_another_machine(tmp_path: Path) -> None:
    model = write_sparse_model(tmp_path / "big.gguf", "llama", Dimensions())
    options = ("--set", f"model.path={model}", "--set", f"paths.data_dir={tmp_path}", "--set", "engine.gpu_layers=all")
    small = data(*options, "--vram", "4GiB", "--ram", "64GiB", code=ExitCode.DOES_NOT_FIT)["memory"]
    assert (small["verdict"], small["layers_on_device"]) == ("does not fit", 33)
    assert small["device_capacity_bytes"] == 4 << 30
    assert small["advice"]
    large = data(*options, "--vram", "24G")
    assert large["memory"]["verdict"] == "fits"
    argv = large["engine"]["argv"]
    assert argv[argv.index("--fit") + 1] == "on"
    text = run(*options, "--vram", "4GiB", code=ExitCode.DOES_NOT_FIT).stdout
    assert "planned for GPU with 4GiB (4096 MiB)" in text
    assert "does not fit: 33 of 33 layers on the GPU" in text
    assert "advice: engine.gpu_layers: " in text


def test_a_model_to_be_downloaded_is_planned_from_its_header_alone(tmp_path: Path, tiny_model: Path) -> None:
    """While its server is away the plan is not known, and the exit status says so."""
    with file_server() as site:
        site.files["/m/tiny.gguf"] = Remote(tiny_model.read_bytes())
        address = site.url("/m/tiny.gguf")
        options = ("--set", f"model.url={address}", "--set", f"paths.data_dir={tmp_path}/data", "--vram", "24GB")
        found = data(*options)
        (file,) = found["model"]["files"]
        assert (file["present"], file["source"], file["bytes"]) == (False, address, 0)
        local = ("--set", f"model.path={tiny_model}", "--set", f"paths.data_dir={tmp_path}/data", "--vram", "24GB")
        assert found["memory"] == data(*local)["memory"]
        assert found["memory_problem"] is None
        assert f"not on disk yet; from {address}" in run(*options).stdout
        assert not (tmp_path / "data").exists()
        del site.files["/m/tiny.gguf"]
        missing = data(*options, code=ExitCode.CONFIG)
        assert missing["memory"] is None
        assert missing["memory_problem"] == f"{address}: not found (404)"
    text = run(*options, code=ExitCode.UNAVAILABLE).stdout
    assert f"  unknown: {address}: cannot connect to 127.0.0.1" in text


def test_a_token_that_is_missing_stops_no_other_fact(config: Path) -> None:
    options = (
        "--set",
        "model.path=null",
        "--set",
        "model.url=http://127.0.0.1:9/m",
        "--set",
        "model.token_env=NO_SUCH",
    )
    found = data(config, *options, code=ExitCode.CONFIG)
    assert "model.token_env: the variable NO_SUCH is not set" in found["memory_problem"]
    assert "hint: set the variable" in run(config, *options, code=ExitCode.CONFIG).stdout


def test_a_part_that_is_missing(config: Path, tmp_path: Path, tiny_model: Path) -> None:
    shutil.copy(tiny_model, tmp_path / "m-00001-of-00002.gguf")
    options = ("--set", f"model.path={tmp_path}/m-00001-of-00002.gguf")
    found = data(config, *options, code=ExitCode.CONFIG)
    assert found["memory_problem"] == f"model: {tmp_path}/m-00002-of-00002.gguf does not exist"


def test_a_model_of_this_machine(config: Path, tmp_path: Path, tiny_model: Path) -> None:
    assert f"{tiny_model} (0 MiB on disk)" in run(config).stdout
    missing = tmp_path / "absent.gguf"
    done = run(config, "--set", f"model.path={missing}", code=ExitCode.CONFIG)
    assert f"{missing} (does not exist)" in done.stdout
    assert "error[model-missing]" in done.stderr
    named = ("--set", "model.name=tiny", "--set", f"paths.models_dir={tiny_model.parent}", "--set", "model.path=null")
    assert f"{tiny_model} (0 MiB on disk; from tiny in {tiny_model.parent})" in run(config, *named).stdout


def test_companions(tmp_path: Path, tiny_model: Path) -> None:
    other = shutil.copy(tiny_model, tmp_path / "other.gguf")
    options = [
        *("--set", f"model.path={other}", "--set", f"paths.data_dir={tmp_path}"),
        *("--set", f"model.draft.path={tiny_model}", "--set", f"model.mmproj.path={tiny_model}"),
        *("--set", f'model.lora=[{{"path": "{tiny_model}"}}]'),
    ]
    found = data(*options)
    assert [file["setting"] for file in found["model"]["files"]] == [
        "model",
        "model.mmproj",
        "model.draft",
        "model.lora[0]",
    ]
    names = {item["name"] for item in found["memory"]["items"]}
    assert {"draft model", "multimodal projector", "LoRA adapters"} <= names


def test_no_engine(config: Path, tmp_path: Path) -> None:
    found = data(config, "--set", f"engine.binary={tmp_path}/none")
    assert f"{tmp_path}/none does not exist" in found["engine"]["problem"]
    assert found["engine"]["binary"] is None
    assert found["memory"]["device_capacity_bytes"] is None
    assert "problem" in run(config, "--set", f"engine.binary={tmp_path}/none").stdout
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert "failed with 1" in data(config, "--set", f"engine.binary={broken}")["engine"]["problem"]


def test_gpus_that_are_seen(config: Path, tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "llama-server"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho '  CUDA0: NVIDIA X (24000 MiB, 90 MiB free)'\n")
    binary.chmod(0o755)
    found = data(config, "--set", f"engine.binary={binary}")
    assert found["memory"]["device_capacity_bytes"] == 24000 << 20
    assert "CUDA0: NVIDIA X, 23.4 GiB" in run(config, "--set", f"engine.binary={binary}").stdout


def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: {path: /x, name: y}\n")
    with pytest.raises(ConfigError) as caught:
        run(path)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_a_card_that_is_not_rented_yet(tmp_path: Path) -> None:
    model = write_sparse_model(tmp_path / "big.gguf", "llama", Dimensions())
    options = ("--set", f"model.path={model}", "--set", f"paths.data_dir={tmp_path}", "--set", "engine.gpu_layers=all")
    found = data(*options, "--device", "NVIDIA GeForce RTX 4090")
    assert found["gpus"] == [{"name": "RTX 4090", "total_bytes": 24052 << 20}]
    assert found["memory"]["device_capacity_bytes"] == 24052 << 20
    assert found["memory"]["host_capacity_bytes"] is None  # that machine's main memory is not this one's
    assert found["memory"]["verdict"] == "fits"
    two = data(*options, "--device", "2x RTX 3060", "--ram", "16GiB")
    assert [gpu["name"] for gpu in two["gpus"]] == ["RTX 3060", "RTX 3060"]
    assert two["memory"]["host_capacity_bytes"] == 16 << 30
    assert "planned for 2 x RTX 3060 (11.5 GiB), T4 (14.5 GiB)" in run(*options, "--device", "2x RTX 3060, T4").stdout
    assert data(*options, "--device", "GTX 1070", "--set", "engine.slots=64", code=ExitCode.DOES_NOT_FIT)["memory"][
        "advice"
    ]


def test_several_cards_are_planned_one_by_one(tmp_path: Path) -> None:
    model = write_sparse_model(tmp_path / "big.gguf", "llama", Dimensions())
    options = ("--set", f"model.path={model}", "--set", f"paths.data_dir={tmp_path}")
    cards = (*options, "--device", "RTX 3060, RTX 4090")
    memory = data(*cards)["memory"]
    assert [(share["gpu"], share["layers"]) for share in memory["shares"]] == [("RTX 3060", 11), ("RTX 4090", 22)]
    assert sum(share["device_bytes"] for share in memory["shares"]) == memory["device_bytes"]
    text = run(*cards, env={"COLUMNS": "30"}).stdout
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("  RTX")] == ["11", "22"]
    assert "fits: 33 of 33 layers on the GPUs" in text
    assert data(*options, "--vram", "24GB")["memory"]["shares"] == []


def test_several_models(tmp_path: Path, tiny_model: Path) -> None:
    """More of them is in tests/unit/cli/plan/test_facts.py; this is the whole command."""
    large = write_sparse_model(tmp_path / "big.gguf", "llama", Dimensions())
    path = tmp_path / "config.yaml"
    path.write_text(
        f"models:\n  chat: {{path: {large}, engine: {{gpu_layers: all}}}}\n"
        f"  tiny: {{path: {tiny_model}, load: on_demand}}\n"
        f"paths: {{data_dir: {tmp_path}/data, run_dir: {tmp_path}/run}}\n"
    )
    found = data(path, "--device", "L4")
    assert [model["name"] for model in found["models"]] == ["chat", "tiny"]
    assert found["together"]["sets"] == [["chat", "tiny"]]
    assert (found["verdict"], found["model"], found["memory"]) == ("fits", None, None)
    assert "fits: at the same time chat + tiny" in run(path, "--device", "L4").stdout
    text = run(path, "--vram", "3GiB", code=ExitCode.DOES_NOT_FIT).stdout
    assert "  advice: models.chat alone needs more than there is: first change what is advised there" in text


@pytest.mark.parametrize("layers", ["auto", "all"])
def test_how_far_the_settings_can_grow(tmp_path: Path, layers: str) -> None:
    """What is named fits with all layers on the GPU, and one step more does not."""
    model = write_sparse_model(tmp_path / "big.gguf", "llama", Dimensions())
    settings = (f"model.path={model}", f"paths.data_dir={tmp_path}", f"engine.gpu_layers={layers}")
    options = [part for setting in settings for part in ("--set", setting)]

    def fits(**engine: int) -> bool:
        sets = [part for name, value in engine.items() for part in ("--set", f"engine.{name}={value}")]
        arguments = [str(item) for item in (*options, *sets, "--vram", "24GiB", "--json")]
        memory = json.loads(CliRunner().invoke(plan, arguments, standalone_mode=False).stdout)["memory"]
        return bool(memory["verdict"] == "fits" and memory["layers_on_device"] == 33)

    most = data(*options, "--vram", "24GiB")["largest"]
    assert most["slots"] > 4
    assert most["context_per_slot"] > 4096
    for name, step in (("slots", 1), ("context_per_slot", 256)):
        assert fits(**{name: most[name]})
        assert not fits(**{name: most[name] + step})
    line = f"at most: {most['context_per_slot']} tokens with 4 slots, or {most['slots']} slots with 4096"
    assert line in run(*options, "--vram", "24GiB").stdout
    assert data(*options, "--vram", "1GiB", "--ram", "1GiB", code=ExitCode.DOES_NOT_FIT)["largest"] is None


def test_this_machines_own(config: Path) -> None:
    alone = data(config)
    for option in ("--device", "--vram"):
        assert data(config, option, "AUTO") == alone
    assert alone["memory"]["host_capacity_bytes"] > 0
    assert data(config, "--vram", "0")["memory"]["host_capacity_bytes"] == alone["memory"]["host_capacity_bytes"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--device", "RTX 4009"), "did you mean 'RTX 4090'?"),
        (("--vram", "lots"), "'lots' is not a size; write 24GiB"),
        (("--ram", "-1"), "'-1' is not a size"),
        (("--device", "RTX 4090", "--vram", "24GB"), "both name the GPUs"),
    ],
)
def test_what_is_no_machine(
    config: Path, options: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["plan", str(config), *options]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.out == ""


def test_the_table_of_cards(tmp_path: Path) -> None:
    """It needs no configuration, and its lines stay whole in a pipe."""
    rows = {card["name"]: card for card in data("--list-devices")}
    assert rows["L4"] == {
        "name": "L4",
        "market": "data centre",
        "sold_gb": 24,
        "total_bytes": 23034 << 20,
        "usable_bytes": 22522 << 20,
    }
    lines = run("--list-devices", env={"COLUMNS": "20"}).stdout.splitlines()
    assert len(lines) == len(rows) + 1
    assert any(line.split() == ["RTX", "4090", "24", "GB", "24052", "MiB", "consumer"] for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_plan_needs_is_missing(config: Path, tmp_path: Path) -> None:
    """A script that asks whether it fits must not take "unknown" for yes."""
    found = data(config, "--set", f"model.path={tmp_path}/absent.gguf", code=ExitCode.CONFIG)
    assert found["memory"] is None
    assert found["memory_problem"] == f"model: {tmp_path}/absent.gguf does not exist"
