"""The proof of an engine: its models, its judgement, and what it says of engines that die, lie or say nothing."""

from __future__ import annotations

import hashlib
import itertools
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from image.engine import compiler, proof, proof_model, proof_record, recipe

from support import proof_server

EXPECTED = proof.load_expected()
FEW = {name: EXPECTED[name] for name in ("F16", "Q4_0", "Q4_K")}
KINDS = {kind.name: kind for kind in proof_model.WEIGHT_TYPES}
MACHINE = recipe.Machine("x86_64", "glibc2.36", "A CPU", ("avx", "avx2"))


@pytest.mark.parametrize("kind", proof_model.WEIGHT_TYPES, ids=lambda kind: kind.name)
def test_gguf_reads_the_models_and_their_weights_are_small_numbers_around_zero(
    kind: proof_model.WeightType, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(proof_model.model(kind))
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 2 + 1 + proof_model.LAYERS * 9
    down = tensors["blk.1.ffn_down.weight"]
    assert down.tensor_type.name == kind.name
    assert list(down.shape) == [proof_model.FEED_FORWARD, proof_model.WIDTH]
    values = gguf.quants.dequantize(down.data, down.tensor_type)
    assert np.isfinite(values).all()
    assert abs(float(values.mean())) < 0.03
    assert 0.02 < float(values.std()) < 0.2


def test_the_same_model_is_written_everywhere() -> None:
    digest = hashlib.sha256(b"".join(proof_model.model(kind) for kind in proof_model.WEIGHT_TYPES))
    assert digest.hexdigest() == "80b3bab441517358cec1a60c28433e160187f20d29010c6460b0d9825a4fc773"


def test_every_type_has_an_expectation_and_it_is_a_distribution_that_depends_on_the_weights() -> None:
    assert set(EXPECTED) == set(KINDS)
    assert {"F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"} <= set(EXPECTED)
    for name, expected in EXPECTED.items():
        assert len(expected.log_probabilities) == proof.STEPS, name
        for step in expected.log_probabilities:
            assert math.fsum(map(math.exp, step)) == pytest.approx(1.0, abs=0.01)
            assert np.std(step) > 2 * expected.tolerance
    # An engine that gave one type's answer for another's would not pass.
    for name, expected in EXPECTED.items():
        others = [
            proof.judge(name, other.log_probabilities, expected) for key, other in EXPECTED.items() if key != name
        ]
        assert not any(result.passed for result in others), name


def test_the_prompt_is_of_ordinary_tokens_and_never_the_same_twice_in_a_row() -> None:
    tokens = proof.prompt(200)
    assert min(tokens) >= 4
    assert max(tokens) < proof_model.VOCABULARY
    assert all(a != b for a, b in itertools.pairwise(tokens))


@pytest.mark.parametrize(
    ("off", "passes"), [(0.0, True), (0.29, True), (-0.29, True), (0.31, False), (math.nan, False)]
)
def test_judgement(off: float, passes: bool) -> None:
    expected = proof.Expectation(0.3, ((-1.0, -2.0), (-3.0, -4.0)))
    result = proof.judge("Q4_0", [[-1.0, -2.0], [-3.0 + off, -4.0]], expected)
    assert result.passed is passes
    assert passes or "wrong values" in result.failure


def test_a_good_engine_passes(tmp_path: Path) -> None:
    server = proof_server.write(tmp_path / "llama-server")
    results = proof.prove(server, expected=FEW)
    assert [result.weight_type for result in results] == ["F16", "Q4_0", "Q4_K"]
    assert all(result.passed and result.deviation == 0 for result in results)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("dies at start", "llama-server was terminated by SIGILL; its last line: the last line"),
        ("dies", "llama-server was terminated by SIGILL"),
        ("exits", "llama-server exited with status 3; its last line: error: no such thing"),
        ("nonsense", "the response lacks log-probabilities"),
        ("not a number", "wrong values: off by inf"),
        (2.5, "wrong values: off by 2.500, tolerance 0.300"),
    ],
)
def test_each_failure_is_told_with_its_cause_and_the_other_types_go_on(
    tmp_path: Path, fault: object, words: str
) -> None:
    server = proof_server.write(tmp_path / "llama-server", faults={"Q4_0": fault})
    results = {result.weight_type: result for result in proof.prove(server, expected=FEW)}
    assert results["F16"].passed
    assert results["Q4_K"].passed
    assert not results["Q4_0"].passed
    assert words in results["Q4_0"].failure


def test_what_a_busy_machine_can_do_too_is_tried_once_more_alone(tmp_path: Path) -> None:
    server = proof_server.write(tmp_path / "llama-server", faults=dict.fromkeys(FEW, "killed once"))
    assert all(result.passed for result in proof.prove(server, expected=FEW))
    server = proof_server.write(tmp_path / "llama-server", faults={"Q4_0": "killed"})
    results = {result.weight_type: result for result in proof.prove(server, expected=FEW)}
    assert [name for name, result in results.items() if not result.passed] == ["Q4_0"]
    assert "llama-server was terminated by SIGKILL" in results["Q4_0"].failure


def test_a_program_that_cannot_be_run_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    server = tmp_path / "llama-server"
    server.write_text("no program", encoding="utf-8")
    server.chmod(0o755)
    assert all("cannot be run" in result.failure for result in proof.prove(server, expected=FEW))


def test_nothing_is_left_running_and_nothing_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    server = proof_server.write(tmp_path / "llama-server", faults={"Q4_0": "nonsense"})
    proof.prove(server, expected=FEW)
    assert list((tmp_path / "tmp").iterdir()) == []
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert not [line for line in running if str(server).encode() in line]


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_the_command_prints_a_line_a_type_and_fails_with_the_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proof_server.write(tmp_path / "llama-server", faults={"Q6_K": 1.0}, mended_by="--no-repack")
    monkeypatch.chdir(tmp_path)
    server = Path("llama-server")  # relative to where the person is, not to where it runs
    assert proof.main(["--server", str(server)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXPECTED)
    assert [line for line in lines if "FAILED" in line] == [
        "Q6_K     FAILED wrong values: off by 1.000, tolerance 0.300"
    ]
    assert proof.main(["--server", str(server), "--option=--no-repack"]) == 0


def make_wheel(folder: Path, **knobs: object) -> Path:
    server = proof_server.write(folder / "llama-server", **knobs)
    path = folder / "engine.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(server, "bin/llama-server")
    return path


def test_a_wheel_is_proven_for_one_cpu_and_for_today_s_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "load_expected", lambda: FEW)
    passed = proof_record.prove_wheel(make_wheel(tmp_path), MACHINE, tmp_path)
    assert not passed.failures
    folder = tmp_path / "cache"
    folder.mkdir()
    assert not proof_record.is_proven(folder, MACHINE)
    proof_record.write(folder, passed, without=("AMX",))
    assert proof_record.is_proven(folder, MACHINE)
    other = recipe.Machine("x86_64", "glibc2.36", "A CPU", ("avx",))
    assert not proof_record.is_proven(folder, other)
    proof_record.write(folder, proof_record.Proof(other.cpu, passed.results))
    assert proof_record.is_proven(folder, other)
    assert proof_record.is_proven(folder, MACHINE)
    assert '"without": [\n  "AMX"\n ]' in (folder / proof_record.RECORD).read_text(encoding="utf-8")
    monkeypatch.setattr(proof_record, "state", lambda: "another proof")
    assert not proof_record.is_proven(folder, MACHINE)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"proven": []}', '{"proven": {"A CPU avx avx2": 1}}', "\0"])
def test_a_damaged_record_proves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / proof_record.RECORD).write_text(text, encoding="utf-8")
    assert not proof_record.is_proven(tmp_path, MACHINE)


def test_failures_of_one_cause_stand_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "load_expected", lambda: FEW)
    wheel = make_wheel(tmp_path, faults={"Q4_0": "exits", "Q4_K": "exits", "F16": 1.0}, mended_by="--no-repack")
    failed = proof_record.prove_wheel(wheel, MACHINE, tmp_path)
    ended = "llama-server exited with status 3; its last line: error: no such thing"
    assert failed.text().splitlines() == [
        "  the engine, weights of F16: wrong values: off by 1.000, tolerance 0.100",
        f"  the engine, weights of Q4_0, Q4_K: {ended}",
    ]
    assert proof_record.works_without_extra_buffers(wheel, tmp_path)


def test_where_no_program_may_run_no_engine_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A /tmp that is mounted noexec is not used, and a cache that is takes no instruction from the next build."""
    servers: list[Path] = []

    def prove(server: Path, **_: object) -> tuple[proof.Result, ...]:
        servers.append(server)
        return ()

    monkeypatch.setattr(proof, "prove", prove)
    wheel = make_wheel(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    proof_record.prove_wheel(wheel, MACHINE, cache)
    proof_record.works_without_extra_buffers(wheel, cache)
    assert len(servers) == 2
    assert all(cache in server.parents for server in servers)
    monkeypatch.setattr("image.engine.wheel.unpack", lambda *_: tmp_path / "absent")
    for ask in (
        lambda: proof_record.prove_wheel(wheel, MACHINE, cache),
        lambda: proof_record.works_without_extra_buffers(wheel, cache),
    ):
        with pytest.raises(compiler.BuildError, match=r"noexec.*XDG_CACHE_HOME"):
            ask()
    assert list(cache.iterdir()) == []


@pytest.mark.engine
def test_the_engine_of_this_machine_passes(engine_binary: Path) -> None:
    results = proof.prove(engine_binary)
    assert {result.weight_type for result in results} == set(KINDS)
    assert [result for result in results if not result.passed] == []


@pytest.mark.engine
def test_weights_that_are_changed_are_noticed(
    engine_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof can fail on the real engine: with one matrix of another seed its numbers are far off."""
    original = proof_model.weights

    def changed(kind: proof_model.WeightType, name: str, elements: int) -> bytes:
        return original(kind, name + "!" * (name == "blk.1.attn_v.weight"), elements)

    monkeypatch.setattr(proof_model, "weights", changed)
    results = proof.prove(engine_binary, expected={name: EXPECTED[name] for name in ("F16", "Q8_0", "Q6_K")})
    assert not any(result.passed for result in results)


def test_time_is_bounded_when_an_engine_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_START_SECONDS", 0.5)
    server = tmp_path / "llama-server"
    server.write_text("#!/bin/sh\nexec sleep 600\n", encoding="utf-8")  # longer than a test may take
    server.chmod(0o755)
    results = proof.prove(server, expected=FEW)
    assert all("not ready after" in result.failure for result in results)


def test_variants_are_ranked_by_their_own_scores_and_one_that_crashes_is_none(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or pytest.fail("no C compiler: run `make test-tools`")
    folder = tmp_path / "bin"
    folder.mkdir()
    bodies = {"low": "return 1;", "high": "return 64;", "not-here": "return 0;", "crashing": "__builtin_trap();"}
    for name, body in bodies.items():
        source = tmp_path / f"{name}.c"
        source.write_text(f"int ggml_backend_score(void) {{ {body} return 0; }}\n", encoding="utf-8")
        library = folder / f"libggml-cpu-{name}.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert proof.variants(folder / "llama-server") == ("high", "low")
    assert proof.variants(Path(sys.executable)) == ()
