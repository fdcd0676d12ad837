"""A module's tests are found by its path, as tests/unit/keys/test_store.py for keys/store.py, or a list says where."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from docs.diagrams.import_graph import modules, sources

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "services" / "llama_gguf"
UNIT = ROOT / "tests" / "unit"

# Why modules have no test file of their own -> the modules.
NO_FILE_OF_ITS_OWN = {
    "golden pairs of settings and arguments: tests/golden/test_argv.py": "engine/tuning.py",
    "classes and constants without logic": """
        errors.py gateway/hold_time.py gateway/ratelimit/store.py gateway/http1/handler.py
        gateway/residency/model_state.py models/download/spec.py
        models/model_files.py settings/health_paths.py""",
    "sections of the configuration: tests/unit/settings/sections/test_settings.py, tests/golden/test_config.py": """
        settings/sections/auth.py settings/sections/base.py settings/sections/engine.py settings/sections/gateway.py
        settings/sections/engine_parts/reasoning.py settings/sections/engine_parts/rope.py
        settings/sections/engine_parts/shrink.py settings/sections/engine_parts/speculative.py
        settings/sections/health.py settings/sections/limits.py settings/sections/logging.py
        settings/sections/memory.py settings/sections/metrics.py settings/sections/model.py settings/sections/paths.py
        settings/sections/scope.py settings/sections/sources.py settings/sections/supervisor.py""",
    "entry points: tests/e2e/test_engine_exec.py, tests/e2e/test_gateway_process.py": """
        engine/__main__.py gateway/__main__.py""",
    "options and tables of commands, tested as a person runs them: tests/unit/cli/commands/test_keys.py": """
        cli/config_options.py cli/keys_options.py cli/keys_view.py""",
    "through whoever drives it: tests/unit/gateway/backends/test_residency_driver.py": "gateway/backends/managed.py",
    "through its command: tests/unit/cli/commands/test_plan.py": "cli/plan/data.py models/planning/weights.py",
    "through their commands: tests/unit/cli/commands/test_models.py": "cli/models_view.py cli/shelf.py",
    "the whole reference is compared: tests/unit/cli/commands/test_gen.py": "cli/generate/gateway_tables.py",
    "put together and driven over real sockets by every test of the gateway: tests/support/running_gateway.py": """
        gateway/app.py gateway/exchange.py gateway/backends/backend.py""",
    "through whole downloads from a real server: tests/unit/models/download/test_transfer.py": """
        models/download/background.py models/download/errors.py models/download/workers.py""",
    "through its users: tests/unit/models/test_http_url.py, tests/unit/models/hub/test_huggingface.py": """
        models/fetch_context.py models/hub/file.py""",
    "through the plan, held to llama-server: tests/unit/models/memory/test_plan.py": "models/memory/estimate.py",
    "every family's graph, held to llama-server: tests/unit/models/memory/test_accuracy.py": """
        models/memory/attention_blocks.py models/memory/blocks.py models/memory/feed_forward_blocks.py
        models/memory/recurrent_blocks.py models/memory/step.py models/memory/work.py""",
    "rendered files are compared whole: tests/golden/test_render.py, "
    "tests/unit/platforms/kubernetes/test_rendering.py": """
        platforms/kubernetes/options.py platforms/kubernetes/parameters.py platforms/runpod/api.py""",
    "through its only user: tests/unit/rundir/test_supervisord_client.py": "rundir/unix_xmlrpc.py",
    "one table for all checks: tests/unit/settings/checks/test_table.py": """
        settings/checks/engine.py settings/checks/model.py settings/checks/network.py settings/checks/paths.py
        settings/checks/placement.py settings/checks/speculation.py""",
    "through load: tests/unit/settings/loading/test_load.py, tests/golden/test_config.py": """
        settings/loading/nested_variables.py settings/loading/origins.py settings/loading/yaml_errors.py""",
    "the catalogue of codes: tests/unit/settings/test_json_schema.py": "settings/messages/codes.py",
    "every message is compared whole: tests/golden/test_config.py": "settings/messages/pydantic_errors.py",
    "with the settings as a whole: tests/unit/settings/sections/test_settings.py": "settings/__init__.py",
}

# Test files that are of no one module, and what they test. (tests/unit/image/ is of image/.)
OF_NO_MODULE = {
    "cli/test_planted_secrets.py": "every command with secrets planted in all that it reads",
    "gateway/backends/test_residency_schedules.py": "random schedules: the driver with its policy",
    "keys/test_crash.py": "kill -9 at each step of a change: store, operations, audit log and atomic_file together",
    "models/download/test_kill.py": "kill -9 of a process that downloads",
    "models/memory/test_accuracy.py": "all of the memory plan, held to llama-server",
    "models/memory/test_known_models.py": "well-known models, against tables made by hand",
    "models/memory/test_untrusted_headers.py": "damaged headers, from the file to the plan",
    "platforms/test_guide.py": "image/README.md names a command for each platform",
    "platforms/test_schemas.py": "all that is rendered, against the platforms' own schemas",
}


def _test_of(module: str) -> str:
    path = Path(module)
    return str(path.with_name(f"test_{path.stem.strip('_')}.py"))


def _shows_only(tree: ast.Module) -> bool:
    """Whether a module is a docstring and names of others."""
    return all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__"))
        for node in tree.body
    )


def _with_code() -> set[str]:
    return {str(modules()[name].relative_to(PACKAGE)) for name, tree in sources().items() if not _shows_only(tree)}


def _test_files() -> set[str]:
    found = {str(path.relative_to(UNIT)) for path in UNIT.rglob("test_*.py")}
    return {name for name in found if not name.startswith("image/")}


def untested(code: set[str], tests: set[str]) -> set[str]:
    """Return the modules without a test file of their path."""
    return {module for module in code if _test_of(module) not in tests}


def of_no_module(code: set[str], tests: set[str]) -> set[str]:
    """Return the test files of whose path there is no module."""
    return tests - {_test_of(module) for module in code}


def test_every_module_has_a_test_file_of_its_path() -> None:
    listed = [module for some in NO_FILE_OF_ITS_OWN.values() for module in some.split()]
    assert len(set(listed)) == len(listed)
    found = untested(_with_code(), _test_files())
    assert not found - set(listed), f"no test file of its path: {sorted(found - set(listed))}"
    assert not set(listed) - found, f"needs no reason any more: {sorted(set(listed) - found)}"


def test_every_test_file_has_a_module_of_its_path() -> None:
    assert of_no_module(_with_code(), _test_files()) == set(OF_NO_MODULE)


@pytest.mark.parametrize("reason", NO_FILE_OF_ITS_OWN)
def test_the_tests_that_stand_in_are_there(reason: str) -> None:
    assert not [path for path in re.findall(r"tests/[\w/.]+\.py", reason) if not (ROOT / path).exists()]


def test_what_lies_elsewhere_is_found() -> None:
    code, tests = {"a/b.py", "a/__main__.py", "a/c.py"}, {"a/test_b.py", "a/test_main.py", "test_c.py"}
    assert untested(code, tests) == {"a/c.py"}
    assert of_no_module(code, tests) == {"test_c.py"}
    assert _shows_only(ast.parse('"""What."""\nfrom a import b\n__all__ = ["b"]'))
    assert not _shows_only(ast.parse("CONSTANT = 1"))
