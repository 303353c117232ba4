"""The `inferway` command: every subcommand, and what becomes of errors.

Exit codes: 0 done; 1 it did not work, with one line on stderr that says what to do; 2 wrong usage; 3 there is something
to do, where `apply --exit-code` asks for it, or the rollout that was watched was rolled back or failed; 130 Ctrl-C.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import typer

from inferway.errors import InferwayError
from inferway_cli.commands import apply, catalogue, endpoints, fleet, predictions, rollouts, serving, up
from inferway_cli.console import INTERRUPTED, CommandError, explain, report

FAILED = 1

app = typer.Typer(
    name="inferway",
    help="""Serve TensorFlow models over gRPC, and work with what is served.

        inferway up                              start everything, with a demo model
        inferway push digits ./model --wait      publish a SavedModel
        inferway apply -f serving/ --wait        make it as files in git describe it
        inferway rollout start digits --to 2     bring a version to users, judged
        inferway predict digits                  ask it
        inferway load digits --rate 200          make traffic, watch latency
        inferway status                          see how things stand
        inferway why digits                      learn how it is served, and why so
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Run": {"up": up.up},
    "Models": {
        "push": catalogue.push_model,
        "alias": catalogue.set_alias,
        "models": catalogue.list_models,
        "model": catalogue.show_model,
        "unload": catalogue.unload_version,
        "delete": catalogue.delete,
    },
    "From files": {"apply": apply.apply},
    "Serving": {"why": serving.why, "tune": serving.tune, "policy": serving.policy},
    "Traffic": {"endpoint": endpoints.endpoint, "predict": predictions.predict, "load": predictions.load},
    "Watch": {"status": fleet.show_status, "trace": fleet.show_trace, "version": fleet.show_version},
}


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Ctrl-C ends a command with its own exit code, whatever the command is doing."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


for _group, _commands in _COMMANDS.items():
    for _name, _function in _commands.items():
        app.command(_name, rich_help_panel=_group)(_interruptible(_function))

_rollout = typer.Typer(
    help="""Bring a version to users step by step, judged by what it does to them, and back by itself if it does harm.

        inferway endpoint digits --manual        what is published moves nobody
        inferway push digits ./better-model
        inferway rollout start digits --to 2     a canary; others by --strategy
        inferway rollout watch digits            evidence, what comes next, and why
        inferway rollout report digits           one page, with plots
    """,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for _name, _function in rollouts.COMMANDS.items():
    _rollout.command(_name)(_interruptible(_function))
app.add_typer(_rollout, name="rollout", rich_help_panel="Traffic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, the process's own if None; returns the exit code, unless typer exits by itself."""
    try:
        app(arguments, prog_name="inferway")
    except KeyboardInterrupt:
        return INTERRUPTED
    except InferwayError as error:
        report(explain(error))
        return FAILED
    except CommandError as error:
        report(str(error))
        return FAILED
    return 0
