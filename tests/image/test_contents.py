"""What is in the image and what is not: files, owners, modes, labels, versions, sizes. Nothing of ours runs here."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from image.engine import recipe, tile_config
from image.scripts import image_size
from testinfra.host import Host

from llama_gguf.settings.locations import DATA_DIR_CANDIDATES
from support.podman import Container, podman

HOME = "/opt/llama-gguf"
DRIVER = "libcuda.so.1"


def test_runs_as_our_user_with_group_zero(facts: dict[str, Any], host: Host) -> None:
    assert facts["Config"]["User"] == "10001:0"
    user = host.user("appliance")
    assert (user.uid, user.gid, user.home, user.shell) == (10001, 0, "/home/appliance", "/usr/sbin/nologin")


def test_command_line_ports_and_stop_signal(config: dict[str, Any]) -> None:
    assert config["Entrypoint"] == ["llama-gguf"]
    assert config["Cmd"] == ["up"]
    assert set(config["ExposedPorts"]) == {"8000/tcp", "8001/tcp"}
    assert config.get("StopSignal", "") in {"", "SIGTERM", "15"}
    assert config["Healthcheck"]["Test"] == ["CMD", f"{HOME}/bin/healthcheck"]


def test_labels_say_what_it_is(facts: dict[str, Any], variant: recipe.Variant, versions: dict[str, Any]) -> None:
    labels = facts["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[prefix + "title"] == recipe.load().image.title
    assert variant.description in labels[prefix + "description"]
    assert labels[prefix + "version"] == versions["version"]
    assert labels[prefix + "revision"] == versions["commit"]
    assert labels[prefix + "licenses"] == "MIT"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", labels[prefix + "created"])
    assert labels[prefix + "base.name"] == versions["base"]
    assert labels["io.github.llama-gguf.variant"] == variant.name


@pytest.fixture(scope="module")
def versions(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.file("/versions.json").content_string)
    return found


def test_versions_file_is_true(host: Host, variant: recipe.Variant, versions: dict[str, Any]) -> None:
    from llama_gguf import __version__

    assert versions["version"] == __version__
    assert versions["variant"] == variant.name
    assert versions["cuda"] == (variant.cuda.version if variant.cuda else None)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", versions["commit"])
    pinned = recipe.engine_version(recipe.ENGINE_LOCK.read_text(encoding="utf-8"))
    assert versions["engine"]["package"] == f"llama-cpp-python=={pinned}"
    assert "-DGGML_NATIVE=OFF" in versions["engine"]["flags"]
    patches = recipe.PATCHES_FILE
    sha256 = hashlib.sha256(patches.read_bytes()).hexdigest()
    assert versions["engine"]["patched_by"] == {"file": patches.name, "sha256": sha256}
    said = host.run("llama-server --version")
    assert f"version: {versions['engine']['llama_cpp']}" in said.stdout + said.stderr
    assert host.run("python3 --version").stdout.strip() == f"Python {versions['python']}"


def test_every_tile_configuration_of_amx_is_whole(host: Host) -> None:
    """Half a one is an illegal instruction on every Xeon since Sapphire Rapids: read from the code, on any machine."""
    if host.system_info.arch != "x86_64":
        pytest.skip("AMX is Intel's")
    libraries = host.run(f"ls {HOME}/engine/bin").stdout.split()
    counts = {}
    for name in (name for name in libraries if name.startswith("libggml-cpu-")):
        code = host.file(f"{HOME}/engine/bin/{name}").content
        assert tile_config.incomplete(code) == (), name
        counts[name] = tile_config.count(code)
    assert {name for name, count in counts.items() if count} == {"libggml-cpu-sapphirerapids.so"}


def test_nothing_of_ours_can_be_changed_from_inside(still: Container) -> None:
    """Neither by the image's user nor through group 0: only root owns it, and only root may write."""
    ours_alone = ["!", "-uid", "0", "-o", "-perm", "/022"]
    places = [HOME, "/versions.json", "/etc/llama-gguf"]
    assert still.exec("find", *places, "!", "-type", "l", "(", *ours_alone, ")") == ""


def test_places_that_any_user_may_write_through_group_zero(host: Host) -> None:
    for path in (*DATA_DIR_CANDIDATES, "/home/appliance"):
        found = host.file(path)
        assert (found.uid, found.gid, found.mode) == (10001, 0, 0o770), path
    run = host.file("/run")
    assert (run.uid, run.gid, run.mode) == (0, 0, 0o775)


def test_caches_of_libraries_lie_where_a_read_only_root_has_a_place(config: dict[str, Any]) -> None:
    env = dict(entry.split("=", 1) for entry in config["Env"])
    assert env["HF_XET_CACHE"].startswith("/tmp/")
    # It would decide where models are kept, and that is paths.models_dir's to say.
    assert not {"HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"} & set(env)


def test_no_setuid_and_no_world_writable_beyond_the_base(still: Container, versions: dict[str, Any]) -> None:
    questions = {
        "setuid": ["find", "/", "-xdev", "-type", "f", "-perm", "/6000"],
        "world-writable": ["find", "/", "-xdev", "!", "-type", "l", "-perm", "-0002"],
    }
    for what, question in questions.items():
        ours = set(still.exec(*question, check=False, user="0").splitlines())
        base = set(
            podman(
                "run", "--rm", "--entrypoint=/usr/bin/find", versions["base"], *question[1:], check=False
            ).stdout.splitlines()
        )
        assert base, f"the base's {what} files cannot be listed"
        assert ours <= base, what


@pytest.mark.parametrize(
    "program", ["gcc", "g++", "cc", "make", "cmake", "ninja", "pip", "pip3", "git", "nvcc", "curl", "wget"]
)
def test_no_build_tool_is_left(host: Host, program: str) -> None:
    assert not host.exists(program)


def test_no_test_code_headers_caches_or_package_lists(still: Container) -> None:
    names = ["tests", "test", "*.pyx", "*.c", "*.h", "*.hpp", "*.a", "*.whl", "*.gguf", "pip", "setuptools"]
    condition = " -o ".join(f"-name '{name}'" for name in names)
    assert still.exec("sh", "-c", f"find {HOME} {condition}") == ""
    folders = "/var/lib/apt/lists /var/cache/apt /root/.cache /home/appliance"
    left = still.exec("sh", "-c", f"find {folders} -mindepth 1 2>/dev/null", user="0", check=False)
    assert left == ""


def test_only_the_locked_packages_are_installed(still: Container) -> None:
    from image.scripts import lock

    code = (
        "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    )
    found = lock.pins(still.exec(f"{HOME}/venv/bin/python", "-I", "-c", code))
    locked = lock.RUNTIME_LOCK.read_text(encoding="utf-8")
    assert [f"{name}=={version}" for name, version in found.items() if f"{name}=={version}" not in locked] == []
    direct, _ = lock.wanted((lock.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert direct.items() <= found.items()


def test_every_module_of_ours_imports_without_a_warning_and_is_compiled(still: Container) -> None:
    """Nothing that was pruned is needed; the byte code is there, because a read-only root could not keep any."""
    code = (
        "import importlib, pkgutil, sys, llama_gguf\n"
        "for module in pkgutil.walk_packages(llama_gguf.__path__, 'llama_gguf.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "loose = [name for name, m in sys.modules.items() if name.startswith('llama_gguf')\n"
        "         and not __import__('os').path.exists(m.__spec__.cached)]\n"
        "print('not compiled:', loose) if loose else print('fine')\n"
    )
    said = still.exec(f"{HOME}/venv/bin/python", "-I", "-W", "error", "-c", code)
    assert said.strip() == "fine"


def test_engine_files_resolve_every_library(still: Container, variant: recipe.Variant) -> None:
    files = still.exec("find", f"{HOME}/engine/bin", f"{HOME}/engine/lib", "-type", "f").split()
    assert f"{HOME}/engine/bin/llama-server" in files
    missing = set()
    for file in files:
        missing |= set(re.findall(r"(\S+) => not found", still.exec("ldd", file)))
    assert missing <= ({DRIVER} if variant.cuda else set())


def test_engine_is_complete_and_nothing_is_there_twice(still: Container, variant: recipe.Variant) -> None:
    names = still.exec("ls", f"{HOME}/engine/bin").split()
    architecture = still.exec("uname", "-m").strip()
    assert [name for name in names if not name.startswith("libggml-")] == ["llama-server"]
    if architecture == "x86_64":
        assert {"libggml-cpu-x64.so", "libggml-cpu-haswell.so", "libggml-cpu-zen4.so"} <= set(names)
    assert ("libggml-cuda.so" in names) == bool(variant.cuda)
    sums = [line.split()[0] for line in still.exec("sh", "-c", f"sha256sum {HOME}/engine/*/*").splitlines()]
    assert len(sums) == len(set(sums))
    libraries = set(still.exec("ls", f"{HOME}/engine/lib").split())
    assert set(recipe.load().runtime_libraries(variant)) <= libraries


SCORES = """
import json, subprocess, sys
from pathlib import Path
from llama_gguf.engine.cpu_libraries import can_select_variant, find_libraries
from llama_gguf.cpu import read_cpu
from llama_gguf.engine.cpu_variants import supported
from llama_gguf.engine.variant_choice import this_machine

# A process for each: two variants in one would share their symbols.
SCORE = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).ggml_backend_score())"
binary = Path(sys.argv[1])
libraries = find_libraries(binary)
scores = {
    name: int(subprocess.run([sys.executable, "-I", "-c", SCORE, path], capture_output=True, check=True).stdout)
    for name, path in libraries.items()
}
machine = this_machine()
ours = supported(machine.table, read_cpu(machine.cpuinfo).flags)
print(json.dumps({"told": can_select_variant(binary), "table": [*machine.table], "scores": scores, "ours": ours}))
"""


def test_cpu_variants_are_those_we_know_and_rank_as_ggml_ranks_them(still: Container) -> None:
    said = still.exec(f"{HOME}/venv/bin/python", "-I", "-c", SCORES, f"{HOME}/engine/bin/llama-server")
    found = json.loads(said)
    scores: dict[str, int] = found["scores"]
    assert found["told"], "this engine does not know GGML_CPU_VARIANT"
    assert set(scores) == set(found["table"])
    # ggml asks the CPU alone: it may count a variant in whose instructions the system has not enabled, and we do not.
    assert {name for name in found["ours"] if not scores[name]} == set()
    assert found["ours"] == sorted(found["ours"], key=lambda name: -scores[name])
    assert len({scores[name] for name in found["ours"]}) == len(found["ours"])


def test_no_secret_in_environment_history_or_files(facts: dict[str, Any], still: Container) -> None:
    suspicious = re.compile(r"(token|secret|password|passwd|api_?key|credential)", re.IGNORECASE)
    names = [entry.partition("=")[0] for entry in facts["Config"]["Env"]]
    assert not [name for name in names if suspicious.search(name)]
    history = podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", facts["Id"]).stdout
    assert not re.search(r"(token|secret|password|api_?key)=\S", history, re.IGNORECASE)
    assert not re.search(r"sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}", history)
    pattern = "BEGIN ([A-Z]+ )?PRIVATE KEY|hf_[A-Za-z0-9]{30,}"
    places = [HOME, "/etc/llama-gguf", "/home", "/data"]
    assert still.exec("grep", "-rlE", pattern, *places, check=False) == ""
    assert "pip-cert" not in still.exec("sh", "-c", "ls -A /run /run/secrets 2>/dev/null", check=False, user="0")


def test_no_layer_brings_a_secret_not_even_one_that_a_later_layer_hides(image: str, tmp_path: Path) -> None:
    copy = ["skopeo", "copy", "--quiet", "--dest-compress", f"containers-storage:{image}", f"dir:{tmp_path}"]
    subprocess.run(copy, check=True)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    suspicious = re.compile(
        r"(\.netrc|\.env|\.git|pip\.conf|pip-cert|id_(rsa|ed25519)|.*\.key|.*token.*\.json|secrets)"
    )
    found = []
    for layer in manifest["layers"]:
        with tarfile.open(tmp_path / layer["digest"].removeprefix("sha256:")) as archive:
            names = (PurePosixPath(name) for name in archive.getnames())
            found += [str(name) for name in names if suspicious.fullmatch(name.name.removeprefix(".wh."))]
    assert found == []


def test_size_limits(image: str, variant: recipe.Variant) -> None:
    layers = image_size.measure(image)
    assert image_size.exceeded(layers, variant.name) == []
    code = [layer.compressed for layer in layers if layer.owner == "ours: code"]
    assert sum(code) < 2_000_000, "a change in our code should re-pull little"
    assert [layer.owner for layer in layers][-1] == "ours: versions"
