"""The pure parts of the image scripts: tags, sizes, closure of libraries, pins, notes, the gate, the health check."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from image.engine import cuda_toolkit, recipe
from image.scripts import (
    bases,
    build_image,
    gate,
    healthcheck,
    image_size,
    lock,
    matrix,
    publish,
    release_notes,
    stage_engine,
    stage_python,
    stage_versions,
    tags,
)

from llama_gguf.rundir import snapshot
from llama_gguf.settings import RUN_DIR_VARIABLE, parse
from llama_gguf.settings.hosts import from_here
from llama_gguf.settings.locations import RunDir, locate

DIGEST = "sha256:" + "ab" * 32


# --- tags


@pytest.mark.parametrize(
    ("ref", "existing", "cpu", "cuda"),
    [
        (
            "refs/tags/v1.2.3",
            [],
            ["cpu-1.2.3", "cpu-1.2", "cpu-1", "cpu"],
            ["1.2.3", "1.2", "1", "latest", "cuda-1.2.3", "cuda-1.2", "cuda-1", "cuda"],
        ),
        # A patch for an older line moves only that line.
        (
            "refs/tags/v1.2.4",
            ["v1.3.0", "v1.2.3"],
            ["cpu-1.2.4", "cpu-1.2"],
            ["1.2.4", "1.2", "cuda-1.2.4", "cuda-1.2"],
        ),
        (
            "refs/tags/v1.3.1",
            ["v1.3.0", "v2.0.0"],
            ["cpu-1.3.1", "cpu-1.3", "cpu-1"],
            ["1.3.1", "1.3", "1", "cuda-1.3.1", "cuda-1.3", "cuda-1"],
        ),
        # Numbers, not text: 1.10 is newer than 1.9. A pre-release of something newer holds nothing back.
        (
            "refs/tags/v1.10.0",
            ["v1.9.0", "v2.0.0-rc.1"],
            ["cpu-1.10.0", "cpu-1.10", "cpu-1", "cpu"],
            ["1.10.0", "1.10", "1", "latest", "cuda-1.10.0", "cuda-1.10", "cuda-1", "cuda"],
        ),
        ("refs/tags/v2.0.0-rc.1", ["v1.0.0"], ["cpu-2.0.0-rc.1"], ["2.0.0-rc.1", "cuda-2.0.0-rc.1"]),
        # A tag that exists already (a run repeated) is itself among the existing ones.
        ("refs/tags/v0.1.0", ["v0.1.0"], ["cpu-0.1.0", "cpu-0.1", "cpu-0", "cpu"], None),
        (
            "refs/heads/main",
            ["v1.0.0"],
            ["cpu-sha-0123456789ab", "cpu-edge"],
            ["sha-0123456789ab", "edge", "cuda-sha-0123456789ab", "cuda-edge"],
        ),
        ("refs/heads/feature/x", [], ["cpu-sha-0123456789ab"], ["sha-0123456789ab", "cuda-sha-0123456789ab"]),
        ("refs/pull/7/merge", [], ["cpu-sha-0123456789ab"], None),
    ],
)
def test_tags_of_sample_refs(ref: str, existing: list[str], cpu: list[str], cuda: list[str] | None) -> None:
    recipes = recipe.load()
    for name, expected in (("cpu", cpu), ("cuda", cuda)):
        if expected is not None:
            prefixes = recipes.variant(name).tag_prefixes
            assert tags.image_tags(ref, "0123456789abcdef", prefixes, existing) == expected


@pytest.mark.parametrize("ref", ["refs/tags/v1.2", "refs/tags/1.2.3", "refs/tags/v01.2.3", "refs/tags/v1.2.3-final"])
def test_a_tag_that_is_no_release_is_an_error(ref: str) -> None:
    with pytest.raises(tags.TagError, match="is no release"):
        tags.image_tags(ref, "", ["cpu"], [])


def test_a_branch_needs_a_commit() -> None:
    with pytest.raises(tags.TagError, match="--sha"):
        tags.image_tags("refs/heads/main", "", ["cpu"], [])


def test_tags_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert tags.main(["--ref", "refs/tags/v1.0.0", "--variant", "cpu", "--existing", "v0.9.0"]) == 0
    assert capsys.readouterr().out.split() == ["cpu-1.0.0", "cpu-1.0", "cpu-1", "cpu"]
    assert tags.main(["--ref", "refs/tags/nonsense", "--variant", "cpu", "--existing", ""]) == 1
    assert tags.main(["--ref", "refs/tags/v1.0.0", "--variant", "nonsense", "--existing", ""]) == 1


@pytest.mark.parametrize(
    ("tag", "exact"),
    [
        ("1.2.3", True),
        ("cpu-1.2.3", True),
        ("cpu-1.2.3-rc.1", True),
        ("1.2", False),
        ("cpu-1", False),
        ("latest", False),
    ],
)
def test_only_whole_versions_are_never_moved(tag: str, exact: bool) -> None:
    assert tags.is_exact(tag) is exact


# --- the libraries of the engine


def test_closure_follows_libraries_and_names_what_is_missing() -> None:
    graph = {
        "llama-server": ["libllama.so.0", "libc.so.6", "libgomp.so.1"],
        "libllama.so.0": ["libggml.so.0", "libstdc++.so.6"],
        "libggml.so.0": ["libcuda.so.1", "libodd.so.9"],
    }
    found, missing = stage_engine.closure(
        ["llama-server"], lambda name: graph.get(name, []), graph.__contains__, frozenset({"libcuda.so.1"})
    )
    assert found == {"libllama.so.0", "libggml.so.0"}
    assert missing == {"libodd.so.9"}


def test_needed_libraries_are_read_from_readelf() -> None:
    text = (
        " 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n 0x000e (SONAME) Library soname: [x]\n"
    )
    assert stage_engine.parse_needed(text) == ("libc.so.6",)


def test_unversioned_links_are_made_for_versioned_libraries_only() -> None:
    names = ["libcudart.so.13", "libcublas.so.13", "libx.a", "libnvrtc.so.13.0.48"]
    assert cuda_toolkit.link_names(names) == {"libcudart.so": "libcudart.so.13", "libcublas.so": "libcublas.so.13"}


def test_a_toolkit_is_completed_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    for folder in ("lib", "bin", "nvvm/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lib/libcudart.so.13").touch()
    for program in ("bin/nvcc", "nvvm/bin/cicc"):
        (tmp_path / program).touch(mode=0o644)
    first = cuda_toolkit.complete(tmp_path)
    assert cuda_toolkit.complete(tmp_path) == first
    assert (tmp_path / "lib64").resolve() == tmp_path / "lib"
    assert (tmp_path / "lib/libcudart.so").resolve() == tmp_path / "lib/libcudart.so.13"
    assert (tmp_path / "nvvm/bin/cicc").stat().st_mode & 0o111
    assert b"libcuda.so.1" in first.stub.read_bytes()
    assert f"-DCMAKE_CUDA_COMPILER={tmp_path}/bin/nvcc" in first.cmake_arguments()


def test_a_runtime_library_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "liba.so.1").write_bytes(b"a")
    cuda_toolkit.copy_runtime_libraries(tmp_path, ("liba.so.1",), tmp_path / "out")
    assert (tmp_path / "out/liba.so.1").read_bytes() == b"a"
    with pytest.raises(cuda_toolkit.ToolkitError, match="libb"):
        cuda_toolkit.copy_runtime_libraries(tmp_path, ("libb.so.1",), tmp_path / "out")


# --- the Python environment


def test_what_is_pruned_and_what_stays(tmp_path: Path) -> None:
    keep = [
        "aiohttp/web.py",
        "pygments/lexers/python.py",
        "pygments/lexers/__init__.py",
        "yaml/_yaml.so",
        "a.dist-info/RECORD",
    ]
    drop = [
        "aiohttp/_x.pyx",
        "pygments/lexers/cobol.py",
        "supervisor/tests/test_a.py",
        "x/__pycache__/y.pyc",
        "z/a.pyi",
    ]
    for name in (*keep, *drop):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    stage_python.prune(stage_python.pruned_paths(tmp_path))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(keep)


def test_compiled_code_is_taken_without_looking_at_the_source(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = 1\n", encoding="utf-8")
    assert stage_python.main(["--compile-only", str(tmp_path)]) == 0
    code = next(tmp_path.glob("__pycache__/*.pyc")).read_bytes()
    assert int.from_bytes(code[4:8], "little") == 0b01  # hash-based, unchecked


def test_code_that_does_not_compile_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("x = = 1\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="does not compile"):
        stage_python.compile_tree(tmp_path)


def test_versions_document(tmp_path: Path) -> None:
    engine = tmp_path / "engine.json"
    engine.write_text('{"package": "p==1"}', encoding="utf-8")
    said = ["--version", "1.0.0", "--commit", "c", "--created", "t", "--variant", "cpu", "--base", "b"]
    assert stage_versions.main(["--engine", str(engine), *said, "--out", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["engine"] == {"package": "p==1"}
    assert found["cuda"] is None
    assert found["base"] == "b"


# --- sizes


def write_image(folder: Path, steps: list[tuple[str, bytes]]) -> None:
    """Write an image in skopeo's `dir:` layout."""
    folder.mkdir(parents=True)
    layers, diffs = [], []
    for _, data in steps:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            info = tarfile.TarInfo("file")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        blob = gzip.compress(out.getvalue(), mtime=0)
        name = hashlib.sha256(blob).hexdigest()
        (folder / name).write_bytes(blob)
        layers.append({"digest": f"sha256:{name}"})
        diffs.append("sha256:" + hashlib.sha256(out.getvalue()).hexdigest())
    history: list[dict[str, object]] = [{"created_by": step} for step, _ in steps]
    history.insert(1, {"created_by": "ENV x", "empty_layer": True})
    (folder / "config").write_text(json.dumps({"history": history, "rootfs": {"diff_ids": diffs}}), encoding="utf-8")
    (folder / "manifest.json").write_text(
        json.dumps({"config": {"digest": "sha256:config"}, "layers": layers}), encoding="utf-8"
    )


STEPS = [
    ("debootstrap", b"b" * 5000),
    ("/bin/sh -c apt-get install -y python3", b"d" * 3000),
    ("COPY dir:1 in /opt/llama-gguf/engine/lib/", b""),
    ("COPY dir:2 in /opt/llama-gguf/engine/bin/", b"e" * 2000),
    ("COPY dir:3 in /opt/llama-gguf/venv/", b"v" * 1000),
    ("COPY dir:4 in /opt/llama-gguf/app/", b"a" * 500),
    ("COPY file:5 in /versions.json", b"{}"),
]


def test_layers_have_owners(tmp_path: Path) -> None:
    write_image(tmp_path / "image", STEPS)
    layers = image_size.read_layers(tmp_path / "image")
    owners = [layer.owner for layer in layers]
    assert owners == ["base", "debian", "cuda", "engine", "ours: packages", "ours: code", "ours: versions"]
    assert image_size.own_bytes(layers) == sum(layer.unpacked for layer in layers[-3:])
    assert "ours: packages" in image_size.table(layers)
    assert image_size.exceeded(layers, "cpu") == []


def test_limits_are_told_one_by_one() -> None:
    big = image_size.Layer("ours: code", "d", 130_000_000, 61_000_000, "")
    assert len(image_size.exceeded([big], "cpu")) == 2
    assert len(image_size.exceeded([big], "cuda")) == 1


# --- tools


def test_room_is_made_on_a_hosted_runner_only(tmp_path: Path) -> None:
    script = recipe.ROOT / "image/scripts/free-space.sh"
    (tmp_path / "sudo").write_text('#!/bin/sh\necho "sudo $*"\n', encoding="utf-8")
    (tmp_path / "sudo").chmod(0o755)

    def run(where: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RUNNER_ENVIRONMENT": where}
        return subprocess.run(["/bin/bash", str(script)], env=env, capture_output=True, text=True, check=False)

    assert run("self-hosted").returncode == 1
    assert "sudo" not in run("").stdout
    assert run("github-hosted").stdout.startswith("sudo rm -rf /usr/local/lib/android ")


# --- the engine in the image


def test_versions_tell_the_engines_build_its_flags_and_that_it_is_patched(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\necho 'version: 1 (abc)' >&2\necho 'built with cc' >&2\n", encoding="utf-8")
    program.chmod(0o755)
    patches = tmp_path / "patches.cmake"
    patches.write_bytes(b"edit")
    assert stage_engine.describe(program, "0.3.36", ("-DA=ON",), patches) == {
        "package": "llama-cpp-python==0.3.36",
        "llama_cpp": "1 (abc)",
        "patched_by": {"file": "patches.cmake", "sha256": hashlib.sha256(b"edit").hexdigest()},
        "flags": ["-DA=ON"],
    }
    program.write_text("#!/bin/sh\necho usage\n", encoding="utf-8")
    with pytest.raises(stage_engine.StageError, match="prints no version"):
        stage_engine.describe(program, "0.3.36", (), patches)


def test_an_engine_that_the_image_build_compiled_is_kept_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else the cache holds: a wheel of other flags does not stand in the way."""
    contexts, cache = tmp_path / "contexts", tmp_path / "cache"
    (contexts / "engine-cache/old").mkdir(parents=True)
    cache.mkdir()
    commands: list[list[str]] = []

    def run(command: list[str]) -> None:
        commands.append(command)
        (contexts / "fetched/new").mkdir(parents=True)
        (contexts / "fetched/new/a.whl").write_bytes(b"wheel")

    monkeypatch.setattr(build_image, "_run", run)
    assert build_image.cache_compiled(["buildah", "build", "."], contexts, cache) == [cache / "new"]
    assert commands == [["buildah", "build", "--output", str(contexts / "fetched"), "."]]
    assert (cache / "new/a.whl").read_bytes() == (contexts / "engine-cache/new/a.whl").read_bytes() == b"wheel"


def test_a_build_that_compiled_nothing_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_image, "_run", lambda _command: (tmp_path / "fetched").mkdir())
    assert build_image.cache_compiled(["buildah", "."], tmp_path, tmp_path / "cache") == []


# --- bases and arguments of the build


def test_a_digest_is_written_into_its_own_line_and_nowhere_else() -> None:
    text = recipe.VARIANTS_FILE.read_text(encoding="utf-8")
    changed = bases.with_digest(bases.with_digest(text, "cuda12-devel", DIGEST), "debian", "sha256:" + "cd" * 32)
    assert changed.count("sha256:") == text.count("sha256:") + 2 - text.count("digest: sha256:")
    import yaml

    found = recipe.parse(yaml.safe_load(changed))
    assert found.bases["cuda12-devel"].digest == DIGEST
    assert found.bases["debian"].digest == "sha256:" + "cd" * 32
    assert len(changed.splitlines()) == len(text.splitlines())


@pytest.mark.parametrize(("name", "digest"), [("debian", "latest"), ("nobody", DIGEST)])
def test_what_cannot_be_pinned_is_an_error(name: str, digest: str) -> None:
    with pytest.raises(bases.BaseError):
        bases.with_digest(recipe.VARIANTS_FILE.read_text(encoding="utf-8"), name, digest)


def test_which_base_is_chosen() -> None:
    base = recipe.Base("docker.io/library/debian", "12-slim", None, "bookworm")
    pinned = recipe.Base("docker.io/library/debian", "12-slim", DIGEST, "bookworm")
    local = "localhost/llama-gguf-base:bookworm"
    assert build_image.choose_base(base, "auto", exists=True) == local
    assert build_image.choose_base(base, "auto", exists=False) == "docker.io/library/debian:12-slim"
    assert build_image.choose_base(base, "registry", exists=True) == "docker.io/library/debian:12-slim"
    assert build_image.choose_base(pinned, "pinned", exists=True).endswith(f"12-slim@{DIGEST}")
    assert build_image.choose_base(pinned, "newest", exists=True) == "docker.io/library/debian:12-slim"
    assert build_image.pinning_note("docker.io/library/debian:12-slim").endswith("not pinned by digest)")
    assert build_image.pinning_note(pinned.reference) == build_image.pinning_note(local) == ""
    with pytest.raises(build_image.ImageError, match="make base-image"):
        build_image.choose_base(base, "local", exists=False)
    with pytest.raises(build_image.ImageError, match="no digest"):
        build_image.choose_base(base, "pinned", exists=False)


def test_arguments_of_the_build() -> None:
    recipes = recipe.load()
    identity = build_image.Identity("1.0.0", "c" * 40, "2026-01-01T00:00:00+00:00")
    names = {"build": "b", "runtime": "r"}
    cpu = build_image.build_arguments(recipes, recipes.variant("cpu"), identity, names, {})
    cuda12 = build_image.build_arguments(
        recipes, recipes.variant("cuda12"), identity, names, {"GITHUB_REPOSITORY": "me/it"}
    )
    assert (cpu["CUDA_VERSION"], cpu["CUDA_LIBRARIES"], cpu["SOURCE"]) == ("", "", "")
    assert (cuda12["CUDA_VERSION"], cuda12["CUDA_LIBRARIES"]) == ("12.8", "/usr/local/cuda/lib64")
    assert cuda12["SOURCE"] == "https://github.com/me/it"
    command = build_image.command_line(recipes, cpu, Path("/contexts"), "cpu", ["--tag", "x"])
    assert command[-3:] == ["--tag", "x", "."]
    assert "engine-cache=/contexts/engine-cache" in command
    assert "docker" in command  # OCI's format has no health check


# --- locks, matrix, gate, notes, publishing


def test_locks_say_what_pyproject_says() -> None:
    assert lock.check() == []


def test_a_stale_or_unhashed_lock_is_told() -> None:
    assert lock.differences({"aiohttp": "2"}, {"aiohttp": "1"}) == ["aiohttp: pyproject.toml has 2, the lock 1"]
    assert lock.differences({"aiohttp": "2"}, {}) == ["aiohttp: pyproject.toml has 2, the lock nothing"]
    assert lock.unhashed("a==1 \\\n    --hash=sha256:0\nb==2\n") == ["b==2"]
    assert lock.pins("Foo_Bar[x]==1.2 ; python_version\n    # via a==3\n") == {"foo-bar": "1.2"}


def test_matrix_has_every_platform_and_hosted_ones_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    plain = matrix.entries(recipe.load(), hosted=False)
    assert {(entry["variant"], entry["architecture"]) for entry in plain} == {
        ("cpu", "amd64"),
        ("cpu", "arm64"),
        ("cuda", "amd64"),
    }
    assert matrix.variants(matrix.entries(recipe.load(), hosted=True)) == ["cpu", "cuda", "cuda12"]
    assert len({entry["engine"] for entry in plain}) == len(plain)
    assert matrix.main([]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first.removeprefix("matrix="))["include"] == plain
    assert json.loads(second.removeprefix("variants=")) == ["cpu", "cuda"]


def test_the_engines_cache_key_is_that_of_its_build_on_the_builders_base() -> None:
    recipes = recipe.load()
    cpu = recipes.variant("cpu")
    version = recipe.engine_version(recipe.ENGINE_LOCK.read_text(encoding="utf-8"))
    found = matrix.engine_key(recipes, cpu, "arm64")
    assert found.startswith(f"{version}-cpu-aarch64-")
    machine = recipe.Machine("aarch64", recipes.bases["debian"].tag, "", ())
    given = (recipes, cpu, version, recipe.cmake_arguments(cpu), machine)
    patches = recipe.PATCHES_FILE.read_text(encoding="utf-8")
    assert found == recipe.cache_key(*given, patches=patches)
    assert found != recipe.cache_key(*given, patches=patches + "# one edit more\n")


@pytest.mark.parametrize(
    ("results", "may_skip", "code"),
    [
        ({"a": "success", "b": "success"}, [], 0),
        ({"a": "success", "b": "failure"}, [], 1),
        ({"a": "success", "b": "skipped"}, [], 1),
        ({"a": "success", "b": "skipped"}, ["b"], 0),
        ({"a": "cancelled"}, ["a"], 1),
        ({}, [], 1),
    ],
)
def test_gate(monkeypatch: pytest.MonkeyPatch, results: dict[str, str], may_skip: list[str], code: int) -> None:
    monkeypatch.setenv("NEEDS", json.dumps({name: {"result": result} for name, result in results.items()}))
    assert gate.main([word for job in may_skip for word in ("--may-skip", job)]) == code


CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 1.2.0 — 2026-01-01\n\n- New.\n\n## 1.1.0\n\n- Old.\n"


def test_release_notes_are_the_versions_section() -> None:
    assert release_notes.section(CHANGELOG, "1.2.0") == "- New."
    assert release_notes.section(CHANGELOG, "1.1.0") == "- Old."
    assert release_notes.check("1.2.0", '__version__ = "1.2.0"\n', CHANGELOG) == "- New."


def test_a_release_that_does_not_agree_with_itself_is_stopped() -> None:
    with pytest.raises(release_notes.NotesError, match=r"says 1\.1\.0"):
        release_notes.check("1.2.0", '__version__ = "1.1.0"\n', CHANGELOG)
    with pytest.raises(release_notes.NotesError, match="no notes"):
        release_notes.section(CHANGELOG, "1.2")
    with pytest.raises(release_notes.NotesError, match="unreleased"):
        release_notes.section("## 1.2.0 (unreleased)\n\n- New.\n", "1.2.0")
    with pytest.raises(release_notes.NotesError, match="no release"):
        release_notes.version_of("refs/tags/1.2.0")
    assert release_notes.version_of("refs/tags/v1.2.0-rc.1") == "1.2.0-rc.1"


def test_a_hub_that_would_build_another_image_is_told() -> None:
    assert release_notes.hub_note("# x\nFROM ghcr.io/me/it:cuda-1.0.0\n", "Me/It") == ""
    assert "ghcr.io/me/it" in release_notes.hub_note("FROM ghcr.io/OWNER/it:cuda-1.0.0\n", "Me/It")
    assert release_notes.hub_note("FROM ghcr.io/OWNER/it:cuda-1.0.0\n", "") == ""


def test_release_notes_tell_sizes(tmp_path: Path) -> None:
    write_image(tmp_path / "cpu-amd64", STEPS)
    assert "| cpu-amd64 | 0 MB | 0 MB | 0 MB |" in release_notes.size_table([tmp_path / "cpu-amd64"])


def test_staging_names_are_lower_case_and_of_their_run() -> None:
    name = publish.staging_reference("ghcr.io/Me/It", "17-1", "cpu", "arm64")
    assert name == "ghcr.io/me/it:build-17-1-cpu-arm64"
    assert publish.staging_reference("ghcr.io/me/it", "17-1", "cpu") == "ghcr.io/me/it:build-17-1-cpu"


def test_pushing_without_an_architecture_fails_and_leaves_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def note(command: list[str]) -> str:
        calls.append(command)
        return ""

    monkeypatch.setattr(publish, "_run", note)
    (tmp_path / "cpu-amd64").mkdir()
    with pytest.raises(publish.PublishError, match="arm64"):
        publish.push(recipe.load().variant("cpu"), tmp_path, "ghcr.io/me/it", "1")
    assert calls[-1][:3] == ["buildah", "manifest", "rm"]
    assert not [command for command in calls if command[:3] == ["buildah", "manifest", "push"]]


@pytest.mark.parametrize(
    ("name", "present", "outcome"),
    [
        ("cpu-1.2.3", None, ["cpu-1.2.3"]),
        ("cpu-1.2.3", DIGEST, ["cpu-1.2.3"]),
        ("cpu-1.2.3", "sha256:other", None),
        ("cpu-sha-0123456789ab", "sha256:other", []),
        ("latest", "sha256:other", ["latest"]),
    ],
)
def test_published_versions_are_never_moved(
    monkeypatch: pytest.MonkeyPatch, name: str, present: str | None, outcome: list[str] | None
) -> None:
    calls: list[list[str]] = []

    def note(command: list[str]) -> str:
        calls.append(command)
        return ""

    monkeypatch.setattr(publish, "_run", note)
    monkeypatch.setattr(publish, "published_digest", lambda _reference: present)
    if outcome is None:
        with pytest.raises(publish.PublishError, match="never moved"):
            publish.tag("ghcr.io/Me/It", DIGEST, [name])
        assert calls == []
        return
    assert publish.tag("ghcr.io/Me/It", DIGEST, [name]) == outcome
    assert [command[-1] for command in calls] == [f"docker://ghcr.io/me/it:{given}" for given in outcome]


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        (f"echo {DIGEST}", DIGEST),
        ("echo 'reading manifest 1.2.3 in ghcr.io/me/it: manifest unknown' >&2; exit 1", None),
        ("echo 'dial tcp: i/o timeout' >&2; exit 1", publish.PublishError),
    ],
)
def test_only_a_registrys_own_no_means_that_a_version_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, outcome: object
) -> None:
    (tmp_path / "skopeo").write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    (tmp_path / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if outcome is publish.PublishError:
        with pytest.raises(publish.PublishError, match="timeout"):
            publish.published_digest("ghcr.io/me/it:1.2.3")
    else:
        assert publish.published_digest("ghcr.io/me/it:1.2.3") == outcome


# --- the health check


@contextmanager
def answering(status_line: bytes) -> Iterator[int]:
    """A server that answers one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(status_line)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def run_dir(tmp_path: Path, port: int) -> Path:
    """A run directory as `up` leaves it: the check reads what our own code writes."""
    settings = parse({"model": {"name": "a.gguf"}, "health": {"port": port, "path": "/alive"}})
    run = RunDir(root=tmp_path)
    snapshot.write(snapshot.Snapshot(settings, locate(settings, {})), run.snapshot)
    return tmp_path


def test_the_run_directory_is_found_under_the_name_that_up_gives() -> None:
    assert f"{RUN_DIR_VARIABLE}=".encode() == healthcheck.VARIABLE
    assert all(from_here(host) == reached for host, reached in healthcheck.WILDCARDS.items())


@pytest.mark.parametrize(
    ("status_line", "verdict"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", (0, "200 ready")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (1, "204 starting")),
        (b"HTTP/1.1 500 Oops\r\n\r\n", (1, "500 not ready")),
        (b"", (1, "no response")),
        (b"garbage\r\n", (1, "no response")),
    ],
)
def test_health_check_says_what_the_server_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status_line: bytes,
    verdict: tuple[int, str],
) -> None:
    with answering(status_line) as port:
        monkeypatch.setattr(healthcheck, "find_run_dir", lambda: str(run_dir(tmp_path, port)))
        assert healthcheck.main() == verdict[0]
    assert capsys.readouterr().out.startswith(verdict[1])


def test_health_check_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(healthcheck, "find_run_dir", lambda: None)
    assert healthcheck.main() == 1
    assert "not running yet" in capsys.readouterr().out
    monkeypatch.setattr(healthcheck, "find_run_dir", lambda: str(tmp_path / "nowhere"))
    assert healthcheck.main() == 1


def test_health_check_finds_the_run_directory_in_a_programs_environment(tmp_path: Path) -> None:
    for pid, environ in (("1", b"A=1\0"), ("20", b"B=2\0LLAMA_GGUF_RUN_DIR=/run/x\0"), ("self", b"")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "environ").write_bytes(environ)
    (tmp_path / "3").mkdir()  # gone between listing and reading
    assert healthcheck.find_run_dir(str(tmp_path)) == "/run/x"
    assert healthcheck.find_run_dir(str(tmp_path / "1")) is None
