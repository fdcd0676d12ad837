"""Shared by commands: finding and loading the configuration, and the options for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.loading.known_variables import CONFIG_VARIABLE
from llama_gguf.settings.loading.load import Loaded, load
from llama_gguf.settings.locations import CONFIG_FILE
from llama_gguf.settings.messages.report import explain

Command = TypeVar("Command", bound=Callable[..., Any])
DEFAULT_FILES = (Path("config/config.yaml"), Path(CONFIG_FILE))

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def find_config(
    given: Path | None, env: Mapping[str, str], *, is_file: Callable[[Path], bool] = Path.is_file
) -> Path | None:
    """Return the configuration file: as given, $LLAMA_GGUF_CONFIG, ./config/config.yaml, /etc/…, or none."""
    if given is not None:
        return given
    if named := clean(env.get(CONFIG_VARIABLE, "")).text:
        return Path(named)
    return next((candidate for candidate in DEFAULT_FILES if is_file(candidate)), None)


def load_or_exit(config: Path | None, sets: tuple[str, ...] = (), *, env: Mapping[str, str] | None = None) -> Loaded:
    """Load the configuration and report its warnings on stderr. Errors end the program with exit code 78."""
    variables = os.environ if env is None else env
    loaded = load(find_config(config, variables), variables, sets)
    report_warnings(loaded)
    return loaded


def report_warnings(loaded: Loaded) -> None:
    """Write the warnings of `loaded` to stderr."""
    if loaded.problems:
        click.echo(explain(loaded.problems, loaded.text), err=True)


def config_options(command: Command) -> Command:
    """Add `--config FILE` and `--set NAME=VALUE` to a command, passed as `config` and `sets`."""
    command = click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="NAME=VALUE",
        help="Override a setting, as in --set gateway.port=9000. Can be repeated.",
    )(command)
    return click.option(
        "--config",
        "-c",
        type=click.Path(path_type=Path),
        help=f"Configuration file; default ${CONFIG_VARIABLE}, ./config/config.yaml or {CONFIG_FILE}.",
    )(command)


def config_argument(command: Command) -> Command:
    """Add `[FILE]`, `--config` and `--set`; the command passes the first two to `chosen`."""
    return click.argument("file", type=click.Path(path_type=Path), required=False)(config_options(command))


def chosen(file: Path | None, config: Path | None) -> Path | None:
    """Return the configuration file that is given, as argument or as option."""
    if file is not None and config is not None and file != config:
        raise click.UsageError(f"two configuration files: {file} and {config}")
    return file if file is not None else config
