"""`llama-gguf`: the commands, each in a module of its own that is imported only when it is used.

Owns how errors are shown: expected ones as `error: …` with their exit code, usage errors as 64, Ctrl-C as 130, and an
internal error as one line that says how to get the traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from llama_gguf import __version__
from llama_gguf.errors import ExitCode, LlamaGgufError

if TYPE_CHECKING:
    from llama_gguf.settings.loading.load import InvalidConfigError

COMMANDS = {
    "up": "Start the appliance and stay until it stops.",
    "check": "Check the configuration; exit 78 if it is invalid.",
    "config": "Show the effective configuration and every variable.",
    "plan": "Print what `up` would run, without running it.",
    "status": "Show the programs, their states and the last error.",
    "keys": "Create, list, update and revoke API keys.",
    "usage": "Show tokens and requests by key, model or day.",
    "audit": "Verify the log of key changes and admin calls.",
    "models": "List, download, verify and remove the models' files.",
    "model": "Download the model, or show its metadata.",
    "diagnostics": "Collect a report for troubleshooting, secrets masked.",
    "render": "Write launch specs for RunPod, Vast.ai, compose and Kubernetes.",
    "gen": "Regenerate the files in schema/.",
}
"""Command -> one line of help, so that `--help` imports no command: each is in a module of its name."""
HIDDEN = {"gen"}
INTERRUPTED = 130
TRACEBACK_VARIABLE = "LLAMA_GGUF_TRACEBACK"


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, the ones needed first at the top."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if it does not exist."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"llama_gguf.cli.commands.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table of summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([row for row in COMMANDS.items() if row[0] not in HIDDEN])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, suggest the most similar."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from llama_gguf.settings.words import closest  # noqa: PLC0415 - only for a mistyped command

            near = closest(args[0], [name for name in COMMANDS if name not in HIDDEN])
            hint = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(f"{error.format_message()}{hint}", ctx) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llama-gguf")
def cli() -> None:
    """Serve a GGUF model behind a safe, fast, OpenAI-compatible endpoint, from one YAML file."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; all errors are reported on stderr."""
    try:
        result = cli.main(args=arguments, prog_name="llama-gguf", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - the last resort: users get a sentence, not a traceback
        return _failure(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return result if isinstance(result, int) else ExitCode.OK


def _failure(error: Exception) -> int:
    """Report `error` on stderr and return its exit code."""
    match error:
        case click.exceptions.Abort():
            return INTERRUPTED
        case click.ClickException():
            error.show()
            return ExitCode.USAGE
        case LlamaGgufError():
            report(error)
            return error.exit_code
        case BrokenPipeError():
            sys.stdout = None  # the reader has closed the pipe; nothing to flush
            return ExitCode.OK
        case _:
            return _internal_error(error)


def report(error: LlamaGgufError) -> None:
    """Write an expected error to stderr."""
    problems = getattr(error, "problems", ())
    if problems:
        from llama_gguf.settings.messages.report import count, explain  # noqa: PLC0415 - only on errors

        invalid: InvalidConfigError | None = error if hasattr(error, "text") else None  # type: ignore[assignment]
        click.echo(explain(problems, invalid.text if invalid else ""), err=True)
        click.echo(count(problems), err=True)
        return
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)


def _internal_error(error: Exception) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    click.echo(f"error: internal error in llama-gguf: {type(error).__name__}: {error}", err=True)
    click.echo(f"hint: run it again with {TRACEBACK_VARIABLE}=1 and report its output", err=True)
    return ExitCode.INTERNAL


def main() -> None:
    """Entry point of the `llama-gguf` command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
