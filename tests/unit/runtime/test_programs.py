from __future__ import annotations

from llama_gguf.runtime.programs import GATEWAY, HEALTH, LISTENER, build_programs
from llama_gguf.settings import Settings, parse
from llama_gguf.settings.locations import ENGINE_PROGRAM


def settings(**sections: object) -> Settings:
    return parse({"model": {"path": "/m.gguf"}} | sections)


def test_the_programs() -> None:
    programs = {program.name: program for program in build_programs(settings(), "python3.11")}
    assert set(programs) == {ENGINE_PROGRAM, GATEWAY, HEALTH, LISTENER}
    assert programs[ENGINE_PROGRAM].argv == ("python3.11", "-P", "-m", "llama_gguf.engine")
    assert programs[LISTENER].listener
    assert not programs[GATEWAY].listener


def test_the_gateway_stops_first_and_the_listener_last() -> None:
    by_stop = sorted(build_programs(settings(), "python"), key=lambda program: -program.priority)
    assert [program.name for program in by_stop] == [GATEWAY, ENGINE_PROGRAM, HEALTH, LISTENER]


def test_stop_times_come_from_the_settings_rounded_up() -> None:
    tree = settings(gateway={"drain_seconds": 7.2}, supervisor={"stop_seconds": 3.5, "start_retries": 9})
    programs = {program.name: program for program in build_programs(tree, "python")}
    assert programs[GATEWAY].stop_seconds == 8 + 4
    assert programs[ENGINE_PROGRAM].stop_seconds == 4
    assert programs[ENGINE_PROGRAM].start_retries == 9


def test_each_program_asks_for_the_variables_it_needs() -> None:
    tree = settings(
        limits={"store": "redis://r:6379/0", "store_password_env": "STORE_WORD"},
        model={"url": "https://x/m.gguf", "token_env": "WEIGHTS_TOKEN", "lora": [{"url": "u", "token_env": "LORA"}]},
        auth={"bootstrap": {"env": "FIRST_KEY"}},
    )
    programs = {program.name: program for program in build_programs(tree, "python")}
    assert {"HF_*", "WEIGHTS_TOKEN", "LORA", "HTTPS_PROXY"} < set(programs[ENGINE_PROGRAM].variables)
    assert programs[GATEWAY].variables == ("STORE_WORD",)
    assert programs[HEALTH].variables == programs[LISTENER].variables == ()
    assert not any("FIRST_KEY" in program.variables for program in programs.values())


def test_no_setting_reaches_an_argv() -> None:
    plain = build_programs(settings(), "python")
    odd = build_programs(settings(engine={"extra_args": ["; rm"]}, logging={"name": "x"}), "python")
    assert [program.argv for program in plain] == [program.argv for program in odd]


def test_each_model_has_an_engine_of_its_own_and_the_largest_starts_first() -> None:
    models = {"a": {"name": "a.gguf"}, "b": {"name": "b.gguf"}, "c": {"name": "c.gguf", "load": "on_demand"}}
    tree = settings(model={}, models=models)
    programs = {program.name: program for program in build_programs(tree, "python", {"engine-b": 9, "engine-a": 5})}
    engines = [program for name, program in programs.items() if name.startswith("engine")]
    assert [program.name for program in sorted(engines, key=lambda one: one.priority)] == [
        "engine-b",
        "engine-a",
        "engine-c",
    ]
    assert [program.autostart for program in engines] == [True, True, False]
    one_by_one = build_programs(tree, "python", {"engine-b": 9, "engine-a": 5}, one_by_one=True)
    assert [program.name for program in one_by_one if not program.autostart] == ["engine-a", "engine-c"]
    assert programs["engine-a"].argv[-2:] == ("llama_gguf.engine", "engine-a")
    assert programs[GATEWAY].priority > max(program.priority for program in engines)
