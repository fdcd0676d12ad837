"""`llama-gguf check`, and how the configuration file is found."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from llama_gguf.cli.__main__ import run
from llama_gguf.cli.config_options import chosen, find_config, load_or_exit
from llama_gguf.settings.loading.known_variables import LEGACY_VARIABLES
from llama_gguf.settings.loading.load import InvalidConfigError
from support.tiny_encoder import write_tiny_encoder
from support.tiny_model import write_tiny_model
from support.variant_engine import VariantEngine


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LLAMA_GGUF_CONFIG", *(old.name for old in LEGACY_VARIABLES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def write(text: str, name: str = "config.yaml") -> Path:
    """Write a configuration into the current directory."""
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


BROKEN = "model: {path: /m.gguf}\ngateway:\n  prot: 8000\n"
RIGHT = "model: {path: /m.gguf}\nauth: {bootstrap: {generate: true}}\n"


def test_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(write(RIGHT)), "--no-files"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "config.yaml: ok\n"
    assert captured.err == ""


def test_broken_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(write(BROKEN))]) == 78
    err = capsys.readouterr().err
    assert err.splitlines() == [
        'config.yaml:3:3: error[unknown-key]: gateway.prot: no such setting; did you mean "port"?',
        "    3 |   prot: 8000",
        "      |   ^^^^",
        "config.yaml: 1 error",
    ]


def test_broken_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(write(BROKEN)), "--format", "json"]) == 78
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["file"]) == (False, "config.yaml")
    assert [(problem["code"], problem["line"]) for problem in report["problems"]] == [("unknown-key", 3)]


def test_files_of_this_machine_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(write(RIGHT))]) == 78
    assert "config.yaml:1:15: error[model-missing]: model.path: /m.gguf does not exist" in capsys.readouterr().err


def test_model_is_read_for_its_training_context(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"model: {{path: {tiny_model}}}\nauth: {{bootstrap: {{generate: true}}}}\n"
    assert run(["check", str(write(text)), "--set", "engine.context_per_slot=4096"]) == 0
    captured = capsys.readouterr()
    assert "--set engine.context_per_slot: warning[context-over-training]" in captured.err
    assert captured.out == "config.yaml: ok (1 warning)\n"
    by_name = (
        f"model: {{name: tiny}}\npaths: {{models_dir: {tiny_model.parent}}}\nauth: {{bootstrap: {{generate: true}}}}\n"
    )
    assert run(["check", str(write(by_name)), "--set", "engine.context_per_slot=2048"]) == 0


def test_model_is_read_for_its_task(
    tiny_model: Path, tiny_rerank_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write("model: {path: unused}\nauth: {bootstrap: {generate: true}}\nengine: {context_per_slot: 512}\n")

    def told(model: Path, *sets: str) -> str:
        flags = [word for one in (f"model.path={model}", *sets) for word in ("--set", one)]
        assert run(["check", str(file), *flags]) == 0
        return capsys.readouterr().err

    assert "warning[no-pooling]: engine.pooling" in told(tiny_model, "engine.task=embed")
    assert told(tiny_model, "engine.task=embed", "engine.pooling=mean") == ""
    assert told(tiny_rerank_model, "engine.task=embed") == ""
    assert "warning[no-reranker]: engine.task" in told(tiny_model, "engine.task=rerank")
    assert told(tiny_rerank_model, "engine.task=rerank") == ""


def test_broken_model_is_told(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(tiny_model.read_bytes()[:200])
    assert run(["check", str(write(RIGHT.replace("/m.gguf", str(half))))]) == 78
    assert "error[model-incomplete]: model: " in capsys.readouterr().err


def test_model_to_be_downloaded_is_not_asked_for() -> None:
    text = "model: {url: 'https://example.com/m.gguf'}\nauth: {bootstrap: {generate: true}}\n"
    assert run(["check", str(write(text))]) == 0


def test_strict_makes_warnings_errors(capsys: pytest.CaptureFixture[str]) -> None:
    file = write(f"{RIGHT}gateway: {{cors: {{allow_origins: ['*', 'https://a.example']}}}}\n")
    assert run(["check", str(file), "--no-files"]) == 0
    assert run(["check", str(file), "--no-files", "--strict"]) == 78
    assert "config.yaml: 1 warning" in capsys.readouterr().err


def test_environment_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MODEL_PATH", "/m.gguf")
    assert run(["check", "--no-files"]) == 0
    assert capsys.readouterr().out == "environment: ok\n"


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "none.yaml"]) == 78
    assert "none.yaml: error[file-missing]: no such file" in capsys.readouterr().err


def test_find_config_prefers_what_is_said() -> None:
    def there(path: Path) -> bool:
        return str(path) == "/etc/llama-gguf/config.yaml"

    assert find_config(Path("a"), {"LLAMA_GGUF_CONFIG": "b"}) == Path("a")
    assert find_config(None, {"LLAMA_GGUF_CONFIG": "b"}) == Path("b")
    assert find_config(None, {"LLAMA_GGUF_CONFIG": " "}, is_file=there) == Path("/etc/llama-gguf/config.yaml")
    assert find_config(None, {}, is_file=lambda _: True) == Path("config/config.yaml")
    assert find_config(None, {}, is_file=lambda _: False) is None


def test_two_files_are_one_too_many() -> None:
    assert chosen(Path("a"), None) == chosen(None, Path("a")) == chosen(Path("a"), Path("a")) == Path("a")
    with pytest.raises(click.UsageError, match="two configuration files"):
        chosen(Path("a"), Path("b"))


def test_load_or_exit_tells_warnings_and_raises_errors(capsys: pytest.CaptureFixture[str]) -> None:
    file = write(RIGHT)
    loaded = load_or_exit(file, ("gateway.port=9000",), env={"BACKEND_PORT": "1"})
    assert loaded.settings.gateway.port == 9000
    assert "warning[retired]" in capsys.readouterr().err
    with pytest.raises(InvalidConfigError):
        load_or_exit(file, ("gateway.port=x",), env={})


def test_a_pinned_cpu_variant_that_cannot_run_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What this CPU is does not matter: the engine has one variant, which is made for another kind of machine."""
    engine = VariantEngine.make(tmp_path / "engine", ("of-another-machine",))
    model = write_tiny_model(tmp_path / "m.gguf")
    head = f"model: {{path: {model}}}\nauth: {{enabled: false}}\n"
    text = f"{head}engine:\n  binary: {engine.binary}\n  cpu_variant: %s\n"
    file = write(text % "x64")
    assert run(["check", str(file)]) == 78
    told = capsys.readouterr().err
    assert f"{file}:5:16: error[cpu-variant-unusable]: engine.cpu_variant is x64, but" in told
    assert "has no such variant" in told
    assert run(["check", str(file), "--no-files"]) == 0
    assert run(["check", str(write(text % "auto"))]) == 0
    missing = write(text.replace(str(engine.binary), str(tmp_path / "none")) % "x64")
    capsys.readouterr()
    assert run(["check", str(missing)]) == 78
    assert "cpu-variant" not in capsys.readouterr().err


def test_each_of_several_models_is_looked_at(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = write_tiny_encoder(tmp_path / "bert.gguf")
    file = write(f"""
auth: {{enabled: false}}
gateway: {{host: 127.0.0.1}}
models:
  chat:
    path: {tiny_model}
  embed:
    path: {encoder}
    engine: {{context_per_slot: 64}}
  remote:
    hf: {{repo: a/b, file: c.gguf}}
    token_env: NOT_SET_ANYWHERE
    chat_template: {tiny_model}
""")
    assert run(["check", str(file), "--format", "json"]) == 78
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(problem["line"], problem["severity"], problem["code"]) for problem in problems] == [
        (5, "warning", "context-over-training"),
        (7, "error", "model-task"),
        (13, "error", "template-unusable"),
        (12, "error", "variable-unset"),
    ]
    assert problems[0]["message"].startswith("models.chat.engine.context_per_slot: 4096 (the default)")
    assert problems[1]["message"] == "models.embed: is an encoder, which cannot generate text"
    assert problems[1]["hint"].startswith("set models.embed.engine.task to embed")


def test_a_mistake_in_what_is_common_is_told_once(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = f"models: {{a: {{path: {tiny_model}}}, b: {{path: {tiny_model}}}}}\n"
    head = f"auth: {{enabled: false}}\ngateway: {{host: 127.0.0.1}}\n{models}"
    file = write(f"{head}engine: {{context_per_slot: 512, binary: {tmp_path}/none}}\n")
    assert run(["check", str(file)]) == 78
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error[" in line]
    assert "4:41: error[file-missing]: engine.binary: " in line


def test_an_engine_is_asked_once_for_models_that_share_it(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary, asked = tmp_path / "llama-server", tmp_path / "asked"
    binary.write_text(f"#!/bin/sh\necho $1 >> {asked}\nprintf '%-40sx\\n' '--model FNAME'\n")
    binary.chmod(0o755)
    models = ", ".join(f"m{number}: {{path: {tiny_model}}}" for number in range(5))
    common = f"engine: {{context_per_slot: 512, binary: {binary}, gpu_layers: 0, extra_args: [--frobnicate]}}"
    text = f"auth: {{enabled: false}}\ngateway: {{host: 127.0.0.1}}\nmodels: {{{models}}}\n{common}\n"
    assert run(["check", str(write(text))]) == 78
    assert asked.read_text() == "--help\n"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "[unknown-argument]" in line]
    assert "engine.extra_args[0]: llama-server does not know the argument --frobnicate" in line


def test_a_proxy_that_no_download_could_use_is_told_at_the_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALL_PROXY", "ftp://me:geheim@proxy")
    text = "model:\n  hf: {repo: a/b, file: c.gguf}\nauth: {bootstrap: {generate: true}}\n"
    assert run(["check", str(write(text))]) == 78
    err = capsys.readouterr().err
    assert "config.yaml:2:3: error[bad-proxy]: ALL_PROXY: ftp proxies are not supported" in err
    assert "geheim" not in err


def test_one_of_several_models_that_never_fits(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is known before anything starts: an error if the appliance needs it, else a warning."""
    text = (
        "auth: {enabled: false}\nmetrics: {require_key: true}\ngateway: {host: 127.0.0.1}\n"
        "engine: {gpu_layers: 0, context_per_slot: 512, slots: 1, prompt_cache_mib: 0}\n"
        "memory: {host_mib: 75}\nmodels:\n"
        f"  a: {{path: {tiny_model}}}\n"
        f"  b: {{path: {tiny_model}, load: on_demand, required: true}}\n"
        f"  c: {{path: {tiny_model}, load: on_demand}}\n"
    )
    assert run(["check", str(write(text))]) == 78
    err = capsys.readouterr().err
    assert "config.yaml:8:3: error[does-not-fit]: models.b: never fits" in err
    assert "config.yaml:9:3: warning[does-not-fit]: models.c: never fits" in err
    assert run(["check", str(write(text.replace("host_mib: 75", "host_mib: 7500")))]) == 0
    assert run(["check", str(write(text)), "--no-files"]) == 0


def test_a_model_that_is_not_here_yet_has_no_verdict(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "auth: {enabled: false}\nmetrics: {require_key: true}\nmemory: {host_mib: 1}\nmodels:\n"
        f"  a: {{path: {tiny_model}}}\n  b: {{path: /none.gguf}}\n"
    )
    assert run(["check", str(write(text))]) == 78
    err = capsys.readouterr().err
    assert "model-missing" in err
    assert "does-not-fit" not in err
